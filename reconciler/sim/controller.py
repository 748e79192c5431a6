"""The dummy controller: behaves like a hypervisor, runs nothing, and fails on request.

It is the twin of the libvirt controller in simulations, and the entry point `dummy` for a real daemon
(`spec.controller: dummy`), with options in the configuration's `controllers.dummy` section:

    controllers:
      dummy: {cpus: 64, memory: 256Gi, faults: {web1: {startFailures: 2}, "*": {bootDelay: 1.5}}}

Invariant: like libvirt, it never says Gone while a creation that was accepted is still outstanding.
"""

from __future__ import annotations

import asyncio
import difflib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, fields, replace
from xml.etree import ElementTree

from reconciler.ports.controller import (
    Console,
    ConsoleStream,
    Controller,
    ControllerContext,
    Host,
    ResourceController,
)
from reconciler.ports.controller import Guest as GuestPort
from reconciler.resources.codec import camel, decode, quantity
from reconciler.resources.domains import (
    ControllerEvent,
    Definition,
    ExitReason,
    Gone,
    GuestInfo,
    HostFacts,
    Observed,
    PauseReason,
    StartRequest,
)
from reconciler.resources.errors import (
    AlreadyExists,
    ControllerUnavailable,
    InvalidInput,
    NotFound,
    NotOurs,
    StartFailed,
)
from reconciler.sim.dummy_guests import (
    ALL,
    Faults,
    Guest,
    GuestFaults,
    Life,
    address,
    console_text,
    end,
    press_power,
    resume,
    suspend,
)
from reconciler.sim.dummy_hypervisor import DummyHypervisor
from reconciler.sim.dummy_shelf import DirectoryShelf, MemoryShelf, boot_id

TIB = 1 << 40


@dataclass(frozen=True, slots=True, kw_only=True)
class DummyOptions:
    """The section `controllers.dummy`. `memory` in bytes; `faults` by VM name or `*`; `persistent`: keep
    the guests in the state directory, so that they outlive the daemon."""

    cpus: int = 256
    memory: int = quantity("bytes", default=TIB)
    persistent: bool = True
    faults: Mapping[str, GuestFaults] = field(default_factory=dict)
    unavailable: tuple[str, ...] = ()
    hang: tuple[str, ...] = ()


