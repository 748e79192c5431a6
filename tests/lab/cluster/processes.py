"""Processes as the machine's /proc shows them, found by what they are and never by a number in a file.

Everything that the lab starts lives in PID namespaces whose first process names the lab's directory on its
command line. So what belongs to a lab is known without records: also after its starter was killed, and
without ever touching a process of somebody else.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path


class LabFailed(Exception):
    """The lab cannot do what it was asked for; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process that cannot be confused with a later one of the same id. `started` in clock ticks."""

    pid: int
    started: str

    def alive(self) -> bool:
        return start_time(self.pid) == self.started

    def signal(self, number: int) -> None:
        """Sends it, unless the process is gone."""
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def words(self) -> list[str]:
        """Its command line; empty when it is gone."""
        try:
            text = Path(f"/proc/{self.pid}/cmdline").read_bytes()
        except OSError:
            return []
        return [os.fsdecode(word) for word in text.split(b"\0")[:-1]]

    def inner_pid(self) -> int:
        """Its number in its own PID namespace; 0 when it is gone."""
        try:
            status = Path(f"/proc/{self.pid}/status").read_text()
        except OSError:
            return 0
        found = re.search(r"^NSpid:.*?(\d+)$", status, flags=re.MULTILINE)
        return int(found[1]) if found else 0

    def namespace(self) -> str:
        """Its PID namespace; empty when it is gone."""
        try:
            return os.readlink(f"/proc/{self.pid}/ns/pid")
        except OSError:
            return ""

    def stands_still(self) -> bool:
        """Whether every thread has seen a SIGSTOP; also when it is gone."""
        for path in Path(f"/proc/{self.pid}/task").glob("*/status"):
            with contextlib.suppress(OSError):
                if not re.search(r"^State:\t[TZX]", path.read_text(), flags=re.MULTILINE):
                    return False
        return True


def processes() -> Iterator[Process]:
    """All of the machine that are alive, zombies left out."""
    for entry in sorted(os.listdir("/proc")):
        if entry.isdigit() and (started := start_time(int(entry))):
            yield Process(pid=int(entry), started=started)


def first_process(arguments: list[str]) -> Process | None:
    """The first process of a PID namespace whose command line ends with the arguments."""
    for process in processes():
        if process.words()[-len(arguments) :] == arguments and process.inner_pid() == 1:
            return process
    return None


def members(first: Process) -> list[Process]:
    """Every process of the namespace of which `first` is the first, itself left out."""
    namespace = first.namespace()
    if not namespace:
        return []
    return [each for each in processes() if each.pid != first.pid and each.namespace() == namespace]


def kill(victims: list[Process], *, seconds: float = 20.0) -> None:
    """SIGKILL; returns when all are gone. Raises LabFailed when one is not."""
    for each in victims:
        each.signal(signal.SIGKILL)
    until(lambda: not any(each.alive() for each in victims), seconds, "killed processes are gone")


def freeze(victims: Callable[[], list[Process]]) -> None:
    """SIGSTOP, again until there is none left that a still running one has started meanwhile."""
    stopped: set[Process] = set()
    while fresh := [each for each in victims() if each not in stopped]:
        for each in fresh:
            each.signal(signal.SIGSTOP)
        stopped.update(fresh)
    until(lambda: all(each.stands_still() for each in stopped), 10.0, "stopped processes stand still")


def until(holds: Callable[[], object], seconds: float, what: str, *, every: float = 0.02) -> None:
    """Wait for it, looking that often. Raises LabFailed after so many seconds."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise LabFailed(f"waited {seconds:.0f} s in vain until {what}")
        time.sleep(every)


def start_time(pid: int) -> str:
    """Field 22 of /proc/PID/stat; empty for a process that is gone or only waits to be reaped."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    fields = text.rpartition(") ")[2].split()
    return "" if fields[0] in "ZX" else fields[19]
