"""What a fencing takes from a node in one transaction: its VMs' claims, and its operations on images."""

from __future__ import annotations

import asyncio

from reconciler.loops.cache import StoreCache
from reconciler.loops.fencing_writes import FencingWrites
from reconciler.loops.views import Views
from reconciler.loops.writer import Writer
from reconciler.planning.fencing_record import Stamp
from reconciler.resources import keys
from reconciler.resources.fencing import FenceCause, FenceRecord
from reconciler.resources.records import DiskClaim, Epoch, SchemaRecord, dump
from reconciler.resources.transactions import Put, Txn
from reconciler.sim.clock import SeededIds
from reconciler.sim.store import MemoryStore

FENCE = FenceRecord(
    id="id-1",
    node="r2",
    incident="r2-1",
    cause=FenceCause.SILENT,
    reason="silent",
    epoch=1,
    session=2,
    boot_id="b",
    machine_id="m",
    began="2026-01-31T12:00:00Z",
)


def operation(node: str) -> bytes:
    return dump(DiskClaim(node=node, vm="web", uid="", operation=f"unlock-{node}"))


async def test_an_operation_of_a_fenced_node_lets_go_of_its_image_and_no_other_does() -> None:
    store, ids, epoch = MemoryStore(), SeededIds(), Epoch(epoch=1, holder="r1")
    cache = StoreCache(store)
    records = {
        keys.SCHEMA: dump(SchemaRecord(version=1)),
        keys.EPOCH: dump(epoch),
        keys.fence("r2"): dump(FENCE),
        keys.disk("f/vms//1"): operation("r2"),
        keys.disk("f/vms//2"): operation("r3"),
        keys.disk("f/vms//3"): dump(DiskClaim(node="r2", vm="db", uid="u")),
    }
    await store.txn(Txn(id="t", puts=tuple(Put(key=key, value=value) for key, value in records.items())))
    await cache.step(0.0)

    async def follow() -> None:
        while True:
            await cache.step(1.0)

    following = asyncio.create_task(follow())
    try:
        writes = FencingWrites(Views(cache), Writer(store, cache, ids), epoch)
        await writes.release(FENCE, (), Stamp(at="2026-01-31T12:00:05Z", epoch=1))
        left = [item.key for item in cache.prefix(keys.DISKS)]
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    assert left == [keys.disk("f/vms//2"), keys.disk("f/vms//3")]