class DummyLifecycle:
    """`ResourceController` on a `DummyHypervisor`."""

    def __init__(self, hypervisor: DummyHypervisor) -> None:
        self._hypervisor = hypervisor

    async def render(self, request: StartRequest, *, timeout: float) -> Definition:
        await _gate(self._hypervisor, "render", timeout)
        _check_xml(request)
        machine = request.machine or f"dummy-{request.spec.machine}-1.0"
        document = {
            "cluster_uid": request.cluster_uid,
            "node": request.node,
            "generation": request.generation,
            "vcpus": request.spec.cpu.cores,
            "memory": request.spec.memory,
            "machine": machine,
            "agent": request.spec.guest_agent,
        }
        return Definition(
            name=request.name,
            uid=request.uid,
            document=json.dumps(document, sort_keys=True),
            machine=machine,
            writable=tuple(disk.path for disk in request.disks if not disk.read_only),
        )

    async def inventory(self, *, timeout: float) -> tuple[Observed, ...]:
        await _gate(self._hypervisor, "inventory", timeout)
        now = _now()
        return tuple(guest.observed(now) for guest in self._hypervisor.alive())

    async def observe(self, name: str, *, uid: str = "", timeout: float) -> Observed | Gone:
        await _gate(self._hypervisor, "observe", timeout)
        guest = self._hypervisor.get(name)
        if guest is not None and guest.life is Life.PENDING:
            raise ControllerUnavailable(f"the creation of '{name}' has not ended yet")
        if guest is not None and guest.life is Life.ALIVE:
            return guest.observed(_now())
        if uid and (other := self._hypervisor.by_uid(uid)):
            raise ControllerUnavailable(f"'{name}' is absent, but its UUID {uid} lives as '{other.name}'")
        return Gone(exit=guest.exit if guest else ExitReason.UNKNOWN)

    async def create(self, definition: Definition, *, timeout: float) -> Observed:
        await _gate(self._hypervisor, "create", timeout)
        name, now = definition.name, _now()
        faults = self._hypervisor.faults.of(name)
        self._refuse_taken(definition)
        if self._hypervisor.failing_start(name):
            raise StartFailed(f"'{name}': {faults.failure_message}", reason=faults.failure_reason)
        number = self._hypervisor.next_number(name)
        fields = json.loads(definition.document)
        guest = Guest(name=name, uid=definition.uid, number=number, incarnation=f"{name}@{now!r}", **fields)
        if faults.start_delay <= 0:
            self._hypervisor.put(guest, "Started")
            return guest.observed(now)
        pending = replace(guest, life=Life.PENDING, appears=now + faults.start_delay)
        self._hypervisor.put(pending, "Pending")
        await asyncio.sleep(min(timeout, faults.start_delay))
        current = self._hypervisor.get(name)
        if current is None or current.life is not Life.ALIVE:
            raise ControllerUnavailable(f"the creation of '{name}' took longer than {timeout:g} s")
        return current.observed(_now())

    def _refuse_taken(self, definition: Definition) -> None:
        known = self._hypervisor.get(definition.name)
        if known is not None and known.life is not Life.ENDED:
            if known.uid != definition.uid:
                raise NotOurs(f"a domain called '{definition.name}' with the UUID {known.uid} exists already")
            raise AlreadyExists(f"'{definition.name}' runs already", cure="observe it before another start")
        if other := self._hypervisor.by_uid(definition.uid):
            raise NotOurs(f"the UUID {definition.uid} is taken by the domain '{other.name}'")

    async def set_paused(self, name: str, paused: bool, *, timeout: float) -> None:
        await _gate(self._hypervisor, "set_paused", timeout)
        guest = self._living(name)
        if paused and guest.pause is PauseReason.NONE:
            self._hypervisor.put(suspend(guest, PauseReason.USER), "Paused")
        if not paused and guest.pause is not PauseReason.NONE:
            faults = self._hypervisor.faults.of(name)
            self._hypervisor.put(resume(guest, _now(), faults), "Resumed")

    async def shutdown(self, name: str, *, timeout: float) -> None:
        await _gate(self._hypervisor, "shutdown", timeout)
        guest = self._living(name)
        self._hypervisor.put(press_power(guest, _now(), self._hypervisor.faults.of(name)), "ShutdownAsked")

    async def destroy(self, name: str, *, uid: str, timeout: float) -> None:
        await _gate(self._hypervisor, "destroy", timeout)
        guest = self._hypervisor.get(name)
        if guest is None or guest.life is not Life.ALIVE:
            return
        if guest.uid != uid:
            raise NotOurs(f"the domain '{name}' has the UUID {guest.uid}, not {uid}: it is left alone")
        if self._hypervisor.faults.of(name).refuses_destroy:
            await asyncio.sleep(timeout)
            raise ControllerUnavailable(f"'{name}' could not be destroyed within {timeout:g} s: it is busy")
        self._hypervisor.put(end(guest, ExitReason.DESTROYED), "Destroyed")

    def events(self) -> AsyncIterator[ControllerEvent]:
        return self._hypervisor.feed()

    def _living(self, name: str) -> Guest:
        guest = self._hypervisor.get(name)
        if guest is None or guest.life is not Life.ALIVE:
            raise NotFound(f"there is no domain '{name}'")
        return guest


class DummyGuest:
    """Addresses of the documentation ranges, once the guest has booted."""

    def __init__(self, hypervisor: DummyHypervisor) -> None:
        self._hypervisor = hypervisor

    async def info(self, name: str, *, timeout: float) -> GuestInfo:
        await _gate(self._hypervisor, "info", timeout)
        guest = self._hypervisor.get(name)
        if guest is None or guest.life is not Life.ALIVE:
            return GuestInfo()
        seen = guest.observed(_now())
        addresses = (address(guest),) if seen.agent_connected else ()
        vnc = f"127.0.0.1:{5900 + guest.number}"
        return GuestInfo(ip_addresses=addresses, agent_connected=seen.agent_connected, vnc=vnc)


class DummyConsoleStream:
    """Prints what the guest printed, then echoes what is typed."""

    def __init__(self, console: DummyConsole, name: str, printed: bytes) -> None:
        self._console = console
        self._name = name
        self._bytes: asyncio.Queue[bytes] = asyncio.Queue()
        self._open = True
        if printed:
            self._bytes.put_nowait(printed)

    async def read(self) -> bytes:
        if not self._open and self._bytes.empty():
            return b""
        return await self._bytes.get()

    async def write(self, data: bytes) -> None:
        self._console.typed(self._name, data)
        self._bytes.put_nowait(data)

    async def close(self) -> None:
        self._open = False
        self._console.closed(self._name)
        self._bytes.put_nowait(b"")


