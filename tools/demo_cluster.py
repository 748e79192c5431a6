"""The demo with several nodes: whole machines in namespaces, a real Ceph, and one cluster on them.

Everything is the lab of tests/lab/cluster, in a directory beside the one-node demo's; both can run at once.
It needs root, for namespaces. Standard library only: `make demo-stop` works without the environment.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import demo_place
from demo_boot import SAID
from demo_place import ROOT, DemoFailed, Place
from demo_show import Steps, title

SHOWN = "survivor"
BOOT_SECONDS = 120
GO_ON = """
The cluster goes on in the background. To use it from this shell:

  export VCL_LAB_DIR={dir}
  export PATH={tools}:$PATH

See a machine survive its host, in two shells:

  lab run {other} vcl get vms -w          watch it in the one
  lab fault power-cut {home:<15}in the other: the node that `survivor` runs on dies
  lab run {other} vcl get failovers       the VM goes on elsewhere; how many seconds each step took
  lab run {other} vcl describe failover NAME
  lab run {other} vcl get vms             where it runs now; lab run NODE vcl console survivor --tail 20
                                     shows there which number it found on its disk
  lab fault power-on {home:<16}the node comes back and takes work again; the VM stays where it is

Then try:

  lab run {last} vcl get all              any node answers for all of them
  lab run {last} bash                     a shell on a node
  lab fault power-cut {best:<15}the best rank dies, and is master again a while after `power-on`
  lab fault cut-ceph {last:<16}a node loses its storage only; lab fault heal
  lab help                           everything else that can be broken

A manifest is a file: write one into {manifests}
with any editor, and it is on every node. docs/lab.md tells more.

  make demo-stop                       removes all of this
"""


def place() -> Path:
    """The directory, beside the one-node demo's."""
    return Path(f"{demo_place.place().dir}-cluster")


def start(nodes: int, guest: Callable[[Place, Steps], None]) -> None:
    """From nothing, or from wherever an earlier run got to, to a booted guest. Raises DemoFailed."""
    package = _package()
    directory = place()
    settings = package.kept(directory)
    if settings is None and directory.exists() and any(directory.iterdir()):
        raise DemoFailed(f"{directory} holds files that the demo did not make; move it away")
    steps = Steps()
    try:
        lab = package.ClusterLab(directory, settings or package.LabSettings(nodes=nodes))
        print(f"vcl demo: {len(lab.nodes)} nodes on Ceph, everything in {directory}\n", flush=True)
        steps.now("machines", "Ceph, libvirt and vcld are started")
        lab.start(say=steps.done)
        guest(Place(dir=directory), steps)
        master = _wait(lab, steps)
        _save(lab, steps)
        _boot(lab, steps)
    except package.LabFailed as error:
        raise DemoFailed(
            f"{error}; what runs is left for you to look at (VCL_LAB_DIR={directory} tools/lab status), "
            "`make demo-stop` removes it"
        ) from error
    finally:
        steps.close()
    _show(lab, master)


def stop() -> bool:
    """Remove everything that `start` made; whether there was anything."""
    package, directory = _package(), place()
    if package.kept(directory) is None:
        return False
    lab = package.ClusterLab(directory)
    lab.stop()
    print(f"demo: ended {len(lab.nodes)} nodes and their Ceph; removed {directory}")
    return True


def _package() -> Any:
    name, path = "vcl_lab_cluster", ROOT / "tests/lab/cluster"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            name, path / "__init__.py", submodule_search_locations=[str(path)]
        )
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def _wait(lab: Any, steps: Steps) -> str:
    """Until all nodes are ready and agree on a master; its name."""
    steps.now("cluster", "the nodes find each other and elect a master")

    def agreed() -> str:
        said = {node.master() for node in lab.nodes.values()}
        ready = all(node.standing(name) == "Ready" for node in lab.nodes.values() for name in lab.nodes)
        return said.pop() if ready and len(said) == 1 else ""

    _package().until(agreed, 60.0, "the nodes agree on a master")
    steps.done("cluster", f"{len(lab.nodes)} of {len(lab.nodes)} nodes are ready, {agreed()} is master")
    return agreed()


def _save(lab: Any, steps: Steps) -> None:
    """Save a manifest on the first node and wait until it is on the last."""
    first, *_, last = lab.nodes.values()
    text = (ROOT / f"manifests/demo-cluster/{SHOWN}.yaml").read_text(encoding="utf-8")
    text = text.replace(str(demo_place.DEFAULT), str(lab.dir))
    there = last.manifests / f"{SHOWN}.yaml"
    began = time.monotonic()
    first.save(there.name, text)
    steps.done("manifest", f"{there.name} is saved in the manifest directory of {first.name}")
    _package().until(lambda: there.exists() and there.read_text() == text, 30.0, f"it is on {last.name}")
    steps.done("manifest", f"it is on {last.name} {(time.monotonic() - began) * 1000:.0f} ms later")


def _boot(lab: Any, steps: Steps) -> None:
    """Until the guest's own user space has said something, on whichever node it runs."""
    said = ""

    def booted() -> bool:
        nonlocal said
        texts = [node.console(SHOWN).replace("\r", "").encode() for node in lab.nodes.values()]
        said = next((found[0].decode() for text in texts if (found := SAID.search(text))), "")
        return bool(said)

    steps.now(SHOWN, "boots")
    _package().until(booted, BOOT_SECONDS, f"{SHOWN} has booted")
    where = [node.name for node in lab.nodes.values() if node.qemus(SHOWN)]
    steps.done(SHOWN, f"runs on {' and '.join(where)}; its console says '{said}'")


def _show(lab: Any, master: str) -> None:
    names = list(lab.nodes)
    other = next(name for name in [*names[1:], *names] if name != master or len(names) == 1)
    for name, words in (
        (other, ("get", "nodes", "-o", "wide")),
        (master, ("cluster", "status")),
        (names[-1], ("get", "vms", "-o", "wide")),
    ):
        title(f"lab run {name} vcl {' '.join(words)}")
        done = lab.nodes[name].vcl(*words, check=False)
        print(re.sub(r"[ \t]+$", "", (done.stdout + done.stderr).rstrip(), flags=re.MULTILINE), flush=True)
    words = {"dir": shlex.quote(str(lab.dir)), "tools": shlex.quote(str(ROOT / "tools"))}
    manifests = lab.nodes[names[0]].manifests
    home = next((node.name for node in lab.nodes.values() if node.qemus(SHOWN)), names[-1])
    watcher = next((name for name in names[::-1] if name != home), home)
    text = GO_ON.format(**words, best=names[0], last=names[-1], home=home, other=watcher, manifests=manifests)
    print(text.rstrip(), flush=True)
