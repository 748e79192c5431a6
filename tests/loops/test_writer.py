"""Every write compares its guards, and an unknown outcome is resolved by its id."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from reconciler.loops.cache import StoreCache
from reconciler.loops.writer import Writer, conflicts
from reconciler.resources import keys
from reconciler.resources.errors import StoreUnavailable
from reconciler.resources.transactions import Committed, Put, Txn
from reconciler.sim.clock import SeededIds
from reconciler.sim.store import MemoryStore, TxnFault


class Rig:
    def __init__(self) -> None:
        self.store = MemoryStore()
        self.cache = StoreCache(self.store)
        self.writer = Writer(self.store, self.cache, SeededIds())

    async def put(self, key: str, value: bytes) -> int:
        result = await self.store.txn(Txn(id=f"{key}{value!r}", puts=(Put(key=key, value=value),)))
        assert isinstance(result, Committed)
        return result.revision

    async def follow(self) -> None:
        while True:
            await self.cache.step(1.0)


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    made = Rig()
    await made.put(keys.SCHEMA, b"1")
    await made.cache.step(0.0)
    following = asyncio.create_task(made.follow())
    yield made
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


async def test_a_write_is_visible_in_the_copy_when_it_returns(rig: Rig) -> None:
    await rig.writer.commit(puts={"a": b"1"})
    item = rig.cache.get("a")
    assert item is not None
    assert item.value == b"1"


async def test_a_guard_that_changed_refuses_every_later_write(rig: Rig) -> None:
    revision = await rig.put("session/r1", b"1")
    rig.writer.guard("session/r1", revision)
    guards = (keys.SCHEMA, "session/r1")
    assert conflicts(await rig.writer.commit(puts={"a": b"1"}, guards=guards)) == ()
    await rig.put("session/r1", b"2")
    result = await rig.writer.commit(puts={"a": b"2"}, guards=guards)
    assert conflicts(result) == ("session/r1",)
    await rig.cache.wait_for((await rig.store.list("")).revision)
    assert not rig.writer.holds("session/r1")


async def test_a_write_that_did_happen_although_nobody_said_so_counts_as_done(rig: Rig) -> None:
    rig.store.arm(TxnFault.APPLIED)
    result = await rig.writer.commit(puts={"a": b"1"})
    assert isinstance(result, Committed)
    assert rig.cache.get("a") is not None


async def test_a_write_that_never_happened_is_reported_as_such(rig: Rig) -> None:
    rig.store.arm(TxnFault.LOST)
    with pytest.raises(StoreUnavailable):
        await rig.writer.commit(puts={"a": b"1"})
    assert (await rig.store.get(["a"])) == {}
