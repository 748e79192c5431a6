"""A host's ways to the world's Ceph: its storage pool, its fencer, and its QEMUs as clients.

Invariant: nothing here answers a host whose way to Ceph is cut or stalled; it learns that by its deadline. A
blocklisted host's monitors answer, and its OSDs refuse it at once.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace

from reconciler.ports.controller import Adopter, Console, Guest, Host, LiveChanger, ResourceController
from reconciler.ports.fencer import Guard
from reconciler.resources.changes import AttachDisk, DetachDisk, LiveChange, Shape
from reconciler.resources.domains import (
    ControllerEvent,
    Definition,
    Gone,
    GuestKey,
    Observed,
    StartRequest,
    Stranger,
)
from reconciler.resources.errors import (
    ChangeWaits,
    ControllerUnavailable,
    FenceFailed,
    PoolUnavailable,
    StartFailed,
)
from reconciler.resources.fencing import FenceOrder, Proof, client_host
from reconciler.resources.images import RbdName
from reconciler.resources.infrastructure import PoolType, RbdPool, StoragePoolSpec
from reconciler.sim.controller import DummyController
from reconciler.sim.dummy_hypervisor import DummyHypervisor
from reconciler.sim.dummy_migration import DummyMigrator
from reconciler.sim.fencer import SimCephFencer
from reconciler.sim.rbd import SimRbd
from reconciler.sim.site_ceph import POOL, SiteCeph

POOL_NAME = "ceph"
POOL_SPEC = StoragePoolSpec(type=PoolType.RBD, rbd=RbdPool(pool=POOL))


class SiteRbd(SimRbd):
    """The pool as one host sees it."""

    def __init__(self, site: SiteCeph, host: str) -> None:
        super().__init__(site.images, POOL)
        self._site = site
        self._host = host

    async def _answers(self, timeout: float) -> None:
        if not self._site.reaches(self._host):
            await asyncio.sleep(timeout)
            raise PoolUnavailable(f"the Ceph pool {self.pool} did not answer within {timeout:g} s")
        if self._site.bars(self._host):
            raise PoolUnavailable(f"the Ceph pool {self.pool} refuses this host: it is blocklisted")
        await super()._answers(timeout)


class SiteFencer(SimCephFencer):
    """The blocklist's fencer on one host: it also closes what it sees at the images (SAFETY 10)."""

    def __init__(self, site: SiteCeph, host: str) -> None:
        super().__init__(site.blocklist)
        self._site = site
        self._host = host

    async def fence(self, order: FenceOrder, guard: Guard, *, timeout: float) -> Proof:
        """See Fencer."""
        return await super().fence(self._with_observed(order), guard, timeout=timeout)

    async def settle(self, order: FenceOrder, proof: Proof, *, timeout: float) -> None:
        """See Fencer."""
        await super().settle(self._with_observed(order), proof, timeout=timeout)

    async def break_locks(self, order: FenceOrder, guard: Guard, *, timeout: float) -> tuple[str, ...]:
        """See Fencer."""
        await super().break_locks(order, guard, timeout=timeout)
        broken = []
        for image in self._site.images.every():
            if image.lock and client_host(image.lock) in order.addresses and self.blocklist.bars(image.lock):
                broken.append(f"{image.id}: {image.lock}")
                image.lock = None
        return tuple(sorted(broken))

    def _with_observed(self, order: FenceOrder) -> FenceOrder:
        seen = {
            client
            for image in self._site.images.every()
            for client in (*image.watchers, *([image.lock] if image.lock else []))
            if client_host(client) in order.addresses
        }
        return replace(order, clients=tuple(sorted({*order.clients, *seen})))

    async def _answer(self, timeout: float) -> None:
        if not self._site.reaches(self._host):
            await asyncio.sleep(timeout)
            raise FenceFailed(f"the monitors did not answer within {timeout:g} s")
        await super()._answer(timeout)


