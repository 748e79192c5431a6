"""What waits for a slow peer is bounded, and heartbeats do not wait behind logs."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from reconciler.adapters.mesh.frames import Control
from reconciler.adapters.mesh.outbox import LATEST_COUNTS, Outbox
from reconciler.ports.transport import Topic


async def test_it_gives_what_was_put_in_order() -> None:
    outbox = Outbox(most_messages=10, most_bytes=100)
    for payload in (b"1", b"2", b"3"):
        assert outbox.put(Topic.LOG, payload)
    assert [await outbox.take() for _ in range(3)] == [b"1", b"2", b"3"]
    assert outbox.waiting_bytes == 0


async def test_it_is_full_by_messages_and_by_bytes() -> None:
    outbox = Outbox(most_messages=2, most_bytes=10)
    assert outbox.put(Topic.LOG, b"x" * 4)
    assert not outbox.put(Topic.LOG, b"x" * 7)
    assert outbox.put(Topic.LOG, b"x")
    assert not outbox.put(Topic.LOG, b"x")
    await outbox.take()
    assert outbox.put(Topic.LOG, b"x" * 9)


async def test_the_latest_heartbeat_overtakes_logs_and_replaces_older_ones() -> None:
    outbox = Outbox(most_messages=2, most_bytes=10)
    while outbox.put(Topic.LOG, b"log"):
        pass
    for beat in (b"one", b"two", b"three"):
        assert outbox.put(Topic.HEARTBEAT, beat)
    assert outbox.put(Topic.WAKE, b"wake")
    assert outbox.replaced == 2
    assert [await outbox.take() for _ in range(3)] == [b"three", b"wake", b"log"]


async def test_whoever_waits_gets_the_next_one() -> None:
    outbox = Outbox(most_messages=2, most_bytes=10)
    waiting = asyncio.create_task(outbox.take())
    await asyncio.sleep(0)
    outbox.put(Topic.LOG, b"x")
    async with asyncio.timeout(5):
        assert await waiting == b"x"


@given(st.lists(st.tuples(st.sampled_from([*Topic, *Control, None]), st.integers(0, 40)), max_size=60))
def test_whatever_happens_it_stays_within_its_bounds(steps: list[tuple[Topic | Control | None, int]]) -> None:
    async def run() -> None:
        outbox = Outbox(most_messages=5, most_bytes=100)
        waiting = 0
        for topic, size in steps:
            if topic is not None:
                before = outbox.replaced
                accepted = outbox.put(topic, b"x" * size)
                assert accepted or topic not in LATEST_COUNTS
                waiting += accepted - (outbox.replaced - before)
            elif waiting:
                await outbox.take()
                waiting -= 1
            assert waiting <= 5 + len(LATEST_COUNTS)
            assert 0 <= outbox.waiting_bytes <= 100 + 40 * len(LATEST_COUNTS)
        for _ in range(waiting):
            await outbox.take()
        assert outbox.waiting_bytes == 0

    asyncio.run(run())
