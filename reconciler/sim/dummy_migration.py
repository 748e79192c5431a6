"""The dummy's side of live migrations: `Migrator` on a `DummyHypervisor` that is on a `GuestWire`.

Invariant: like libvirt's, a hand-over goes on when the daemon that asked for it ends.
"""

from __future__ import annotations

import asyncio
import json

from reconciler.ports.migrator import Guest as Who
from reconciler.ports.migrator import HandOver
from reconciler.resources.domains import Gone, PauseReason
from reconciler.resources.errors import ControllerUnavailable, MigrationFailed, MigrationRefused, NotFound
from reconciler.resources.migrations import Look, Progress
from reconciler.sim.dummy_guests import Arrival, Life
from reconciler.sim.dummy_hypervisor import DummyHypervisor
from reconciler.sim.dummy_lifecycle import DummyLifecycle
from reconciler.sim.guest_wire import GuestWire

POLL = 0.05


class DummyMigrator(DummyLifecycle):
    """`ResourceController` and `Migrator`. `host`: its name on the wire."""

    def __init__(self, hypervisor: DummyHypervisor, wire: GuestWire, host: str) -> None:
        super().__init__(hypervisor)
        self._wire = wire
        self._host = host

    async def offer(self, guest: Who, *, timeout: float) -> str:
        """See Migrator."""
        await self._hypervisor.gate("offer", timeout)
        found = self._living(guest.name)
        if found.uid != guest.uid:
            raise NotFound(f"the domain '{guest.name}' is another one")
        return json.dumps({"machine": found.machine, "memory": found.memory})

    async def let_in(self, guest: Who, offer: str, *, timeout: float) -> str:
        """See Migrator."""
        await self._hypervisor.gate("let_in", timeout)
        json.loads(offer)
        if why := self._wire.unfit.get(self._host):
            raise MigrationRefused(f"it cannot run on {self._host}: {why}")
        self._wire.let_in(self._host, guest.uid)
        return self._host

    async def shut(self, guest: Who, *, timeout: float) -> None:
        """See Migrator."""
        await self._hypervisor.gate("shut", timeout)
        self._wire.shut(self._host, guest.uid)

    async def hand_over(self, order: HandOver, *, timeout: float) -> None:
        """See Migrator."""
        await self._hypervisor.gate("hand_over", timeout)
        guest = self._living(order.guest.name)
        job = self._wire.begin(self._host, order.door, guest)
        try:
            async with asyncio.timeout(timeout):
                while not job.done:  # noqa: ASYNC110 - the wire is not of this daemon
                    await asyncio.sleep(POLL)
        except TimeoutError as error:
            self._wire.abort(self._host, guest.name)
            raise ControllerUnavailable(f"'{guest.name}' was not migrated within {timeout:g} s") from error
        if job.failure:
            raise MigrationFailed(f"'{guest.name}' could not be migrated to {order.door}: {job.failure}")

    async def job(self, guest: Who, *, timeout: float) -> Progress | None:
        """See Migrator."""
        await self._hypervisor.gate("job", timeout)
        found = self._wire.job(self._host, guest.name)
        return self._wire.progress(found) if found is not None else None

    async def hold(self, guest: Who, *, timeout: float) -> None:
        """See Migrator."""
        await self._hypervisor.gate("hold", timeout)
        self._wire.hold(self._host, guest.name)

    async def abort(self, guest: Who, *, timeout: float) -> None:
        """See Migrator."""
        await self._hypervisor.gate("abort", timeout)
        self._wire.abort(self._host, guest.name)

    async def look(self, guest: Who, *, timeout: float) -> Look:
        """See Migrator."""
        if isinstance(await self.observe(guest.name, uid=guest.uid, timeout=timeout), Gone):
            return Look.ABSENT
        found = self._hypervisor.get(guest.name)
        if found is None or found.life is not Life.ALIVE:
            raise ControllerUnavailable(f"the domain '{guest.name}' changes")
        if found.arrival is Arrival.INCOMING:
            return Look.INCOMING
        if found.arrival is Arrival.COMPLETE and found.pause is not PauseReason.NONE:
            return Look.READY
        return Look.PAUSED if found.pause is PauseReason.MIGRATION else Look.RUNNING
