"""Looking into the dummy controller's guests: addresses and a serial console that echoes.

Invariant: a console has one reader at a time, as libvirt has it.
"""

from __future__ import annotations

import asyncio

from reconciler.ports.controller import ConsoleStream
from reconciler.resources.domains import AgentPing, GuestInfo, PauseReason
from reconciler.resources.errors import AlreadyExists, ControllerUnavailable, NotFound
from reconciler.sim.dummy_guests import Life, address, console_text
from reconciler.sim.dummy_hypervisor import DummyHypervisor


class DummyGuest:
    """Addresses of the documentation ranges, once the guest has booted."""

    def __init__(self, hypervisor: DummyHypervisor) -> None:
        self._hypervisor = hypervisor
        self.clocks: list[str] = []
        """Whose clock was set, in order."""

    async def set_clock(self, name: str, *, timeout: float) -> None:
        await self._hypervisor.gate("set_clock", timeout)
        self.clocks.append(name)

    async def info(self, name: str, *, timeout: float) -> GuestInfo:
        await self._hypervisor.gate("info", timeout)
        guest = self._hypervisor.get(name)
        if guest is None or guest.life is not Life.ALIVE:
            return GuestInfo()
        seen = guest.observed(self._hypervisor.now())
        addresses = (address(guest),) if seen.agent_connected else ()
        vnc = f"127.0.0.1:{5900 + guest.number}"
        return GuestInfo(ip_addresses=addresses, agent_connected=seen.agent_connected, vnc=vnc)

    async def ping(self, name: str, *, timeout: float) -> AgentPing:
        """See GuestPinger."""
        await self._hypervisor.gate("ping", timeout)
        guest = self._hypervisor.get(name)
        if guest is None or guest.life is not Life.ALIVE:
            raise NotFound(f"there is no domain '{name}'")
        if not guest.agent or guest.pause is not PauseReason.NONE:
            raise ControllerUnavailable(f"'{name}' is paused, or has no channel for an agent")
        alive = bool(guest.observed(self._hypervisor.now()).agent_connected)
        hangs = self._hypervisor.faults.of(name).hangs_after
        if hangs is not None and guest.booted is not None:
            alive = alive and self._hypervisor.now() < guest.booted + hangs
        if not alive:
            await asyncio.sleep(timeout)
        return AgentPing(answered=alive, boot=guest.incarnation)


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
        await self._hypervisor.gate("console", timeout)
        guest = self._hypervisor.get(name)
        if guest is None or guest.life is not Life.ALIVE:
            raise NotFound(f"there is no domain '{name}'")
        if name in self._connected:
            raise AlreadyExists(f"somebody is connected to the console of '{name}'", cure="close that first")
        self._connected.add(name)
        return DummyConsoleStream(self, name, console_text(guest, self._hypervisor.now()).encode())

    async def tail(self, name: str, limit: int, *, timeout: float) -> bytes:
        await self._hypervisor.gate("console", timeout)
        guest = self._hypervisor.get(name)
        printed = console_text(guest, self._hypervisor.now()).encode() if guest else b""
        return (printed + self._typed.get(name, b""))[-limit:] if limit > 0 else b""

    def typed(self, name: str, data: bytes) -> None:
        """Remember the echo, for `tail`."""
        self._typed[name] = (self._typed.get(name, b"") + data)[-65536:]

    def closed(self, name: str) -> None:
        """Its reader has gone."""
        self._connected.discard(name)
