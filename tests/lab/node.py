"""A real vcld on a private libvirtd and QEMU, seen from the outside: through `vcl`, /proc, libvirt and files.

Invariant: `close` leaves no process and no mount behind, however the test ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import libvirt
import yaml

cluster = sys.modules["vcl_lab_cluster"]
BIN = Path(sys.executable).parent
PATIENCE = 40.0
BOOT = 60.0
"""Seconds that a guest gets to boot under TCG on a busy machine."""


class LabNode:
    """One state directory, the vcld that runs on it, and the libvirtd below it (`libvirtd`, see lab)."""

    def __init__(self, root: Path, libvirtd: Any, guest: Any) -> None:
        self.root = root
        self.libvirtd = libvirtd
        self.guest = guest
        self.state = root / "state"
        self.manifests = self.state / "manifests"
        self.images = self.state / "images"
        self.socket = root / "run" / "vcld.sock"
        self.process: subprocess.Popen[bytes] | None = None
        self.prefix: tuple[str, ...] = ()
        self._holders: list[subprocess.Popen[bytes]] = []
        self._mounts: list[Path] = []

    # The daemon.

    def start(self, *, wait: bool = True) -> None:
        """Start vcld, by default until it answers and has found libvirt."""
        config = {
            "node": "r1",
            "stateDir": str(self.state),
            "runDir": str(self.root / "run"),
            "controllers": {
                "libvirt": {
                    "uri": self.libvirtd.uri,
                    "virtualization": "qemu",
                    "logDir": str(self.libvirtd.log_dir),
                    "keepaliveSeconds": 1,
                }
            },
            "log": {"level": "info"},
        }
        (self.root / "vcld.yaml").write_text(json.dumps(config))
        with (self.root / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*self.prefix, BIN / "vcld", "--config", self.root / "vcld.yaml"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        if wait:
            self.until(lambda: cluster.ask(self.socket, cluster.STATUS), what="vcld answers")

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send the signal; the exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(30)
        self.process = None
        return code

    def log(self) -> str:
        return (self.root / "log").read_text()

    def close(self) -> None:
        """End everything that the test has started: vcld, holders of images, guests, mounts."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(20)
        for holder in self._holders:
            holder.kill()
            holder.communicate(timeout=20)
        with contextlib.suppress(Exception):
            self.libvirtd.thaw()
        self.libvirtd.start()
        self.libvirtd.reap()
        self._undefine_all()
        for mount in self._mounts:
            subprocess.run(["umount", "-l", mount], check=False)

    def _undefine_all(self) -> None:
        connection = libvirt.open(self.libvirtd.uri)
        try:
            for domain in connection.listAllDomains():
                with contextlib.suppress(libvirt.libvirtError):
                    domain.destroy()
                with contextlib.suppress(libvirt.libvirtError):
                    domain.undefine()
        finally:
            connection.close()

    # What people see.

    def vcl(self, *arguments: str, timeout: float = 90.0) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [BIN / "vcl", *arguments],
            env={**os.environ, "VCL_SOCKET": str(self.socket)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def get(self, kind: str, name: str) -> dict[str, Any]:
        """The merged object, empty when there is none."""
        found: dict[str, Any] = cluster.ask_for(self.socket, kind, name)
        return found

    def status(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.get("vm", name).get("status", {})
        return found

    def phase(self, name: str) -> str:
        return str(self.status(name).get("phase", ""))

    def message(self, name: str) -> str:
        return str(self.status(name).get("message", ""))

    def claim(self, name: str) -> dict[str, Any]:
        """The claim that a node holds; empty when nobody does."""
        found: dict[str, Any] = self.status(name).get("claim") or {}
        return found if found.get("node") else {}

    def condition(self, name: str, kind: str) -> dict[str, Any]:
        conditions = self.status(name).get("conditions", [])
        return next((c for c in conditions if c["type"] == kind), {})

    def events(self, name: str) -> list[str]:
        """The reasons of the VM's events, oldest first."""
        answer = self.vcl("events", f"vm/{name}", "-o", "json")
        return [event["reason"] for event in json.loads(answer.stdout)["items"]]

    def console(self, name: str) -> str:
        """All that the guest has printed, as the file that QEMU writes has it."""
        path = self.state / "libvirt/libvirt/console" / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    # What is.

    def qemus(self, name: str) -> list[int]:
        """The processes that run the VM, whoever knows of them."""
        mark = f"guest={name},".encode()
        found = []
        for process in self.libvirtd.guests():
            with contextlib.suppress(OSError):
                if mark in Path(f"/proc/{process.pid}/cmdline").read_bytes():
                    found.append(process.pid)
        return found

    @contextlib.contextmanager
    def libvirt(self) -> Iterator[libvirt.virConnect]:
        """A connection of the test's own, as virsh has one."""
        connection = libvirt.open(self.libvirtd.uri)
        try:
            yield connection
        finally:
            connection.close()

    def until(
        self, condition: Callable[[], object], seconds: float = PATIENCE, what: str = "the condition"
    ) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                shown = self.vcl("get", "vms", "-o", "wide").stdout
                log = f"the log ends:\n{self.log()[-3000:]}"
                raise AssertionError(f"not within {seconds:.0f} s: {what}; {shown}{log}")
            time.sleep(0.1)

    def until_phase(self, name: str, phase: str, seconds: float = PATIENCE) -> dict[str, Any]:
        """The status with which the VM was first seen in the phase."""
        seen: dict[str, Any] = {}

        def reached() -> bool:
            nonlocal seen
            seen = self.status(name)
            return seen.get("phase") == phase

        self.until(reached, seconds, f"{name} is {phase}")
        return seen

    def until_printed(self, name: str, text: str, seconds: float = BOOT, times: int = 1) -> None:
        self.until(lambda: self.console(name).count(text) >= times, seconds, f"{name} prints {text!r}")

    def until_said(self, name: str, *texts: str, seconds: float = PATIENCE) -> str:
        """Wait until the VM's message holds all of the texts; the message."""
        said = ""

        def told() -> bool:
            nonlocal said
            said = self.message(name)
            return all(text in said for text in texts)

        self.until(told, seconds, f"the message of {name} says {texts}")
        return said

    # What people do.

    def spec(self, name: str, **changes: Any) -> dict[str, Any]:
        """The small Linux, without a disk and a network."""
        cmdline = f"console=ttyS0 quiet no_timer_check vcl.name={name}"
        boot = {"kernel": self.guest.kernel, "initrd": self.guest.initrd, "cmdline": cmdline}
        # QEMU's plain CPU boots a second sooner under emulation.
        cpu = {"cores": 1, "model": "qemu64"}
        spec = {"cpu": cpu, "memory": "128Mi", "boot": boot, "terminationGracePeriodSeconds": 30}
        return {**spec, **changes}

    def save(self, name: str, spec: dict[str, Any] | None = None, **changes: Any) -> Path:
        """Put the VM's manifest into the directory as an editor does: beside, then renamed."""
        manifest = {
            "apiVersion": "vcl/v1",
            "kind": "VirtualMachine",
            "metadata": {"name": name},
            "spec": self.spec(name, **changes) if spec is None else spec,
        }
        return self.write(f"{name}.yaml", yaml.safe_dump(manifest, sort_keys=False))

    def write(self, name: str, text: str) -> Path:
        path, fresh = self.manifests / name, self.manifests / f".{name}.tmp"
        fresh.write_text(text)
        fresh.rename(path)
        return path

    def boot(self, name: str, **changes: Any) -> int:
        """Save the manifest and wait until the guest has booted; the process that runs it."""
        times = self.console(name).count("vcl-guest: booted")
        self.save(name, **changes)
        self.until_printed(name, f"vcl-guest: booted {name}", times=times + 1)
        self.until_phase(name, "Running")
        (pid,) = self.qemus(name)
        return pid

    def hold(self, *command: str | Path) -> subprocess.Popen[bytes]:
        """A process of somebody else, ended after the test."""
        made = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._holders.append(made)
        return made

    def tmpfs(self, path: Path, size: str) -> Path:
        """A small file system at `path`, unmounted after the test."""
        path.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "vcl-test", path], check=True)
        self._mounts.append(path)
        # libvirtd has a mount namespace of its own, which is made when it starts.
        self.libvirtd.restart()
        return path


def alive(pid: int) -> bool:
    """Whether a process runs (not only waits to be reaped)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
