"""The beginning of a daemon's run."""

from __future__ import annotations

import asyncio

import pytest

from reconciler.loops.cache import StoreCache
from reconciler.loops.session import Begun, HostIdentity, acquire_epoch, begin
from reconciler.loops.writer import Writer, conflicts
from reconciler.resources import keys
from reconciler.resources.errors import InvalidInput
from reconciler.resources.records import SchemaRecord, Session, dump, load
from reconciler.resources.transactions import Put, Txn
from reconciler.sim.clock import SeededIds, VirtualClock
from reconciler.sim.store import MemoryStore

HOST = HostIdentity(node="r1", boot_id="b1", machine_id="m1")


async def started(store: MemoryStore, ids: SeededIds) -> Begun:
    return await begin(store, HOST, VirtualClock(), ids, "test")


async def test_the_first_start_makes_the_cluster_and_later_ones_keep_it() -> None:
    store, ids = MemoryStore(), SeededIds()
    first = await started(store, ids)
    second = await started(store, ids)
    assert first.cluster == second.cluster
    assert (first.session, second.session) == (1, 2)
    record = load(Session, (await store.get([keys.session("r1")]))[keys.session("r1")].value)
    assert record.boot_id == "b1"


async def test_a_start_bumps_the_version_so_that_old_writes_cannot_match() -> None:
    store, ids = MemoryStore(), SeededIds()
    first = await started(store, ids)
    cache = StoreCache(store)
    await cache.step(0.0)
    old = Writer(store, cache, ids)
    old.guard(keys.session("r1"), first.session_revision)
    await started(store, ids)
    result = await old.commit(puts={"claim/web": b"{}"}, guards=(keys.session("r1"),), wait=False)
    assert conflicts(result) == (keys.session("r1"),)


async def test_a_store_of_another_schema_is_refused_and_left_as_it_is() -> None:
    store = MemoryStore()
    schema = Put(key=keys.SCHEMA, value=dump(SchemaRecord(version=99)))
    await store.txn(Txn(id="x", puts=(schema,)))
    with pytest.raises(InvalidInput, match="schema version 99"):
        await started(store, SeededIds())
    assert (await store.list("")).revision == 1


async def test_each_mastership_has_a_higher_epoch_and_ends_the_one_before() -> None:
    store, ids = MemoryStore(), SeededIds()
    await started(store, ids)
    cache = StoreCache(store)
    await cache.step(0.0)
    first, second = Writer(store, cache, ids), Writer(store, cache, ids)

    following = asyncio.create_task(_follow(cache))
    one = await acquire_epoch(store, first, "r1", ids)
    two = await acquire_epoch(store, second, "r1", ids)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    assert one is not None
    assert two is not None
    assert (one.epoch, two.epoch) == (1, 2)
    assert not first.holds(keys.EPOCH)
    late = await first.commit(puts={"binding/web": b"{}"}, guards=(keys.EPOCH,), wait=False)
    assert conflicts(late) == (keys.EPOCH,)


async def _follow(cache: StoreCache) -> None:
    while True:
        await cache.step(1.0)
