"""The beginning of a daemon's run."""

from __future__ import annotations

import pytest

from reconciler.loops.cache import StoreCache
from reconciler.loops.session import Begun, Entry, HostIdentity, begin
from reconciler.loops.writer import Writer, conflicts
from reconciler.resources import keys
from reconciler.resources.errors import InvalidInput
from reconciler.resources.membership import Member
from reconciler.resources.records import SchemaRecord, Session, dump, load
from reconciler.resources.transactions import Put, Txn
from reconciler.sim.clock import SeededIds, VirtualClock
from reconciler.sim.store import MemoryStore

HOST = HostIdentity(node="r1", boot_id="b1", machine_id="m1")


async def started(store: MemoryStore, ids: SeededIds) -> Begun:
    return await begin(store, Entry(host=HOST), VirtualClock(), ids)


async def test_the_first_start_makes_the_cluster_and_later_ones_keep_it() -> None:
    store, ids = MemoryStore(), SeededIds()
    first = await started(store, ids)
    second = await started(store, ids)
    assert first.cluster == second.cluster
    assert (first.session, second.session) == (1, 2)
    record = load(Session, (await store.get([keys.session("r1")]))[keys.session("r1")].value)
    assert record.boot_id == "b1"


async def test_a_session_is_later_than_any_that_the_node_remembers() -> None:
    store = MemoryStore()
    begun = await begin(store, Entry(host=HOST), VirtualClock(), SeededIds(), after=7)
    assert begun.session == 8
    assert (await started(store, SeededIds())).session == 9


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


async def test_a_node_registers_itself_as_a_member_and_what_it_can_read() -> None:
    store = MemoryStore()
    member = Member(address="10.0.0.1", rank=2, version="0.2.0", schemas=(1, 2))
    await begin(store, Entry(host=HOST, member=member), VirtualClock(), SeededIds())
    found = await store.get([keys.member("r1"), keys.SCHEMA])
    assert load(Member, found[keys.member("r1")].value) == member
    assert load(SchemaRecord, found[keys.SCHEMA].value).version == 2


async def test_daemons_of_adjacent_releases_share_a_store_and_others_are_refused() -> None:
    store, ids = MemoryStore(), SeededIds()

    async def enter(name: str, oldest: int, newest: int) -> Begun:
        member = Member(address=name, schemas=(oldest, newest))
        host = HostIdentity(node=name, boot_id="b", machine_id="m")
        entry = Entry(host=host, member=member, alone=False)
        return await begin(store, entry, VirtualClock(), ids)

    await enter("r1", 1, 2)
    await enter("r2", 2, 3)
    with pytest.raises(InvalidInput, match="knows version 1: it is too old"):
        await enter("r3", 1, 1)
    with pytest.raises(InvalidInput, match="knows versions 3 to 4: it is too new"):
        await enter("r4", 3, 4)
    found = await store.list(keys.MEMBERS)
    assert [item.key for item in found.items] == [keys.member("r1"), keys.member("r2")]


async def test_a_node_without_a_mesh_does_not_enter_a_cluster_of_others() -> None:
    store, ids = MemoryStore(), SeededIds()
    await started(store, ids)
    renamed = HostIdentity(node="new-name", boot_id="b", machine_id="m1")
    with pytest.raises(InvalidInput, match="belongs to r1") as caught:
        await begin(store, Entry(host=renamed), VirtualClock(), ids)
    assert "node: r1" in caught.value.cure
    await begin(store, Entry(host=renamed, alone=False), VirtualClock(), ids)
    with pytest.raises(InvalidInput, match="configured without a mesh"):
        await started(store, ids)
