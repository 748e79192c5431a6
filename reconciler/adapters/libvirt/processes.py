"""QEMU processes as /proc shows them: the half of a proof of death that libvirt cannot give.

Invariant (SAFETY rule 7): a UUID counts as dead only when no process with it on its command line has a thread
that can still run. The kernel empties the command line of a dying process before its last write has ended,
so command lines are remembered for as long as the process exists; a dying QEMU that was never seen before
could be anybody's, and keeps everybody from being proven dead.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from dataclasses import dataclass

from reconciler.resources.errors import ControllerUnavailable

_DYING_SECONDS = 2.0
_DEAD = frozenset((b"Z", b"X"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """`started` in clock ticks since boot: with the pid it is unique until the next boot."""

    pid: int
    started: int

    @property
    def client(self) -> str:
        """The process as a client of a disk image, for a claim."""
        return f"pid:{self.pid}:{self.started}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    process: Process
    command: bytes
    dead: bool


class Processes:
    """Finds QEMU processes by `-uuid`. Command lines are read once per QEMU. Thread-safe."""

    def __init__(self, proc: str = "/proc") -> None:
        self._proc = proc
        self._lock = threading.Lock()
        self._known: dict[Process, str] = {}
        self._suspects: tuple[Process, ...] = ()

    def scan(self) -> dict[str, tuple[Process, ...]]:
        """UUID -> processes, oldest first, of every QEMU on this machine. Raises ControllerUnavailable when
        other users' processes are hidden: then absence would prove nothing."""
        with self._lock:
            return self._scan()

    def alive(self, uuid: str) -> tuple[Process, ...]:
        """The processes that may still write for this UUID; none is the proof that there is none. Raises
        ControllerUnavailable when, for two seconds, a QEMU is dying of which nothing else is known."""
        deadline = time.monotonic() + _DYING_SECONDS
        while True:
            with self._lock:
                found = self._scan().get(uuid, ())
                suspects = self._suspects
            if found or not suspects:
                return found
            if time.monotonic() > deadline:
                raise ControllerUnavailable(
                    f"QEMU process {suspects[0].pid} is ending, and it is not known whose it is",
                    cure="wait; if it does not end, its storage hangs",
                )
            time.sleep(_DYING_SECONDS / 40)

    def still(self, processes: tuple[Process, ...]) -> bool:
        """Whether these processes, and as many, run: cheaper than a scan."""
        entries = (_entry(self._proc, process.pid) for process in processes)
        return bool(processes) and all(
            entry is not None and not entry.dead and entry.process == process
            for entry, process in zip(entries, processes, strict=True)
        )

    def kill(self, uuid: str) -> None:
        """SIGKILL to every process of this UUID."""
        for process in self.scan().get(uuid, ()):
            with contextlib.suppress(ProcessLookupError):
                self._kill(process)

    def _kill(self, process: Process) -> None:
        handle = os.pidfd_open(process.pid)
        try:
            entry = _entry(self._proc, process.pid)
            if entry is not None and entry.process == process:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        finally:
            os.close(handle)

    def _scan(self) -> dict[str, tuple[Process, ...]]:
        if not os.path.exists(f"{self._proc}/1/stat"):
            raise ControllerUnavailable(
                "this user cannot see other users' processes (/proc is mounted with hidepid)",
                cure="run vcld as root, or give it the group of hidepid's gid= option",
            )
        known: dict[Process, str] = {}
        suspects: list[Process] = []
        for name in os.listdir(self._proc):
            entry = _entry(self._proc, int(name)) if name.isdigit() else None
            if entry is None or (entry.dead and not _threads_alive(self._proc, entry.process.pid)):
                continue
            # Not every command line is for ever: a child of libvirtd becomes QEMU by exec. Only what has
            # shown a UUID is final.
            uuid = self._known.get(entry.process)
            if uuid is None:
                command = _command_line(self._proc, entry.process.pid)
                uuid = _uuid(command)
                if not command and entry.command.startswith(b"qemu"):
                    suspects.append(entry.process)
            if uuid:
                known[entry.process] = uuid
        self._known, self._suspects = known, tuple(suspects)
        found: dict[str, tuple[Process, ...]] = {}
        for process in sorted(known, key=lambda one: (one.started, one.pid)):
            found[known[process]] = (*found.get(known[process], ()), process)
        return found


def _entry(proc: str, pid: int) -> _Entry | None:
    """None when there is no such process."""
    try:
        with open(f"{proc}/{pid}/stat", "rb") as file:
            head, _, tail = file.read().rpartition(b") ")
    except OSError:
        return None
    fields = tail.split()
    if len(fields) < 20:
        return None
    return _Entry(
        process=Process(pid=pid, started=int(fields[19])),
        command=head.partition(b"(")[2],
        dead=fields[0] in _DEAD,
    )


def _command_line(proc: str, pid: int) -> bytes:
    try:
        with open(f"{proc}/{pid}/cmdline", "rb") as file:
            return file.read()
    except OSError:
        return b""


def _uuid(command: bytes) -> str:
    words = command.split(b"\0")
    if b"-uuid" not in words[:-1]:
        return ""
    return words[words.index(b"-uuid") + 1].decode("ascii", "replace").lower()


def _threads_alive(proc: str, pid: int) -> bool:
    """Whether a thread of a process that looks dead still runs: the leader of a killed process is a zombie
    while another thread waits for the kernel to finish its write."""
    try:
        threads = os.listdir(f"{proc}/{pid}/task")
    except OSError:
        return False
    for thread in threads:
        try:
            with open(f"{proc}/{pid}/task/{thread}/stat", "rb") as file:
                state = file.read().rpartition(b") ")[2][:1]
        except OSError:
            continue
        if state not in _DEAD:
            return True
    return False
