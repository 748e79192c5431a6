"""A node is taken out of the cluster only when nothing of it can still be at work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from reconciler.loops.cache import StoreCache
from reconciler.loops.members import Members
from reconciler.loops.views import Views
from reconciler.loops.writer import Writer
from reconciler.planning.liveness import Standing
from reconciler.resources import keys
from reconciler.resources.errors import ConflictError, NotFound
from reconciler.resources.kinds import Kind
from reconciler.resources.membership import Member
from reconciler.resources.records import Binding, Claim, SchemaRecord, Session, dump
from reconciler.resources.transactions import Put, Txn
from reconciler.sim.clock import SeededIds
from reconciler.sim.store import MemoryStore


class World:
    def __init__(self) -> None:
        self.store = MemoryStore()
        self.ids = SeededIds()
        self.standings = {"r1": Standing.READY, "r2": Standing.SILENT}
        self.cache = StoreCache(self.store)
        self.members = Members(
            Views(self.cache), Writer(self.store, self.cache, self.ids), self.standings.get
        )

    async def put(self, key: str, value: object) -> None:
        result = await self.store.txn(Txn(id=self.ids.uuid(), puts=(Put(key=key, value=dump(value)),)))
        await self.cache.wait_for(result.revision)  # type: ignore[union-attr]

    async def follow(self) -> None:
        while True:
            await self.cache.step(1.0)

    def stored(self) -> set[str]:
        return {item.key for item in self.cache.prefix("")}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    following = asyncio.create_task(made.follow())
    await made.put(keys.SCHEMA, SchemaRecord(version=1))
    for name in ("r1", "r2"):
        await made.put(keys.member(name), Member(address=name))
        await made.put(keys.session(name), Session(session=3, boot_id="b", machine_id="m", started=""))
        await made.put(keys.node_status(Kind.NODE, name), {"uid": name, "ready": True})
    yield made
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


async def refusal(world: World, name: str) -> str:
    with pytest.raises(ConflictError) as caught:
        await world.members.forget(name)
    assert caught.value.cure
    assert keys.member(name) in world.stored()
    return str(caught.value)


async def test_a_silent_node_without_vms_goes_and_its_session_stays(world: World) -> None:
    assert world.members.removable("r2")
    await world.members.forget("r2")
    assert {key for key in world.stored() if key.endswith("r2")} == {keys.session("r2")}
    assert keys.member("r1") in world.stored()


async def test_a_living_node_stays(world: World) -> None:
    assert not world.members.removable("r1")
    assert "node 'r1' is ready" in await refusal(world, "r1")


async def test_a_node_that_owns_a_vm_stays(world: World) -> None:
    await world.put(keys.claim("web"), Claim(node="r2"))
    assert "owns web, which may still run there" in await refusal(world, "r2")


async def test_a_node_that_a_vm_is_bound_to_stays(world: World) -> None:
    await world.put(keys.binding("web"), Binding(node="r2", uid="u", epoch=1, bound=""))
    assert "web are to run on node 'r2'" in await refusal(world, "r2")


async def test_a_node_that_comes_back_meanwhile_stays(world: World) -> None:
    world.store.slow = 0.05
    forgetting = asyncio.create_task(world.members.forget("r2"))
    await asyncio.sleep(0)
    other = MemoryStore(world.store.cluster)
    session = Session(session=4, boot_id="b", machine_id="m", started="")
    put = Put(key=keys.session("r2"), value=dump(session))
    await other.txn(Txn(id=world.ids.uuid(), puts=(put,)))
    with pytest.raises(ConflictError, match="has just come back"):
        await forgetting


async def test_a_stranger_is_not_found(world: World) -> None:
    with pytest.raises(NotFound):
        await world.members.forget("r9")
