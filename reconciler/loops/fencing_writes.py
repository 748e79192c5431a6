"""The transactions of a fencing. Each compares the epoch, and the record or the keys that it was decided on.

Invariant (SAFETY rule 4): the intent bumps the node's session in the same transaction, and a claim is emptied
together with the record that says why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from reconciler.loops.views import Views
from reconciler.loops.writer import Writer, conflicts
from reconciler.planning.failover import begun, cleared, room_for_one
from reconciler.planning.fencing_record import Stamp, emptied, released
from reconciler.planning.migration import hosts_of, share_of, without
from reconciler.resources import keys
from reconciler.resources.errors import ConflictError
from reconciler.resources.failover import FailoverRecord
from reconciler.resources.fencing import FenceRecord
from reconciler.resources.migrations import MigrationSide
from reconciler.resources.records import Binding, Claim, DiskClaim, Epoch, Session, dump, load


class FencingWrites:
    """Every method raises ConflictError when something else came first, and StoreError."""

    def __init__(self, views: Views, writer: Writer, epoch: Epoch) -> None:
        self._views = views
        self._writer = writer
        self._epoch = epoch

    async def intend(self, record: FenceRecord, session: Session) -> None:
        """The fencing begins; what an earlier incident left of words and returns is void."""
        node, cache = record.node, self._views.cache
        old = (keys.returned(node), keys.confirm(node))
        number, oldest = room_for_one(self._history())
        await self._commit(
            compares={
                keys.fence(node): 0,
                keys.session(node): cache.revision_of(keys.session(node)),
                keys.POWER_INTENT: 0,
            },
            puts={
                keys.fence(node): dump(record),
                keys.session(node): dump(session),
                keys.failover(record.incident): dump(begun(record, number)),
            },
            deletes=[key for key in (*old, *map(keys.failover, oldest)) if self._views.exists(key)],
        )

    async def save(self, record: FenceRecord) -> None:
        """The record after a step, in the place of the one that the step was decided on."""
        await self._commit(compares=self._same(record.node), puts={keys.fence(record.node): dump(record)})

    async def release(self, record: FenceRecord, vms: Sequence[str], stamp: Stamp) -> tuple[str, ...]:
        """Empty these claims, end these bindings, and record both; which VMs were taken from the node. A
        claim whose live migration has another host left names that one still, and its binding stays."""
        compares, puts, deletes = self._same(record.node), {}, []
        taken = []
        for vm in vms:
            claim_key, binding_key = keys.claim(vm), keys.binding(vm)
            claim, binding = self._views.claim(vm), self._views.record(binding_key, Binding)
            for key in (claim_key, binding_key):
                compares[key] = self._views.cache.revision_of(key)
            if claim is None or claim.node == record.node or record.node not in hosts_of(claim):
                taken.append(vm)
            if claim is not None and record.node in hosts_of(claim):
                left = without(claim, record.node)
                if claim.migration is not None and hosts_of(left):
                    puts[claim_key] = dump(left)
                    compares[keys.session(left.node)] = self._views.cache.revision_of(keys.session(left.node))
                    continue
                puts[claim_key] = dump(emptied(self._with_both(claim)))
                deletes += self._held(vm, claim)
            if binding is not None and binding.node == record.node:
                deletes.append(binding_key)
        for item in self._views.cache.prefix(keys.DISKS):
            holder = self._views.record(item.key, DiskClaim)
            if holder is not None and holder.node == record.node and holder.operation:
                compares[item.key] = item.revision
                deletes.append(item.key)
        puts[keys.fence(record.node)] = dump(released(record, taken, stamp))
        await self._commit(compares=compares, puts=puts, deletes=deletes)
        return tuple(taken)

    def _with_both(self, claim: Claim) -> Claim:
        """The claim with what either host of its migration may have had open."""
        moving = claim.migration
        if moving is None:
            return claim
        said = self._views.record(keys.migrating(moving.id, moving.target), MigrationSide)
        there = share_of(claim, moving.target, said).clients
        return replace(claim, clients=tuple(sorted({*claim.clients, *there})))

    async def clear(self, record: FenceRecord, stamp: Stamp) -> None:
        """The return is settled, in the very session that showed it; the timeline stays."""
        node, cache = record.node, self._views.cache
        history = keys.failover(record.incident)
        told = (keys.session(node), keys.returned(node), history)
        gone = (keys.fence(node), keys.returned(node), keys.confirm(node))
        timeline = self._views.record(history, FailoverRecord)
        await self._commit(
            compares={**self._same(node), **{key: cache.revision_of(key) for key in told}},
            puts={history: dump(cleared(timeline, record, stamp))} if timeline is not None else {},
            deletes=[key for key in gone if self._views.exists(key)],
        )

    async def still(self, record: FenceRecord) -> None:
        """Whether this mastership and this intent stand, in the store and not in a copy (rule 12)."""
        epoch, fence = keys.EPOCH, keys.fence(record.node)
        found = await self._views.cache.read([epoch, fence])
        if epoch not in found or load(Epoch, found[epoch].value) != self._epoch:
            raise ConflictError(f"epoch {self._epoch.epoch} is over")
        if fence not in found or load(FenceRecord, found[fence].value).id != record.id:
            raise ConflictError(f"the fencing {record.incident} is over")

    def _history(self) -> dict[str, FailoverRecord | None]:
        """Every timeline that is kept, by incident."""
        items = self._views.cache.prefix(keys.FAILOVERS)
        return {
            item.key.removeprefix(keys.FAILOVERS): self._views.record(item.key, FailoverRecord)
            for item in items
        }

    def _held(self, vm: str, claim: Claim) -> list[str]:
        """The images' keys that are this VM's."""
        found = []
        for identity in claim.disks:
            holder = self._views.record(keys.disk(identity), DiskClaim)
            if holder is not None and (holder.vm, holder.node) == (vm, claim.node):
                found.append(keys.disk(identity))
        return found

    def _same(self, node: str) -> dict[str, int]:
        return {keys.fence(node): self._views.cache.revision_of(keys.fence(node))}

    async def _commit(
        self,
        *,
        compares: Mapping[str, int],
        puts: Mapping[str, bytes] | None = None,
        deletes: Sequence[str] = (),
    ) -> None:
        result = await self._writer.commit(
            compares=compares, puts=puts, deletes=deletes, guards=(keys.SCHEMA, keys.EPOCH)
        )
        if lost := conflicts(result):
            raise ConflictError(f"decided on an old state: {', '.join(lost)}")