class _Lifecycle:
    def __init__(self, inner: ResourceController, site: SiteCeph, host: str) -> None:
        self._inner = inner
        self._site = site
        self._host = host

    async def render(self, request: StartRequest, *, timeout: float) -> Definition:
        return await self._inner.render(request, timeout=timeout)

    async def inventory(self, *, timeout: float) -> tuple[Observed, ...]:
        return await self._inner.inventory(timeout=timeout)

    async def observe(self, name: str, *, uid: str = "", timeout: float) -> Observed | Gone:
        seen = await self._inner.observe(name, uid=uid, timeout=timeout)
        if isinstance(seen, Gone):
            self._site.look(self._host)
        return seen

    async def create(self, definition: Definition, *, timeout: float) -> Observed:
        names = tuple(name for path in definition.writable if (name := RbdName.parse(path)) is not None)
        if names and not self._site.reaches(self._host):
            await asyncio.sleep(timeout)
            raise ControllerUnavailable(f"the QEMU of {definition.name} could not open its images")
        if names and self._site.bars(self._host):
            raise StartFailed(f"the QEMU of {definition.name} may not open its images: blocklisted")
        seen = await self._inner.create(definition, timeout=timeout)
        if names:
            self._site.started(self._host, definition.name, seen.incarnation, names)
        return seen

    async def shape(self, name: str, *, timeout: float) -> Shape:
        return await self._changer().shape(name, timeout=timeout)

    async def change(self, definition: Definition, change: LiveChange, *, timeout: float) -> None:
        """As QEMU: it waits for the storage when it opens or closes an image."""
        name, before = definition.name, await self._changer().shape(definition.name, timeout=timeout)
        comes = isinstance(change, AttachDisk) and change.disk not in before.disks
        image = _image(definition, change, before)
        if image is not None and not self._site.reaches(self._host):
            await asyncio.sleep(timeout)
            raise ControllerUnavailable(f"the QEMU of {name} waits for its storage")
        if image is not None and comes and self._site.bars(self._host):
            raise ChangeWaits(f"the QEMU of {name} may not open the image: blocklisted")
        await self._changer().change(definition, change, timeout=timeout)
        seen = await self._inner.observe(name, timeout=timeout)
        if image is None or isinstance(seen, Gone):
            return
        if comes:
            self._site.started(self._host, name, seen.incarnation, (image,))
        else:
            self._site.let_go(seen.incarnation, image)

    def _changer(self) -> LiveChanger:
        assert isinstance(self._inner, LiveChanger)
        return self._inner

    async def stranger(self, name: str, *, timeout: float) -> Stranger | None:
        return await self._adopter().stranger(name, timeout=timeout)

    async def take_over(self, definition: Definition, *, timeout: float) -> None:
        await self._adopter().take_over(definition, timeout=timeout)

    async def give_back(self, name: str, *, uid: str, timeout: float) -> None:
        await self._adopter().give_back(name, uid=uid, timeout=timeout)

    def _adopter(self) -> Adopter:
        assert isinstance(self._inner, Adopter)
        return self._inner

    async def set_paused(self, name: str, paused: bool, *, timeout: float) -> None:
        await self._inner.set_paused(name, paused, timeout=timeout)

    async def shutdown(self, name: str, *, timeout: float) -> None:
        await self._inner.shutdown(name, timeout=timeout)

    async def destroy(self, name: str, *, uid: str, timeout: float) -> None:
        await self._inner.destroy(name, uid=uid, timeout=timeout)
        self._site.look(self._host)

    def events(self) -> AsyncIterator[ControllerEvent]:
        return self._inner.events()


def _image(definition: Definition, change: LiveChange, before: Shape) -> RbdName | None:
    """What a QEMU opens or closes for it, if anything."""
    if isinstance(change, AttachDisk) and change.disk not in before.disks:
        return RbdName.parse(json.loads(definition.document)["disks"][change.disk])
    if isinstance(change, DetachDisk) and change.disk in before.disks:
        return RbdName.parse(before.disks[change.disk])
    return None


class _Mover(_Lifecycle):
    """With `Migrator`: images are opened and closed by the wire."""

    def __init__(self, inner: DummyMigrator, site: SiteCeph, host: str) -> None:
        super().__init__(inner, site, host)
        self.offer = inner.offer
        self.let_in = inner.let_in
        self.shut = inner.shut
        self.hand_over = inner.hand_over
        self.job = inner.job
        self.abort = inner.abort
        self.hold = inner.hold
        self.look = inner.look


class SiteGuests:
    """A Controller whose guests are clients of the world's Ceph."""

    def __init__(self, inner: DummyController, site: SiteCeph, host: str) -> None:
        self._dummy, self._site, self._host = inner, site, host
        self.name = inner.name
        self.lifecycle: ResourceController = (
            _Mover(inner.lifecycle, site, host)
            if isinstance(inner.lifecycle, DummyMigrator)
            else _Lifecycle(inner.lifecycle, site, host)
        )
        self.guest: Guest | None = inner.guest
        self.console: Console | None = inner.console
        self.host: Host | None = inner.host
        self._inner = inner

    def by_hand(self, name: str, uid: str, image: RbdName) -> None:
        """Somebody starts a domain on this host that vcl knows nothing of."""
        hypervisor = self._dummy.hypervisor
        hypervisor.foreign(name, uid, writable=(image.path,))
        guest = hypervisor.get(name)
        assert guest is not None
        self._site.started(self._host, name, guest.incarnation, (image,))

    @property
    def hypervisor(self) -> DummyHypervisor:
        """The one behind it, for tests."""
        return self._dummy.hypervisor

    async def keep_key(self, key: GuestKey, *, timeout: float) -> None:
        """See KeyKeeper: nothing here asks for it."""

    async def open(self) -> None:
        await self._inner.open()

    async def close(self) -> None:
        await self._inner.close()
