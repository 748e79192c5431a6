"""What `vcl init` writes into the store."""

from __future__ import annotations

import pytest

from reconciler.loops.founding import Founded, Seat, found, look
from reconciler.loops.session import Entry, HostIdentity, begin
from reconciler.planning.schema import KNOWN_SCHEMAS
from reconciler.resources import keys
from reconciler.resources.errors import InvalidInput
from reconciler.resources.membership import Member
from reconciler.resources.records import SchemaRecord, dump
from reconciler.resources.transactions import Put, Txn
from reconciler.sim.clock import SeededIds, VirtualClock
from reconciler.sim.store import MemoryStore

THREE = tuple(Seat(name=f"r{n}", address=f"10.0.0.{n}") for n in (1, 2, 3))


async def made(store: MemoryStore, *seats: Seat, name: str = "home", seed: int = 0) -> Founded:
    return await found(store, name, seats, VirtualClock(), SeededIds(seed))


async def test_the_order_on_the_command_line_is_the_rank() -> None:
    store = MemoryStore()
    founded = await made(store, *THREE)
    assert founded.added == ("r1", "r2", "r3")
    known = await look(store)
    assert {name: (member.address, member.rank) for name, member in known.members.items()} == {
        "r1": ("10.0.0.1", 0),
        "r2": ("10.0.0.2", 1),
        "r3": ("10.0.0.3", 2),
    }
    assert known.cluster == founded.cluster
    assert founded.cluster.name == "home"


async def test_the_second_time_nothing_is_written() -> None:
    store = MemoryStore()
    first = await made(store, *THREE)
    before = await store.list("")
    second = await made(store, *THREE, seed=1)
    assert second.cluster == first.cluster
    assert second.added == ()
    assert await store.list("") == before


async def test_a_node_that_is_added_later_ranks_behind_the_others() -> None:
    store = MemoryStore()
    await made(store, *THREE)
    founded = await made(store, Seat(name="r4", address="10.0.0.4"))
    assert founded.added == ("r4",)
    assert founded.members["r4"].rank == 3
    assert len((await look(store)).members) == 4


async def test_a_daemon_takes_its_seat_as_it_was_made() -> None:
    store = MemoryStore()
    founded = await made(store, *THREE)
    entry = Entry(
        host=HostIdentity(node="r2", boot_id="b", machine_id="m"),
        member=Member(address="10.0.0.2", rank=1, version="9", schemas=KNOWN_SCHEMAS),
        cluster="another name",
        alone=False,
    )
    begun = await begin(store, entry, VirtualClock(), SeededIds(7))
    assert begun.cluster == founded.cluster
    again = await made(store, *THREE, seed=3)
    assert again.added == ()
    assert again.members["r2"].version == "9"


async def test_another_clusters_store_is_refused() -> None:
    store = MemoryStore()
    await made(store, *THREE)
    with pytest.raises(InvalidInput, match="holds the cluster 'home', not 'away'; write --name home"):
        await made(store, *THREE, name="away")


async def test_a_member_is_not_moved() -> None:
    store = MemoryStore()
    await made(store, *THREE)
    with pytest.raises(
        InvalidInput, match=r"r2 is a member with the address 10\.0\.0\.2:7480, not 10\.0\.0\.9"
    ):
        await made(store, Seat(name="r2", address="10.0.0.9"))


async def test_a_store_of_another_age_is_refused() -> None:
    store = MemoryStore()
    await store.txn(Txn(id="x", puts=(Put(key=keys.SCHEMA, value=dump(SchemaRecord(version=99))),)))
    with pytest.raises(InvalidInput, match="schema version 99"):
        await made(store, *THREE)


async def test_two_that_found_at_once_make_one_cluster_and_no_rank_twice() -> None:
    import asyncio

    store = MemoryStore()
    one, other = await asyncio.gather(
        made(store, *THREE, seed=1),
        made(store, *reversed(THREE), Seat(name="r9", address="10.0.0.9"), seed=2),
    )
    assert one.cluster == other.cluster
    members = (await look(store)).members
    assert sorted(member.rank for member in members.values()) == [0, 1, 2, 3]
