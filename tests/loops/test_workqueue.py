"""The queue: one worker for a key, nothing lost, nothing done twice."""

from __future__ import annotations

import asyncio

from reconciler.adapters.clock import SystemClock
from reconciler.loops.workqueue import WorkQueue


async def test_a_key_added_often_is_worked_on_once() -> None:
    queue = WorkQueue(SystemClock())
    for _ in range(5):
        queue.add("a")
    assert await queue.get() == "a"
    assert len(queue) == 0


async def test_a_key_added_while_it_is_worked_on_comes_again_afterwards_only() -> None:
    queue = WorkQueue(SystemClock())
    queue.add("a")
    await queue.get()
    queue.add("a")
    queue.add("b")
    assert await queue.get() == "b"
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0.02)
    assert not waiting.done()
    queue.done("a")
    async with asyncio.timeout(5):
        assert await waiting == "a"


async def test_a_later_date_never_delays_an_earlier_one() -> None:
    queue = WorkQueue(SystemClock())
    now = SystemClock().monotonic()
    queue.add_at("a", now + 0.05)
    queue.add_at("a", now + 60)
    async with asyncio.timeout(5):
        assert await queue.get() == "a"


async def test_two_workers_never_hold_one_key() -> None:
    queue = WorkQueue(SystemClock())
    active: set[str] = set()
    worked = 0

    async def work() -> None:
        nonlocal worked
        while True:
            key = await queue.get()
            assert key not in active
            active.add(key)
            await asyncio.sleep(0.001)
            active.discard(key)
            worked += 1
            queue.done(key)

    workers = [asyncio.create_task(work()) for _ in range(4)]
    for _ in range(50):
        queue.add("a")
        queue.add("b")
        await asyncio.sleep(0.0005)
    await asyncio.sleep(0.05)
    for worker in workers:
        worker.cancel()
    results = await asyncio.gather(*workers, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results)
    assert worked >= 4
