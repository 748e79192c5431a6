#!/usr/bin/env python3
"""The demo: a one-node cluster in the background on embedded defaults, and two guests that really boot.

    make demo          .venv/bin/python tools/demo.py start
    make demo NODES=3  the same with --nodes 3: three machines in namespaces, on Ceph (demo_cluster.py)
    make demo-stop     python3 tools/demo.py stop

Everything is real: libvirtd (a private one that sees nothing of this machine's own), QEMU, vcld, the
manifests in manifests/demo. Started again it repairs and re-applies instead of beginning anew, so that an
interrupted demo needs no care. Settings, by environment: VCL_DEMO_TIMEOUT (120, seconds
for the boot), VCL_DEMO_VIRTUALIZATION (qemu; auto or kvm where KVM works), VCL_DEMO_DIR.
"""

from __future__ import annotations

import argparse
import http.client
import importlib.util
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import demo_boot
import demo_cluster
import demo_daemons
import demo_place
from demo_place import ROOT, DemoFailed, Place
from demo_show import Steps, title

SHOWN = "counter"
"""The VM that is described at the end."""

GO_ON = """
The cluster goes on in the background. To use it from this shell:

  export VCL_SOCKET={socket}
  export PATH={bin}:$PATH

Then try:

  vcl get all                          everything there is
  vcl console counter                  its serial console; Ctrl-] leaves it
  vcl edit vm hello                    change something, save, and see what vcl does
  vcl stop counter; vcl start counter  the count goes on where it was
  vcl delete vm hello                  and `make demo` brings it back
  vcl explain vm.spec                  what else can be written

A manifest is a file: write your own into {manifests} with any editor,
or with `vcl apply -f FILE`. README.md goes on from here.

  make demo-stop                       removes all of this
"""


def start() -> None:
    """From nothing, or from wherever an earlier run got to, to booted guests. Raises DemoFailed."""
    where = demo_place.place()
    if os.geteuid() == 0 and where.owner not in (0, None):
        raise DemoFailed(f"{where.dir} holds the demo of another user; remove it first: make demo-stop")
    demo_place.take(where)
    print(f"vcl demo: one node, everything in {where.dir}\n", flush=True)
    steps = Steps()
    try:
        _guest(where, steps)
        libvirtd, new = demo_daemons.start_libvirtd(where)
        steps.done("libvirtd", f"{'started' if new else 'runs already'}, a private one: {libvirtd.uri}")
        _vcld(where, libvirtd, steps)
        api = demo_boot.Api(where)
        demo_boot.wait_for_node(api, steps, 60)
        names = _apply(where, steps)
        demo_boot.wake(api, names, steps)
        seconds = float(os.environ.get("VCL_DEMO_TIMEOUT") or 120)
        missing = demo_boot.wait_for_boot(api, names, steps, seconds)
        if not missing:
            demo_boot.wait_for_addresses(api, names, steps, 20)
    finally:
        steps.close()
    if missing:
        demo_boot.explain_failure(api, where, missing, libvirtd.log_dir)
        raise DemoFailed(
            f"{' and '.join(missing)} did not boot within {seconds:.0f} s; all of it is left running "
            "for you to look at, `make demo` tries again, `make demo-stop` removes it"
        )
    _show(where)


def stop() -> None:
    """Remove everything that `start` made: guests, daemons, mounts, files. Raises DemoFailed."""
    where = demo_place.place()
    if where.owner is None:
        stray = demo_daemons.stop_vcld(where)
        print(f"demo: nothing in {where.dir}" + (f"; {stray} vcld ended" if stray else ", nothing to remove"))
        return
    demo_place.check_ours(where)
    vclds = demo_daemons.stop_vcld(where)
    libvirtd = demo_daemons.libvirtd(where)
    guests, ran = len(libvirtd.guests()), libvirtd.process() is not None
    libvirtd.stop()
    demo_place.remove(where)
    ended = [
        f"{vclds} vcld" if vclds else "",
        "libvirtd" if ran else "",
        f"{guests} guests" if guests else "",
    ]
    print(f"demo: ended {', '.join(filter(None, ended)) or 'nothing'}; removed {where.dir}")
    print("The environment .venv and build/ stay for the next time; installed packages stay as well.")


