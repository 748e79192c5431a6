#!/usr/bin/env python3
"""A private libvirtd: the real one, without systemd, that sees none of this machine's libvirt state.

    python3 tests/lab/libvirtd.py start --dir DIR     prints the URI; a running one is left running
    python3 tests/lab/libvirtd.py stop --dir DIR      ends it and every QEMU it started
    python3 tests/lab/libvirtd.py uri --dir DIR

As root it runs in a mount namespace of its own, in which everything libvirt writes (/etc/libvirt,
/run/libvirt, /var/lib|log|cache/libvirt) is a directory under DIR: two of them never meet, and a guest
survives the death and the restart of its libvirtd because all state is on DIR, not in the namespace.
Another user gets libvirt's session mode with every XDG directory under DIR.
Standard library only: the demo runs it before anything is installed.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import dataclasses
import os
import re
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

_DAEMON_CONF = """\
unix_sock_dir = "{sockets}"
unix_sock_group = "{group}"
unix_sock_ro_perms = "0700"
unix_sock_rw_perms = "0700"
auth_unix_ro = "none"
auth_unix_rw = "none"
host_uuid = "{host_uuid}"
log_outputs = "3:stderr"
"""
_SESSION_CONF = 'host_uuid = "{host_uuid}"\nlog_outputs = "3:stderr"\n'
_QEMU_COMMON = 'stdio_handler = "file"\nsecurity_driver = "none"\n'
_QEMU_SYSTEM = """\
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
namespaces = []
cgroup_controllers = []
"""
_BINDS = {
    "etc": "/etc/libvirt",
    "lib": "/var/lib/libvirt",
    "log": "/var/log/libvirt",
    "cache": "/var/cache/libvirt",
    "run": "/run/libvirt",
}
_SOCKET_LIMIT = 107
_PR_SET_CHILD_SUBREAPER = 36


class LibvirtdFailed(Exception):
    """The private libvirtd cannot be used; the message says why."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process that cannot be confused with a later one of the same id. `started` in clock ticks."""

    pid: int
    started: str

    def alive(self) -> bool:
        return _start_time(self.pid) == self.started

    def signal(self, number: int) -> None:
        """Sends it, unless the process is gone."""
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


