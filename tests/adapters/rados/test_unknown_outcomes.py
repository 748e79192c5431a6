"""A write that timed out may be applied later: `resolve` is right every time, and stays right."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from reconciler.adapters.rados import Place, RadosStore
from reconciler.resources.errors import OutcomeUnknown, StoreUnavailable
from reconciler.resources.transactions import Committed, NotApplied, Resolution
from reconciler.testing.store_harness import commit, read, txn

pytestmark = pytest.mark.ceph

HANG = 60.0
ROUNDS = 6
LARGE = 6 * 2**20
"""Bytes: an OSD that goes on reads small requests of other clients before it has all of this."""

Settle = Callable[[str], Awaitable[Resolution]]


@asynccontextmanager
async def opened(place: Place) -> AsyncIterator[RadosStore]:
    store = await RadosStore.open(place, op_timeout=1, log_bytes=2**30)
    try:
        yield store
    finally:
        await store.close()


async def settled(store: RadosStore, id: str) -> Committed | NotApplied:
    """Ask until there is an answer."""
    async with asyncio.timeout(HANG):
        while True:
            try:
                resolution = await store.resolve(id, timeout=1)
            except StoreUnavailable:
                await asyncio.sleep(0.01)
                continue
            assert isinstance(resolution, Committed | NotApplied)
            return resolution


async def unknown(store: RadosStore, key: str, *, timeout: float, size: int = 1) -> str:
    """The id of a write that ended without an answer."""
    change = txn({key: bytes(size)})
    with pytest.raises(OutcomeUnknown) as caught:
        await store.txn(change, timeout=timeout)
    assert caught.value.txn_id == change.id
    return change.id


async def judge(resolution: Committed | NotApplied, key: str, observer: RadosStore) -> None:
    """What was said holds now and later."""
    for pause in (0.0, 0.1):
        await asyncio.sleep(pause)
        item = await read(observer, key)
        match resolution:
            case Committed(revision=revision):
                assert item is not None
                assert item.revision == revision
            case NotApplied():
                assert item is None


@pytest.mark.parametrize("frozen", ["primary", "replica"])
async def test_the_writer_settles_its_own_write_after_the_osd_goes_on(
    place: Place, ceph: Any, osds: tuple[int, ...], frozen: str
) -> None:
    osd = osds[0] if frozen == "primary" else osds[1]
    async with opened(place) as writer, opened(place) as observer:
        for number in range(ROUNDS):
            await commit(writer, txn({"base": str(number).encode()}))
            ceph.freeze(osd)
            id = await unknown(writer, f"key{number}", timeout=0.1 * (1 + number % 3))
            ceph.thaw(osd)
            await judge(await settled(writer, id), f"key{number}", observer)


@pytest.mark.parametrize("frozen", ["primary", "replica"])
async def test_another_client_settles_it_while_it_may_still_be_under_way(
    place: Place, ceph: Any, osds: tuple[int, ...], frozen: str
) -> None:
    osd = osds[0] if frozen == "primary" else osds[1]
    size = LARGE if frozen == "primary" else 1
    dice = random.Random(frozen)
    outcomes: list[Resolution] = []
    async with opened(place) as writer, opened(place) as observer:
        for number in range(ROUNDS):
            key = f"key{number}"
            await commit(observer, txn({"base": str(number).encode()}))
            await writer.get([key])
            async with opened(place) as other:
                ceph.freeze(osd)
                id = await unknown(writer, key, timeout=0.1, size=size)
                asking = asyncio.create_task(settled(other, id))
                await asyncio.sleep(dice.random() * 0.05)
                ceph.thaw(osd)
                outcomes.append(await asking)
                await judge(outcomes[-1], key, observer)
    assert len(outcomes) == ROUNDS


async def test_a_write_that_librados_gave_up_is_settled(
    place: Place, ceph: Any, osds: tuple[int, ...]
) -> None:
    async with opened(place) as writer, opened(place) as other, opened(place) as observer:
        for number, judging in enumerate([writer, other]):
            ceph.freeze(osds[0])
            id = await unknown(writer, f"key{number}", timeout=5)
            with pytest.raises(StoreUnavailable):
                await judging.resolve(id, timeout=0.1)
            ceph.thaw(osds[0])
            await judge(await settled(judging, id), f"key{number}", observer)


async def test_what_waited_behind_a_stalled_write_and_gave_up_never_happens(
    place: Place, ceph: Any, osds: tuple[int, ...]
) -> None:
    async with opened(place) as store:
        await commit(store, txn({"base": b""}))
        ceph.freeze(osds[0])
        stalled = asyncio.create_task(store.txn(txn({"first": b"x"}), timeout=10))
        await asyncio.sleep(0.05)
        with pytest.raises(StoreUnavailable):
            await store.txn(txn({"second": b"x"}), timeout=0.1)
        with pytest.raises(StoreUnavailable):
            await store.get(["base"], timeout=0.1)
        ceph.thaw(osds[0])
        assert isinstance(await stalled, Committed)
        assert [item.key for item in (await store.list("")).items] == ["base", "first"]


async def test_the_store_goes_on_by_itself_after_a_stall(
    place: Place, ceph: Any, osds: tuple[int, ...]
) -> None:
    async with opened(place) as store, opened(place) as other:
        revision = await commit(store, txn({"a": b"1"}))
        watch = asyncio.create_task(store.watch(revision, timeout=HANG))
        await asyncio.sleep(0.1)
        ceph.freeze(*osds)
        with pytest.raises(StoreUnavailable, match=r"did not answer|does not answer"):
            await other.get(["a"], timeout=1.5)
        ceph.thaw(*osds)
        await commit(other, txn({"a": b"2"}))
        await asyncio.wait([watch])
        assert isinstance(watch.exception(), StoreUnavailable | None)
        result = await store.watch(revision, timeout=HANG)
        assert [event.value for event in getattr(result, "events", ())] == [b"2"]
