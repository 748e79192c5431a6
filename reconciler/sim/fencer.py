"""Twins of the fencers: the blocklist of a Ceph cluster, and the power switch of hosts.

Invariant, as in Ceph (SAFETY rule 11): adding an entry that exists extends nothing; an expired one is gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from reconciler.ports.fencer import Guard
from reconciler.resources.errors import FenceFailed
from reconciler.resources.fencing import (
    Blocklisted,
    FenceMethod,
    FenceOrder,
    PoweredOff,
    Proof,
    canonical,
    client_host,
    host_entry,
)

YEARS = 10 * 365 * 86400.0
ENOUGH = 365 * 86400.0


@dataclass(slots=True)
class SimBlocklist:
    """A Ceph cluster's list. `now`: its clock in seconds; `entries`: until when each lasts; `log`: commands
    as they took effect. `failures`: so many commands fail first; `hang`: none is answered."""

    fsid: str
    now: Callable[[], float] = lambda: 0.0
    entries: dict[str, float] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    failures: int = 0
    hang: bool = False

    def add(self, entry: str, seconds: float) -> None:
        """As `osd blocklist add`: an entry that is there stays as it is."""
        self.log.append(f"add {entry}")
        if self.until(entry) is None:
            self.entries[entry] = self.now() + seconds

    def remove(self, entry: str) -> None:
        """As `osd blocklist rm`."""
        self.log.append(f"rm {entry}")
        self.entries.pop(entry, None)

    def until(self, entry: str) -> float | None:
        """When it expires; None when it is not there, or did."""
        found = self.entries.get(entry)
        return found if found is not None and found > self.now() else None

    def bars(self, client: str) -> bool:
        """Whether this client's operations are refused now."""
        if not self.entries:
            return False
        entries = (canonical(client), host_entry(client_host(client)))
        return any(self.until(entry) is not None for entry in entries)


class SimCephFencer:
    """The twin of the blocklist fencer."""

    method = FenceMethod.CEPH_BLOCKLIST

    def __init__(self, blocklist: SimBlocklist, id: str = "ceph-blocklist") -> None:
        self.id: str = id
        self.fsid: str = blocklist.fsid
        self.blocklist = blocklist

    def unready(self, order: FenceOrder) -> str:
        """See Fencer."""
        return ""

    async def fence(self, order: FenceOrder, guard: Guard, *, timeout: float) -> Proof:
        """See Fencer."""
        wanted = _entries(order)
        await guard()
        await self._answer(timeout)
        for entry in wanted:
            self.blocklist.add(entry, YEARS)
        for entry in wanted:
            if not self._lasts(entry):
                await guard()
                self.blocklist.remove(entry)
                self.blocklist.add(entry, YEARS)
        return Blocklisted(fsid=self.fsid, entries=wanted)

    async def settle(self, order: FenceOrder, proof: Proof, *, timeout: float) -> None:
        """See Fencer."""
        await self._answer(timeout)
        gone = [entry for entry in _entries(order) if not self._lasts(entry)]
        if gone:
            raise FenceFailed(f"{', '.join(gone)} is not in the blocklist any more")

    async def break_locks(self, order: FenceOrder, guard: Guard, *, timeout: float) -> tuple[str, ...]:
        """See Fencer."""
        await guard()
        await self._answer(timeout)
        return ()

    async def lift(self, order: FenceOrder, guard: Guard, *, clients: bool, timeout: float) -> None:
        """See Fencer."""
        await guard()
        await self._answer(timeout)
        if not clients:
            for client in order.clients:
                self.blocklist.add(canonical(client), YEARS)
        for address in order.addresses:
            self.blocklist.remove(host_entry(address))
        for client in order.clients if clients else ():
            self.blocklist.remove(canonical(client))

    async def close(self) -> None:
        """See Fencer."""

    def _lasts(self, entry: str) -> bool:
        until = self.blocklist.until(entry)
        return until is not None and until - self.blocklist.now() >= ENOUGH

    async def _answer(self, timeout: float) -> None:
        """What the monitors take, or that they do not answer."""
        if self.blocklist.hang:
            await asyncio.sleep(timeout)
            raise FenceFailed(f"the monitors did not answer within {timeout:g} s")
        await asyncio.sleep(0.01)
        if self.blocklist.failures > 0:
            self.blocklist.failures -= 1
            raise FenceFailed("the monitors refused the command")


class SimPowerFencer:
    """The twin of a fence agent: `switch` takes the power from a host; `hang`: the BMC is dead."""

    method = FenceMethod.AGENT
    fsid = ""

    def __init__(self, switch: Callable[[str], None], id: str = "agent") -> None:
        self.id: str = id
        self.hang = False
        self._switch = switch

    def unready(self, order: FenceOrder) -> str:
        """See Fencer."""
        return ""

    async def fence(self, order: FenceOrder, guard: Guard, *, timeout: float) -> Proof:
        """See Fencer."""
        await guard()
        if self.hang:
            await asyncio.sleep(timeout)
            raise FenceFailed(f"the power switch of {order.node} did not answer within {timeout:g} s")
        await asyncio.sleep(0.05)
        self._switch(order.node)
        return PoweredOff(agent="sim")

    async def settle(self, order: FenceOrder, proof: Proof, *, timeout: float) -> None:
        """See Fencer."""

    async def break_locks(self, order: FenceOrder, guard: Guard, *, timeout: float) -> tuple[str, ...]:
        """See Fencer."""
        return ()

    async def lift(self, order: FenceOrder, guard: Guard, *, clients: bool, timeout: float) -> None:
        """See Fencer."""

    async def close(self) -> None:
        """See Fencer."""


def _entries(order: FenceOrder) -> tuple[str, ...]:
    hosts = (host_entry(address) for address in order.addresses)
    return tuple(sorted({*hosts, *map(canonical, order.clients)}))