class PrivateLibvirtd:
    """One private libvirtd in one directory. The object holds no state: everything is found on disk and in
    /proc, so that another process can stop what this one started."""

    def __init__(self, directory: Path, *, session: bool | None = None) -> None:
        """`session`: libvirt's mode for one user; by default for everybody but root."""
        self.dir = directory.resolve()
        self.session = os.geteuid() != 0 if session is None else session
        self._sockets = self.dir / ("xdg/run/libvirt" if self.session else "run")

    @property
    def socket(self) -> Path:
        return self._sockets / "libvirt-sock"

    @property
    def uri(self) -> str:
        """For libvirt.open: reachable from the host's own namespace."""
        return f"qemu:///{'session' if self.session else 'system'}?socket={self.socket}"

    @property
    def log_dir(self) -> Path:
        """Where libvirt writes one log per domain."""
        return self.dir / ("xdg/cache/libvirt/qemu/log" if self.session else "log/qemu")

    def start(self, *, timeout: float = 60.0) -> str:
        """Starts it unless it runs, waits at most `timeout` seconds until it answers; returns the URI.
        Raises LibvirtdFailed with the end of its log."""
        if self.process() is None:
            self._prepare()
            self._spawn()
        self._wait(timeout)
        return self.uri

    def stop(self, *, guests: bool = True, timeout: float = 20.0) -> None:
        """Ends libvirtd, and with `guests` every QEMU it started. No-op when nothing runs."""
        process = self.process()
        if process is not None:
            process.signal(signal.SIGCONT)
            process.signal(signal.SIGTERM)
            self._gone(process, timeout)
        if guests:
            self.reap()
        (self.dir / "libvirtd.pid").unlink(missing_ok=True)

    def restart(self, *, timeout: float = 60.0) -> None:
        """A restart as an upgrade does it: the guests go on."""
        self.stop(guests=False)
        self.start(timeout=timeout)

    def kill(self) -> None:
        """SIGKILL; the guests go on. Returns when it is gone."""
        process = self.process()
        if process is not None:
            process.signal(signal.SIGKILL)
            self._gone(process, 10.0)

    def freeze(self) -> None:
        """SIGSTOP: it accepts connections and answers nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def process(self) -> Process | None:
        """The running libvirtd, or None."""
        try:
            pid, started = (self.dir / "libvirtd.pid").read_text().split()
        except (OSError, ValueError):
            return None
        process = Process(pid=int(pid), started=started)
        return process if process.alive() else None

    def guests(self) -> tuple[Process, ...]:
        """Every QEMU that this libvirtd started, known to it or not."""
        return tuple(process for process in _processes() if self._is_guest(process.pid))

    def reap(self) -> None:
        """Ends the guests; SIGKILL, for nothing of theirs is worth keeping."""
        for process in self.guests():
            process.signal(signal.SIGKILL)
            self._gone(process, 10.0)

    def remove(self) -> None:
        """Ends everything and deletes the directory."""
        self.stop()
        shutil.rmtree(self.dir, ignore_errors=True)

    def _signal(self, number: int) -> None:
        process = self.process()
        if process is None:
            raise LibvirtdFailed(f"no libvirtd runs in {self.dir}")
        process.signal(number)

    def _is_guest(self, pid: int) -> bool:
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if b"-uuid" not in words or not any(word.startswith(b"guest=") for word in words):
                return False
            if self.session:
                return str(self.dir).encode() + b"/" in b"\0".join(words)
            return os.path.samestat(os.stat(f"/proc/{pid}/root/run/libvirt"), os.stat(self.dir / "run"))
        except OSError:
            return False

    def _prepare(self) -> None:
        if len(str(self.socket)) > _SOCKET_LIMIT:
            raise LibvirtdFailed(f"{self.socket} is too long for a socket; choose a shorter directory")
        if shutil.which("libvirtd") is None:
            raise LibvirtdFailed("libvirtd is missing; install libvirt-daemon-system and qemu-system-x86")
        host = self.dir / "host_uuid"
        self.dir.mkdir(parents=True, exist_ok=True)
        if not host.exists():
            host.write_text(Path("/proc/sys/kernel/random/uuid").read_text().strip())
        if self.session:
            configuration = self.dir / "xdg/config/libvirt"
            daemon, qemu = _SESSION_CONF, _QEMU_COMMON
            self._sockets.mkdir(parents=True, exist_ok=True, mode=0o700)
        else:
            configuration = self.dir / "etc"
            daemon, qemu = _DAEMON_CONF, _QEMU_COMMON + _QEMU_SYSTEM
            for name in _BINDS:
                (self.dir / name).mkdir(exist_ok=True)
        configuration.mkdir(parents=True, exist_ok=True)
        group = _own_group()
        (configuration / "libvirtd.conf").write_text(
            daemon.format(sockets=self._sockets, group=group, host_uuid=host.read_text())
        )
        (configuration / "qemu.conf").write_text(qemu + self._display_ports())
        for stale in self._sockets.glob("libvirt-sock*"):
            stale.unlink()

    def _display_ports(self) -> str:
        """A range of VNC ports of its own: two libvirtds that look for a free one at one moment both take
        it, and the slower QEMU fails."""
        first = 10_000 + zlib.crc32(str(self.dir).encode()) % 250 * 200
        return f"remote_display_port_min = {first}\nremote_display_port_max = {first + 199}\n"

    def _spawn(self) -> None:
        environment = dict(os.environ)
        if self.session:
            xdg = self.dir / "xdg"
            places = {
                "RUNTIME_DIR": "run",
                "CONFIG_HOME": "config",
                "CACHE_HOME": "cache",
                "DATA_HOME": "data",
            }
            environment |= {f"XDG_{name}": str(xdg / place) for name, place in places.items()}
            command = ["libvirtd", "-f", str(xdg / "config/libvirt/libvirtd.conf")]
        else:
            command = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", self._script()]
        with (self.dir / "libvirtd.log").open("ab") as log:
            keeper = [sys.executable, "-E", "-S", str(Path(__file__).resolve()), "keep", str(self.dir)]
            subprocess.run(
                [*keeper, *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=environment,
                check=True,
            )

    def _script(self) -> str:
        """Every exec keeps the process id: unshare -> sh -> libvirtd."""
        lines = []
        for name, place in _BINDS.items():
            lines.append(f"mkdir -p {place}; mount --bind {shlex.quote(str(self.dir / name))} {place}")
        lines.append(f"exec libvirtd -p {shlex.quote(str(self.dir / 'libvirtd.own.pid'))}")
        return "\n".join(lines)

    def _wait(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self.process() is None:
                raise LibvirtdFailed(f"libvirtd ended: {self._last_words()}")
            if self._answers():
                return
            time.sleep(0.05)
        raise LibvirtdFailed(f"libvirtd does not answer after {timeout:.0f} s: {self._last_words()}")

    def _answers(self) -> bool:
        """Whether it has finished starting: then it replies to a call (0x20008086 is libvirt's program
        number, 66 the list of authentication methods, which every client asks first)."""
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1.0)
            probe.connect(str(self.socket))
            probe.sendall(struct.pack(">7I", 28, 0x20008086, 1, 66, 0, 0, 0))
            return bool(probe.recv(4))
        return False

    def _last_words(self) -> str:
        lines = (self.dir / "libvirtd.log").read_text(errors="replace").splitlines()
        hint = "; a private libvirtd needs root with the right to mount" if not self.session else ""
        return (" | ".join(lines[-3:]) or "it left no message") + hint

    def _gone(self, process: Process, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while process.alive():
            if time.monotonic() > deadline:
                process.signal(signal.SIGKILL)
                deadline = time.monotonic() + timeout
            time.sleep(0.02)


def keep(directory: Path, command: list[str]) -> None:
    """Run libvirtd as the child of a process that reaps: a QEMU outlives the process that started it, falls
    to the nearest reaper, and libvirt waits (40 s, then it gives up) until it is reaped. The first process of
    a container may be slow at that, or never do it. The keeper ends when all its children have."""
    if os.fork():
        deadline = time.monotonic() + 10
        while PrivateLibvirtd(directory).process() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        return
    os.setsid()
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    daemon = subprocess.Popen(command)
    temporary = directory / ".libvirtd.pid"
    temporary.write_text(f"{daemon.pid} {_start_time(daemon.pid)}\n")
    temporary.replace(directory / "libvirtd.pid")
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()
    daemon.returncode = 0


@contextlib.contextmanager
def private_libvirtd(directory: Path) -> Iterator[PrivateLibvirtd]:
    """A running one; at the end it, its guests and the directory are gone."""
    daemon = PrivateLibvirtd(directory)
    try:
        daemon.start()
        yield daemon
    finally:
        daemon.remove()


def _own_group() -> str:
    import grp

    return grp.getgrgid(os.getegid()).gr_name


def _processes() -> Iterator[Process]:
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (started := _start_time(int(entry))):
            yield Process(pid=int(entry), started=started)


def _start_time(pid: int) -> str:
    """Field 22 of /proc/PID/stat; empty for a process that is gone or only waits to be reaped."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    fields = re.sub(r"^.*\) ", "", text, flags=re.DOTALL).split()
    return "" if fields[0] in "ZX" else fields[19]


def main() -> int:
    if sys.argv[1:2] == ["keep"]:  # for `start` only
        keep(Path(sys.argv[2]), sys.argv[3:])
        return 0
    parser = argparse.ArgumentParser(description="Run a private libvirtd.")
    parser.add_argument("verb", choices=["start", "stop", "kill", "restart", "status", "uri"])
    parser.add_argument("--dir", type=Path, required=True, help="its directory; made when missing")
    options = parser.parse_args()
    daemon = PrivateLibvirtd(options.dir)
    try:
        match options.verb:
            case "start":
                print(daemon.start())
            case "stop":
                daemon.stop()
            case "kill":
                daemon.kill()
            case "restart":
                daemon.restart()
            case "uri":
                print(daemon.uri)
            case "status":
                running = daemon.process()
                print(f"{'running' if running else 'stopped'}, {len(daemon.guests())} guests")
                return 0 if running else 3
    except LibvirtdFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
