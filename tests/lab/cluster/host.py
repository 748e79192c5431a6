"""One machine of the lab: namespaces of its own for processes, network, mounts, name and IPC.

Its disk is DIRECTORY/fs, which outlives a power cut; /run, every process and every connection do not.
The object holds no state but what it can check: everything is found on disk and in /proc, so that another
process can go on.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .processes import LabFailed, Process, first_process, freeze, kill, members, until
from .switch import UNSHARE, Switch

INIT = Path(__file__).with_name("init.py")
OWN_DIRECTORIES = (
    "etc/libvirt",
    "etc/vcl",
    "etc/ceph",
    "var/lib/libvirt",
    "var/lib/vcl",
    "var/log/libvirt",
    "var/log/vcl",
    "var/cache/libvirt",
)
_SCRIPT = 'setsid "$@" </dev/null >>{log} 2>&1 & echo $! > /run/lab/{name}.pid'


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a machine is in the lab's network, which no machine outside can reach."""

    name: str
    ip: str

    @property
    def mac(self) -> str:
        """The same after each power cut, as with a real network card."""
        return "02:77:" + ":".join(f"{int(part):02x}" for part in self.ip.split("."))


class Host:
    """A machine, switched on or off."""

    def __init__(
        self, directory: Path, address: Address, switch: Switch, everybody: Sequence[Address]
    ) -> None:
        self.dir = directory
        self.name = address.name
        self.address = address
        self._switch = switch
        self._everybody = everybody
        self._found: Process | None = None

    @property
    def files(self) -> Path:
        """Its own files as this machine sees them: `files / "etc/vcl"` is its /etc/vcl."""
        return self.dir / "fs"

    def first(self) -> Process | None:
        """Its first process; None when it is off. Found once: all that is asked of a machine asks this,
        and to look through all of /proc each time keeps a processor busy."""
        if self._found is None or not self._found.alive():
            self._found = first_process([str(INIT), str(self.dir), self.name])
        return self._found

    def on(self) -> bool:
        return self.first() is not None

    def power_on(self) -> None:
        """Boot it: a new boot id, an empty /run, its link plugged in, nothing running. No-op when on."""
        if self.on():
            return
        self.install()
        ready = self.dir / "ready"
        ready.unlink(missing_ok=True)
        own = ("--net", "--uts", "--ipc")
        command = [*UNSHARE, *own, sys.executable, "-I", "-S", str(INIT), str(self.dir), self.name]
        log = shlex.quote(str(self.dir / "init.log"))
        self._switch.run("sh", "-c", f"setsid {shlex.join(command)} </dev/null >>{log} 2>&1 &", pid=True)
        until(lambda: ready.exists() and ready.read_text(), 20.0, f"{self.name} has booted; see {log}")
        self._switch.plug(self._running().pid, self.address.name, self.address.ip, self.address.mac)

    def power_cut(self) -> None:
        """Unplug it and kill every process at once: no connection of it says good-bye. No-op when off."""
        first = self.first()
        if first is not None:
            self._switch.unplug(self.name)
            kill([first, *members(first)])

    def run(
        self, *command: str, timeout: float = 60.0, check: bool = True, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on it. LabFailed with its complaint when it fails and `check` is on."""
        done = subprocess.run(
            self.command(*command),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env={**environment(), **(env or {})},
        )
        if check and done.returncode:
            said = (done.stderr or done.stdout).strip()[-1000:]
            raise LabFailed(f"{self.name}: {shlex.join(command)}: exit status {done.returncode}: {said}")
        return done

    def command(self, *command: str) -> list[str]:
        """What has to be run on this machine, in environment(), to run `command` on that one."""
        namespaces = ("--mount", "--uts", "--ipc", "--net", "--pid", "--wdns=/")
        return ["nsenter", "--target", str(self._running().pid), *namespaces, "--", *command]

    def spawn(self, name: str, *command: str, env: Mapping[str, str] | None = None) -> None:
        """Start a daemon; what it prints goes to log(name). No-op when it runs."""
        if self.daemon(name) is None:
            script = _SCRIPT.format(log=shlex.quote(str(self.log(name))), name=name)
            self.run("sh", "-c", script, name, *command, env=env)

    def log(self, name: str) -> Path:
        return self.dir / f"{name}.log"

    def daemon(self, name: str) -> Process | None:
        """The running daemon, frozen or not; None when it does not run."""
        first = self.first()
        if first is None:
            return None
        try:
            inner = int(Path(f"/proc/{first.pid}/root/run/lab/{name}.pid").read_text())
        except (OSError, ValueError):
            return None
        return next((each for each in members(first) if each.inner_pid() == inner), None)

    def end(self, name: str, number: int, *, seconds: float = 30.0) -> None:
        """Send the daemon a signal that ends it; returns when it is gone. No-op when it does not run."""
        daemon = self.daemon(name)
        if daemon is not None:
            daemon.signal(number)
            until(lambda: not daemon.alive(), seconds, f"{name} of {self.name} has ended")

    def members(self) -> list[Process]:
        """All of its processes but the first."""
        first = self.first()
        return members(first) if first is not None else []

    def freeze(self, daemon: str = "") -> None:
        """SIGSTOP for a daemon, or for all processes: the kernel answers pings and accepts connections."""
        freeze(lambda: self._meant(daemon))

    def thaw(self, daemon: str = "") -> None:
        """SIGCONT for a daemon, or for all processes. No-op when it is off."""
        for each in self._meant(daemon) if self.on() else []:
            each.signal(signal.SIGCONT)

    def _meant(self, daemon: str) -> list[Process]:
        if not daemon:
            return self.members()
        found = self.daemon(daemon)
        if found is None:
            raise LabFailed(f"no {daemon} runs on {self.name}")
        return [found]

    def boot_id(self) -> str:
        return (self.dir / "ready").read_text()

    def _running(self) -> Process:
        first = self.first()
        if first is None:
            raise LabFailed(f"{self.name} is off; switch it on with: lab fault power-on {self.name}")
        return first

    def install(self) -> None:
        """Its disk, unless it has one."""
        for directory in OWN_DIRECTORIES:
            (self.files / directory).mkdir(parents=True, exist_ok=True)
        lines = ["127.0.0.1 localhost", *(f"{each.ip} {each.name}" for each in self._everybody)]
        _once(self.files / "etc/hosts", "\n".join(lines) + "\n")
        _once(self.files / "etc/hostname", f"{self.name}\n")
        _once(self.files / "etc/machine-id", f"{uuid.uuid4().hex}\n")


def environment() -> dict[str, str]:
    """For commands on a host: the project's own programs first, nothing of the caller's vcl or Ceph, and
    temporary files that go with a power cut."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("VCL_", "CEPH_"))}
    path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    return {**inherited, "PATH": path, "TMPDIR": "/run/tmp"}


def _once(path: Path, text: str) -> None:
    if not path.exists():
        path.write_text(text)
