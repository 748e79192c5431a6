"""RadosStore between processes: kill -9, leaving without closing, and what one tells the other."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from reconciler.adapters.rados import Place, RadosStore
from reconciler.resources.transactions import Changes, Committed, NotApplied
from reconciler.testing.store_harness import commit, read, txn

pytestmark = pytest.mark.ceph

HANG = 60.0
KILL_AFTER = [0, 1, 3, 8, 21, 55, 150, 2, 400]
"""Acknowledgements to wait for before each kill."""

Start = Callable[..., Awaitable[Any]]


async def test_nothing_acknowledged_is_lost_and_nothing_is_half_done_by_kill_9(
    place: Place, program: Start
) -> None:
    acknowledged: set[str] = set()
    store = await RadosStore.open(place)
    for number, count in enumerate(KILL_AFTER):
        writer = await program("pairs", f"run{number}")
        for _ in range(count):
            await writer.heard()
        writer.signal(signal.SIGKILL)
        await writer.end()
        acknowledged |= set(writer.lines)
    resolutions = [await store.resolve(id) for id in sorted(acknowledged)]
    items = {item.key: item for item in (await store.list("")).items}
    await store.close()
    assert len(acknowledged) >= sum(KILL_AFTER)
    assert all(isinstance(resolution, Committed) for resolution in resolutions)
    for key, item in items.items():
        other = items[key.replace("left", "right") if "left" in key else key.replace("right", "left")]
        assert (item.value, item.revision) == (other.value, other.revision)


async def test_what_a_killed_writer_had_under_way_is_settled_by_another(place: Place, program: Start) -> None:
    store = await RadosStore.open(place)
    for number in range(6):
        writer = await program("pairs", f"run{number}")
        for _ in range(5 + number):
            await writer.heard()
        writer.signal(signal.SIGKILL)
        await writer.end()
        for task in range(4):
            done = [id for id in writer.lines if id.startswith(f"run{number}-{task}-")]
            following = f"run{number}-{task}-{len(done)}"
            resolution = await store.resolve(following)
            value = f"run{number}.{len(done)}".encode()
            item = await read(store, f"left/{task}/{len(done) % 20}")
            there = item is not None and item.value == value
            assert isinstance(resolution, Committed if there else NotApplied)
    await store.close()


async def test_processes_that_count_together_lose_no_update(place: Place, program: Start) -> None:
    programs = [await program("increment", "20") for _ in range(3)]
    assert [await each.heard() for each in programs] == ["done"] * 3
    assert [await each.end() for each in programs] == [0] * 3
    store = await RadosStore.open(place)
    counter = await read(store, "counter")
    await store.close()
    assert counter is not None
    assert (counter.value, counter.revision) == (b"240", 240)


async def test_a_commit_of_another_process_wakes_the_watch(place: Place, program: Start) -> None:
    store = await RadosStore.open(place)
    watch = asyncio.create_task(store.watch(0, timeout=HANG))
    writer = await program("increment", "1")
    async with asyncio.timeout(HANG / 2):
        result = await watch
    assert isinstance(result, Changes)
    assert result.events[0].key == "counter"
    assert await writer.heard() == "done"
    assert await writer.end() == 0
    await store.close()


async def test_a_process_that_forgets_to_close_its_store_ends_well(place: Place, program: Start) -> None:
    leaving = await program("forget")
    assert await leaving.heard() == "leaving"
    assert await leaving.end() == 0
    store = await RadosStore.open(place)
    await commit(store, txn({"left": b"closed"}))
    await store.close()


async def test_a_process_stopped_for_a_while_goes_on_where_it_was(place: Place, program: Start) -> None:
    store = await RadosStore.open(place)
    writer = await program("pairs", "run")
    await writer.heard()
    writer.signal(signal.SIGSTOP)
    await commit(store, txn({"other": b"1"}))
    await asyncio.sleep(0.3)
    writer.signal(signal.SIGCONT)
    seen = len(writer.lines)
    for _ in range(200):
        await writer.heard()
    writer.signal(signal.SIGKILL)
    await writer.end()
    assert len(writer.lines) >= seen + 200
    assert all([isinstance(await store.resolve(id), Committed) for id in writer.lines])
    await store.close()