def _guest(where: Place, steps: Steps) -> None:
    spec = importlib.util.spec_from_file_location("vcl_guest_builder", ROOT / "tools/guest/build.py")
    assert spec is not None
    assert spec.loader is not None
    builder = importlib.util.module_from_spec(spec)
    sys.modules["vcl_guest_builder"] = builder
    spec.loader.exec_module(builder)
    steps.now("guest", "putting a small Linux together")
    try:
        kernel, initrd = builder.build(where.guest, ROOT / "build/guest/cache")
    except builder.BuildFailed as error:
        raise DemoFailed(f"the guest cannot be built: {error}") from error
    size = (kernel.stat().st_size + initrd.stat().st_size) / 2**20
    steps.done("guest", f"a distribution's kernel, busybox and the guest agent, {size:.0f} MiB")


def _vcld(where: Place, libvirtd: Any, steps: Steps) -> None:
    changed = demo_place.configure(where, libvirtd.uri, libvirtd.log_dir)
    running = demo_daemons.vclds(where)
    if running and not changed and all(demo_daemons.from_here(process) for process in running):
        steps.done("vcld", "runs already")
        return
    replaced = demo_daemons.stop_vcld(where)
    child = demo_daemons.start_vcld(where)
    demo_daemons.wait_for_socket(where, child, 30)
    child.returncode = 0  # it goes on without us; the interpreter need not warn
    steps.done("vcld", f"{'restarted' if replaced else 'started'}; its log: {where.log}")


def _apply(where: Place, steps: Steps) -> list[str]:
    """Apply the manifests; the names of the VMs."""
    source = demo_place.manifests(where)
    done = _vcl(where, "apply", "-f", str(source), capture=True)
    if done.returncode:
        raise DemoFailed(f"the manifests were not taken:\n{done.stdout}{done.stderr}".rstrip())
    results = done.stdout.split()
    pairs = [
        f"{name.partition('/')[2]} {what}" for name, what in zip(results[::2], results[1::2], strict=True)
    ]
    shown = source.relative_to(ROOT) if source.is_relative_to(ROOT) else source
    steps.done("manifests", f"vcl apply -f {shown}: {', '.join(pairs)}")
    return [name.partition("/")[2] for name in results[::2] if name.startswith("virtualmachine/")]


def _show(where: Place) -> None:
    for arguments in (
        ("get", "vms", "-o", "wide"),
        ("describe", "vm", SHOWN),
        ("console", SHOWN, "--tail", "10"),
    ):
        title(f"vcl {' '.join(arguments)}")
        _vcl(where, *arguments)
    print(
        GO_ON.format(
            socket=shlex.quote(str(where.socket)),
            bin=shlex.quote(str(ROOT / ".venv/bin")),
            manifests=where.dir / "state/manifests",
        ).rstrip(),
        flush=True,
    )


def _vcl(where: Place, *arguments: str, capture: bool = False) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "vcl.main", *arguments],
        env={**os.environ, "VCL_SOCKET": str(where.socket)},
        cwd=ROOT,
        text=True,
        capture_output=capture,
        check=False,
    )


def _run(verb: str, nodes: int) -> None:
    if verb == "stop":
        several = demo_cluster.stop()
        if not several or demo_place.place().owner is not None:
            stop()
    elif nodes == 1:
        start()
    else:
        demo_cluster.start(nodes, _guest)


def _terminated(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> int:
    parser = argparse.ArgumentParser(description="vcl's demo.")
    parser.add_argument("verb", choices=["start", "stop"])
    parser.add_argument("--nodes", type=int, default=1, help="more than one: a cluster on Ceph, as root")
    given = parser.parse_args()
    os.environ["PATH"] = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    signal.signal(signal.SIGTERM, _terminated)
    try:
        _run(given.verb, given.nodes)
    except DemoFailed as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "\ninterrupted; `make demo` goes on from here, `make demo-stop` removes it all", file=sys.stderr
        )
        return 130
    except BrokenPipeError:  # the reader of our output has gone; what was started goes on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (OSError, http.client.HTTPException) as error:
        print(f"\nerror: {error}; the end of vcld's log:", file=sys.stderr)
        print("\n".join(demo_place.last_lines(demo_place.place().log, 8)), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
