"""What a fencing takes from a node in one transaction: its VMs' claims, and its operations on images."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from reconciler.loops.cache import StoreCache
from reconciler.loops.fencing_writes import FencingWrites
from reconciler.loops.views import Views
from reconciler.loops.writer import Writer
from reconciler.planning.fencing_record import Stamp
from reconciler.planning.migration import without
from reconciler.resources import keys
from reconciler.resources.fencing import FenceCause, FenceRecord
from reconciler.resources.migrations import ClaimMigration, MigrationPhase, MigrationSide
from reconciler.resources.records import (
    Binding,
    Claim,
    ClaimPhase,
    DiskClaim,
    Epoch,
    SchemaRecord,
    Session,
    dump,
    load,
)
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


@contextlib.asynccontextmanager
async def released(
    records: dict[str, bytes], vms: tuple[str, ...]
) -> AsyncIterator[tuple[StoreCache, tuple[str, ...]]]:
    """The store after a fencing of r2 has taken these VMs, and what it took."""
    store, ids, epoch = MemoryStore(), SeededIds(), Epoch(epoch=1, holder="r1")
    cache = StoreCache(store)
    known = {
        keys.SCHEMA: dump(SchemaRecord(version=1)),
        keys.EPOCH: dump(epoch),
        keys.fence("r2"): dump(FENCE),
        **records,
    }
    await store.txn(Txn(id="t", puts=tuple(Put(key=key, value=value) for key, value in known.items())))
    await cache.step(0.0)

    async def follow() -> None:
        while True:
            await cache.step(1.0)

    following = asyncio.create_task(follow())
    try:
        writes = FencingWrites(Views(cache), Writer(store, cache, ids), epoch)
        yield cache, await writes.release(FENCE, vms, Stamp(at="2026-01-31T12:00:05Z", epoch=1))
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def test_an_operation_of_a_fenced_node_lets_go_of_its_image_and_no_other_does() -> None:
    records = {
        keys.disk("f/vms//1"): operation("r2"),
        keys.disk("f/vms//2"): operation("r3"),
        keys.disk("f/vms//3"): dump(DiskClaim(node="r2", vm="db", uid="u")),
    }
    async with released(records, ()) as (cache, _):
        left = [item.key for item in cache.prefix(keys.DISKS)]
    assert left == [keys.disk("f/vms//2"), keys.disk("f/vms//3")]


def on_its_way(source: str, target: str) -> dict[str, bytes]:
    """A VM that is being migrated live, and what the target has said."""
    claim = Claim(
        node=source,
        uid="u",
        phase=ClaimPhase.RUNNING,
        disks=("f/vms//1",),
        clients=("10.0.0.1:0/5",),
        migration=ClaimMigration(id="m", source=source, target=target),
    )
    side = MigrationSide(
        id="m",
        node=target,
        session=1,
        boot_id="b",
        phase=MigrationPhase.RUNNING,
        clients=("10.0.0.9:0/6",),
    )
    return {
        keys.claim("web"): dump(claim),
        keys.binding("web"): dump(Binding(node=source, uid="u", epoch=1, bound="")),
        keys.disk("f/vms//1"): dump(DiskClaim(node=source, vm="web", uid="u")),
        keys.session(source): dump(Session(session=1, boot_id="b", machine_id="m", started="")),
        keys.migrating("m", target): dump(side),
    }


@pytest.mark.parametrize(("source", "target"), [("r1", "r2"), ("r2", "r3")])
async def test_of_a_migrated_vm_the_claim_names_the_other_host_still(source: str, target: str) -> None:
    records = on_its_way(source, target)
    before = load(Claim, records[keys.claim("web")])
    async with released(records, ("web",)) as (cache, taken):
        claim = cache.get(keys.claim("web"))
        assert claim is not None
        assert load(Claim, claim.value) == without(before, "r2")
        assert cache.get(keys.disk("f/vms//1")) is not None
        assert cache.get(keys.binding("web")) is not None
    assert taken == (("web",) if source == "r2" else ())


@pytest.mark.parametrize(("source", "target"), [("r1", "r2"), ("r2", "r3")])
async def test_with_both_hosts_gone_the_claim_is_emptied_and_remembers_the_clients_of_both(
    source: str, target: str
) -> None:
    records = on_its_way(source, target)
    other = target if source == "r2" else source
    records[keys.claim("web")] = dump(without(load(Claim, records[keys.claim("web")]), other))
    async with released(records, ("web",)) as (cache, _):
        claim = cache.get(keys.claim("web"))
        assert claim is not None
        left = load(Claim, claim.value)
        assert (left.node, left.migration) == ("", None)
        assert left.former_clients == ("10.0.0.1:0/5", "10.0.0.9:0/6")
        assert cache.get(keys.disk("f/vms//1")) is None