class DummyConsole:
    """One reader at a time, as libvirt has it."""

    def __init__(self, hypervisor: DummyHypervisor) -> None:
        self._hypervisor = hypervisor
        self._connected: set[str] = set()
        self._typed: dict[str, bytes] = {}

    async def open(self, name: str, *, timeout: float) -> ConsoleStream:
        await _gate(self._hypervisor, "console", timeout)
        guest = self._hypervisor.get(name)
        if guest is None or guest.life is not Life.ALIVE:
            raise NotFound(f"there is no domain '{name}'")
        if name in self._connected:
            raise AlreadyExists(f"somebody is connected to the console of '{name}'", cure="close that first")
        self._connected.add(name)
        return DummyConsoleStream(self, name, console_text(guest, _now()).encode())

    async def tail(self, name: str, limit: int, *, timeout: float) -> bytes:
        await _gate(self._hypervisor, "console", timeout)
        guest = self._hypervisor.get(name)
        printed = console_text(guest, _now()).encode() if guest else b""
        return (printed + self._typed.get(name, b""))[-limit:] if limit > 0 else b""

    def typed(self, name: str, data: bytes) -> None:
        """Remember the echo, for `tail`."""
        self._typed[name] = (self._typed.get(name, b"") + data)[-65536:]

    def closed(self, name: str) -> None:
        """Its reader has gone."""
        self._connected.discard(name)


class DummyHost:
    """A node of the size that the options say."""

    def __init__(self, hypervisor: DummyHypervisor, options: DummyOptions) -> None:
        self._hypervisor = hypervisor
        self._options = options

    async def facts(self, *, timeout: float) -> HostFacts:
        await _gate(self._hypervisor, "facts", timeout)
        return HostFacts(
            cpus=self._options.cpus,
            memory=self._options.memory,
            hypervisor="dummy 1.0",
            architecture="x86_64",
            virtualization="dummy",
        )


class DummyController:
    """A whole controller. Two of them on one hypervisor are a daemon before and after its restart."""

    name: str = "dummy"

    def __init__(
        self, *, hypervisor: DummyHypervisor | None = None, options: DummyOptions | None = None
    ) -> None:
        options = options or DummyOptions()
        self.hypervisor = hypervisor or DummyHypervisor(faults=_faults(options))
        self.lifecycle: ResourceController = DummyLifecycle(self.hypervisor)
        self.guest: GuestPort | None = DummyGuest(self.hypervisor)
        self.console: Console | None = DummyConsole(self.hypervisor)
        self.host: Host | None = DummyHost(self.hypervisor, options)

    async def open(self) -> None:
        try:
            self.hypervisor.start()
        except ControllerUnavailable:
            return  # every call tries again, and says why

    async def close(self) -> None:
        self.hypervisor.stop()


def create(context: ControllerContext) -> Controller:
    """The entry point `dummy`. Raises InvalidInput for options that it does not know."""
    options = parse_options(context.options)
    kept = DirectoryShelf(context.state_dir / "dummy", boot_id=boot_id())
    shelf = kept if options.persistent else MemoryShelf()
    return DummyController(hypervisor=DummyHypervisor(shelf=shelf, faults=_faults(options)), options=options)


def parse_options(options: Mapping[str, object]) -> DummyOptions:
    """The section `controllers.dummy`. Raises InvalidInput that names what is wrong in it."""
    _known("controllers.dummy", options, DummyOptions)
    faults = options.get("faults") or {}
    for name, section in sorted(faults.items()) if isinstance(faults, Mapping) else ():
        if isinstance(section, Mapping):
            _known(f"controllers.dummy.faults.{name}", section, GuestFaults)
    return decode(DummyOptions, options, "controllers.dummy")


def _known(where: str, section: Mapping[str, object], cls: type[DummyOptions | GuestFaults]) -> None:
    allowed = [camel(field.name) for field in fields(cls)]
    for key in section:
        if key not in allowed:
            close = difflib.get_close_matches(str(key), allowed, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"known are {', '.join(allowed)}"
            raise InvalidInput(f"{where}.{key}: unknown option; {hint}")


def _faults(options: DummyOptions) -> Faults:
    return Faults(guests=options.faults, unavailable=options.unavailable, hang=options.hang)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _check_xml(request: StartRequest) -> None:
    if request.spec.domain_xml is None:
        return
    try:
        ElementTree.fromstring(request.spec.domain_xml)
    except ElementTree.ParseError as error:
        message = f"'{request.name}': spec.domainXML is not well-formed: {error}"
        raise StartFailed(message, reason="InvalidDomainXML") from error


async def _gate(hypervisor: DummyHypervisor, call: str, timeout: float) -> None:
    """What every call passes first: an outage, when one was asked for."""
    hypervisor.start()
    faults = hypervisor.faults
    if call in faults.hang or ALL in faults.hang:
        await asyncio.sleep(timeout)
        raise ControllerUnavailable(f"the dummy hypervisor did not answer within {timeout:g} s")
    if call in faults.unavailable or ALL in faults.unavailable:
        raise ControllerUnavailable("the dummy hypervisor is unavailable, as it was told")
