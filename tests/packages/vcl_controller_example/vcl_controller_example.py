"""A whole controller in one file: every VM is a process that sleeps, and SIGSTOP is "paused".

Start here for a controller of your own. What makes it safe, and not just short:
* the process is created paused and let go only after it is on record; one that a killed daemon did not get
  to record has done nothing yet, and is ended when the daemon comes back;
* a process is known by its number *and* its start time, since numbers are used again;
* what cannot be read raises ControllerUnavailable: unknown is never "gone".
"""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

from reconciler.ports.controller import Controller, ControllerContext
from reconciler.resources.domains import (
    ControllerEvent,
    Definition,
    DomainPhase,
    ExitReason,
    Gone,
    Observed,
    PauseReason,
    StartRequest,
)
from reconciler.resources.errors import (
    AlreadyExists,
    ControllerUnavailable,
    NotFound,
    NotOurs,
    StartFailed,
)

POLL = 0.1
"""Seconds between two looks at the processes, for events."""

PROGRAM = "kill -STOP $$; while :; do sleep 3600 & wait; done"
"""Stops itself first: created paused."""


class Processes:
    """The lifecycle (`ResourceController`)."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    async def render(self, request: StartRequest, *, timeout: float) -> Definition:
        if request.spec.domain_xml is not None:
            message = f"'{request.name}': a process has no domainXML"
            raise StartFailed(message, reason="Unsupported", cure="remove spec.domainXML")
        record = {
            "uid": request.uid,
            "cluster_uid": request.cluster_uid,
            "node": request.node,
            "generation": request.generation,
            "vcpus": request.spec.cpu.cores,
            "memory": request.spec.memory,
        }
        return Definition(
            name=request.name,
            uid=request.uid,
            document=json.dumps(record, sort_keys=True),
            machine="process-1",
            writable=tuple(disk.path for disk in request.disks if not disk.read_only),
        )

    async def inventory(self, *, timeout: float) -> tuple[Observed, ...]:
        found = [self._look(name) for name in self._names()]
        return tuple(domain for domain in found if isinstance(domain, Observed))

    async def observe(self, name: str, *, uid: str = "", timeout: float) -> Observed | Gone:
        found = self._look(name)
        if isinstance(found, Gone) and uid:
            self._refuse_living(uid)
        return found

    async def create(self, definition: Definition, *, timeout: float) -> Observed:
        record = json.loads(definition.document)
        if isinstance(self._look(definition.name), Observed):
            if self._read(definition.name)["uid"] != definition.uid:
                raise NotOurs(f"'{definition.name}' is taken by another domain")
            raise AlreadyExists(f"'{definition.name}' runs already")
        self._refuse_living(definition.uid)
        command = ["/bin/sh", "-c", PROGRAM, self._mark(), definition.uid]
        pid = os.posix_spawn(command[0], command, os.environ, setsid=True)
        self._write(definition.name, {**record, "pid": pid, "started": _start_time(pid), "fresh": True})
        while _state(pid) not in ("T", ""):
            await asyncio.sleep(0.005)
        found = self._look(definition.name)
        if isinstance(found, Gone):
            raise StartFailed(f"the process of '{definition.name}' ended at once")
        return found

    async def set_paused(self, name: str, paused: bool, *, timeout: float) -> None:
        if isinstance(self._look(name), Gone):
            raise NotFound(f"there is no process of '{name}'")
        record = self._read(name)
        self._write(name, {**record, "fresh": False})
        os.killpg(record["pid"], signal.SIGSTOP if paused else signal.SIGCONT)
        while (_state(record["pid"]) == "T") is not paused:
            await asyncio.sleep(0.005)

    async def shutdown(self, name: str, *, timeout: float) -> None:
        self._signal(name, signal.SIGTERM, ExitReason.SHUTDOWN)

    async def destroy(self, name: str, *, uid: str, timeout: float) -> None:
        if isinstance(self._look(name), Observed):
            if self._read(name)["uid"] != uid:
                raise NotOurs(f"'{name}' is another domain: it is left alone")
            self._signal(name, signal.SIGKILL, ExitReason.DESTROYED)

    async def events(self) -> AsyncIterator[ControllerEvent]:
        """Compares two looks. Hints need not be complete: the daemon looks at everything now and then."""
        before: dict[str, Observed | Gone] = {}
        yield ControllerEvent(what="connected")
        lost = False
        while True:
            try:
                now = {name: self._look(name) for name in self._names()}
            except ControllerUnavailable:
                lost = True
            else:
                if lost:
                    yield ControllerEvent(what="reconnected")
                for name in sorted(now):
                    if now[name] != before.get(name):
                        yield ControllerEvent(name=name, what="changed")
                before, lost = now, False
            await asyncio.sleep(POLL)

    def end_unrecorded(self) -> None:
        """End the processes of a daemon that died before it had recorded them: they never ran."""
        recorded = {self._read(name)["pid"] for name in self._names()}
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if self._mark().encode() in path.read_bytes().split(b"\0"):
                    pid = int(path.parent.name)
                    if pid not in recorded and _state(pid) == "T":
                        os.killpg(pid, signal.SIGKILL)

    def _mark(self) -> str:
        return f"vcl-process:{self.directory}"

    def _names(self) -> list[str]:
        try:
            return sorted(path.stem for path in self.directory.iterdir() if path.suffix == ".json")
        except OSError as error:
            raise ControllerUnavailable(f"cannot list {self.directory}: {error}") from error

    def _read(self, name: str) -> dict:
        return json.loads((self.directory / f"{name}.json").read_bytes())

    def _write(self, name: str, record: dict) -> None:
        partial = self.directory / f"{name}.tmp"
        partial.write_text(json.dumps(record), encoding="utf-8")
        partial.rename(self.directory / f"{name}.json")

    def _look(self, name: str) -> Observed | Gone:
        if name not in self._names():
            return Gone()
        try:
            record = self._read(name)
        except (OSError, ValueError) as error:
            raise ControllerUnavailable(f"the record of '{name}' is unreadable: {error}") from error
        pid = record["pid"]
        if _start_time(pid) != record["started"]:
            return Gone(exit=ExitReason(record.get("asked", ExitReason.CRASHED)))
        paused = _state(pid) == "T"
        reason = PauseReason.STARTING if record["fresh"] else PauseReason.USER
        return Observed(
            name=name,
            uid=record["uid"] if record["node"] else "",
            cluster_uid=record["cluster_uid"],
            node=record["node"],
            generation=record["generation"],
            phase=DomainPhase.PAUSED if paused else DomainPhase.RUNNING,
            pause_reason=reason if paused else PauseReason.NONE,
            incarnation=f"{pid}:{record['started']}",
            clients=(f"pid:{pid}:{record['started']}",),
            vcpus=record["vcpus"],
            memory=record["memory"],
            machine="process-1",
            virtualization="process",
        )

    def _refuse_living(self, uid: str) -> None:
        for name in self._names():
            if self._read(name)["uid"] == uid and isinstance(self._look(name), Observed):
                raise ControllerUnavailable(f"the UUID {uid} lives as '{name}'")

    def _signal(self, name: str, number: signal.Signals, asked: ExitReason) -> None:
        if isinstance(self._look(name), Observed):
            record = self._read(name)
            self._write(name, {**record, "asked": asked})
            os.killpg(record["pid"], number)


class ProcessController:
    """A controller need not look into guests, nor have consoles; it leaves the host to another one."""

    name = "process"
    guest = None
    console = None
    host = None

    def __init__(self, context: ControllerContext) -> None:
        self._directory = context.state_dir / "process"
        self.lifecycle = Processes(self._directory)

    async def open(self) -> None:
        self._directory.mkdir(exist_ok=True)
        self.lifecycle.end_unrecorded()

    async def close(self) -> None:
        """The processes go on."""


def create(context: ControllerContext) -> Controller:
    """The entry point."""
    return ProcessController(context)


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the program's name; empty when there is no such process."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)  # our own dead children are zombies until somebody asks
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _state(pid: int) -> str:
    fields = _stat(pid)
    return fields[0] if fields and fields[0] not in "ZX" else ""


def _start_time(pid: int) -> str:
    fields = _stat(pid)
    return fields[19] if fields and fields[0] not in "ZX" else ""
