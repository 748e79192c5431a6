"""Who holds a VM's images, and shutting a holder out because a person says so: `vcl disk show` and `unlock`.

Invariants (SAFETY rules 6, 8, 10, 11): the image's key is taken under an operation's id, compared with this
daemon's session and with no fence against this node, before anybody is shut out; nobody but those whom the
person saw; a lock is broken only after its owner's exact entry was seen. An unlock that was interrupted may
be done again by anyone: it writes nothing, and late effects hit only clients that were to be shut out.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from dataclasses import dataclass, replace

from reconciler.loops.agent_state import NodeContext
from reconciler.loops.client_records import known_of
from reconciler.loops.vm_disks import NamedImage, images_of
from reconciler.loops.writer import conflicts
from reconciler.planning.unlocking import DiskHolder, identified, refusal
from reconciler.ports.disks import NetworkImages
from reconciler.resources import keys
from reconciler.resources.errors import (
    ConflictError,
    ImageInUse,
    ImageMissing,
    InvalidInput,
    NotFound,
    PoolUnavailable,
    StoreError,
)
from reconciler.resources.fencing import canonical
from reconciler.resources.images import Holder
from reconciler.resources.kinds import Kind
from reconciler.resources.records import DiskClaim, EventType, dump

log = logging.getLogger(__name__)

UNLOCK = "unlock-"
"""How the ids of these operations begin."""
SWEEP_SECONDS = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldDisk:
    """A disk of a VM and who holds it. `missing`: the image does not exist yet; `network`: its holders are
    clients of a storage; `problem`: why nothing is known."""

    name: str
    pool: str
    image: str
    identity: str = ""
    network: bool = False
    missing: bool = False
    problem: str = ""
    holders: tuple[DiskHolder, ...] = ()


class DiskLocks:
    """Of the VMs of the cluster, as far as this node reaches their pools."""

    def __init__(self, context: NodeContext) -> None:
        self._context = context
        self._running: set[str] = set()

    async def show(self, vm: str) -> tuple[HeldDisk, ...]:
        """All disks of a VM with who holds them now. Raises NotFound."""
        return tuple([await self._look(image) for image in await self._images(vm)])

    async def unlock(self, vm: str, disk: str, clients: Collection[str]) -> tuple[DiskHolder, ...]:
        """Shut `clients` out, who must be all that hold the image, and break their locks; who it was.

        Raises NotFound, InvalidInput (no image of a storage), ImageInUse (held by a VM, a daemon, or by
        others than those), ConflictError, DiskError, StoreError.
        """
        images = await self._images(vm)
        found = next((each for each in images if each.disk == disk), None)
        if found is None:
            names = ", ".join(each.disk for each in images) or "none"
            raise NotFound(f"virtualmachine '{vm}' has no disk '{disk}'", cure=f"it has: {names}")
        held = await self._look(found)
        network = self._require_network(held)
        key, operation = keys.disk(held.identity), UNLOCK + self._context.ids.uuid()
        _require_same(held, clients)
        self._running.add(operation)
        try:
            await self._take(key, vm, operation)
            try:
                return await self._shut_out(vm, held, network)
            finally:
                await self._release(key, operation)
        finally:
            self._running.discard(operation)

    async def run(self) -> None:
        """For ever: release what an unlock took and did not release, in an earlier run of this daemon too."""
        while True:
            for item in self._context.views.cache.prefix(keys.DISKS):
                holder = self._context.views.record(item.key, DiskClaim)
                if holder is not None and holder.node == self._context.node and self._left_over(holder):
                    await self._release(item.key, holder.operation or "")
            await asyncio.sleep(SWEEP_SECONDS)

    async def _images(self, vm: str) -> tuple[NamedImage, ...]:
        spec = self._context.views.vm(vm)
        if spec is None:
            raise NotFound(f"virtualmachine '{vm}' not found", cure="`vcl get vms` shows which there are")
        return await images_of(self._context, vm, spec)

    async def _look(self, image: NamedImage) -> HeldDisk:
        context = self._context
        found = HeldDisk(name=image.disk, pool=image.pool, image=image.image, problem=image.problem)
        if found.problem:
            return found
        backend, timeout = context.pools.all().get(image.pool), context.deadlines.disk
        if backend is None:
            return replace(found, problem=f"the pool '{image.pool}' is not on node {context.node}")
        found = replace(found, network=backend.network is not None)
        try:
            info = await backend.inspect(found.image, timeout=timeout)
            if info is None:
                return replace(found, missing=True)
            holders = await backend.holders(found.image, timeout=timeout)
        except PoolUnavailable as error:
            return replace(found, problem=f"{error.message}: {error.cure}" if error.cure else error.message)
        return replace(found, identity=info.identity, holders=self._identified(holders))

    def _identified(self, holders: Collection[Holder]) -> tuple[DiskHolder, ...]:
        known = known_of(self._context.views, strict=True)
        return tuple(identified(holder, known) for holder in holders)

    def _require_network(self, held: HeldDisk) -> NetworkImages:
        if held.problem:
            raise PoolUnavailable(held.problem)
        if held.missing:
            raise ImageMissing(f"the image '{held.image}' of disk '{held.name}' does not exist")
        backend = self._context.pools.all().get(held.pool)
        if backend is None or backend.network is None:
            raise InvalidInput(
                f"the disk '{held.name}' is a file: whoever has it open is a process of a host",
                cure="end that process; `vcl disk show` names it",
            )
        return backend.network

    async def _take(self, key: str, vm: str, operation: str) -> None:
        """The image's key; that of an unlock that was interrupted is taken over."""
        context, views = self._context, self._context.views
        there = views.record(key, DiskClaim)
        if there is not None and not self._left_over(there):
            raise _claimed(there)
        claim = DiskClaim(node=context.node, vm=vm, uid="", operation=operation)
        result = await context.writer.commit(
            compares={key: views.cache.revision_of(key), keys.fence(context.node): 0, keys.POWER_INTENT: 0},
            puts={key: dump(claim)},
            guards=(keys.SCHEMA, keys.session(context.node)),
        )
        lost = conflicts(result)
        if not lost:
            return
        now = views.record(key, DiskClaim)
        if key in lost and now is not None:
            raise _claimed(now)
        raise ConflictError(
            f"this node may not do it now ({', '.join(lost)} has changed)", cure="ask again, or another node"
        )

    async def _shut_out(self, vm: str, held: HeldDisk, network: NetworkImages) -> tuple[DiskHolder, ...]:
        """Under the key: nobody can start on the image now."""
        timeout = self._context.deadlines.disk
        holders = await network.holders_of(held.identity, timeout=timeout) or ()
        now = self._identified(holders)
        _require_same(replace(held, holders=now), [holder.client for holder in held.holders])
        await network.cut_off(holders, held.identity, timeout=timeout)
        left = await network.holders_of(held.identity, timeout=timeout) or ()
        if left := tuple(holder for holder in left if not holder.fenced or holder.lock):
            raise ImageInUse(f"it is held still, or again: {left[0].description}", cure="look again")
        told = ", ".join(holder.client for holder in now)
        message = f"a person had {told} shut out of {held.image} for years, and its locks broken"
        self._context.event(EventType.WARNING, Kind.VIRTUAL_MACHINE, vm, "DiskUnlocked", message)
        return now

    async def _release(self, key: str, operation: str) -> None:
        context = self._context
        there = context.views.record(key, DiskClaim)
        if there is None or there.operation != operation:
            return
        compares = {key: context.views.cache.revision_of(key)}
        guards = (keys.SCHEMA, keys.session(context.node))
        try:
            result = await context.writer.commit(compares=compares, deletes=(key,), guards=guards)
        except StoreError as error:
            log.warning("%s: %s is released later: %s", operation, key, error)
            return
        if conflicts(result):
            log.warning("%s: %s is released later: its record has changed", operation, key)

    def _left_over(self, holder: DiskClaim) -> bool:
        operation = holder.operation or ""
        return operation.startswith(UNLOCK) and operation not in self._running


def _require_same(held: HeldDisk, clients: Collection[str]) -> None:
    """Raises ImageInUse unless it is held by those clients, and all of them may be shut out."""
    for holder in held.holders:
        problem, cure = refusal(holder)
        if problem:
            raise ImageInUse(f"the image {held.image} is not unlocked: {problem}", cure=cure)
    now, asked = {holder.client for holder in held.holders}, {canonical(client) for client in clients}
    if now == asked:
        return
    told = ", ".join(sorted(now)) or "nobody"
    raise ImageInUse(
        f"the image {held.image} is held by {told} now, and not by those that were shown",
        cure="look with `vcl disk show`, and ask again",
    )


def _claimed(holder: DiskClaim) -> ImageInUse:
    if holder.operation:
        return ImageInUse(f"{holder.node} works on the image ({holder.operation})", cure="wait for its end")
    return ImageInUse(
        f"the image is claimed by VM {holder.vm} on node {holder.node}",
        cure=f"vcl stop {holder.vm}, then unlock it, then vcl start {holder.vm}",
    )
