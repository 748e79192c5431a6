"""Events: nobody waits for them, repeats are counted, and there are never more than the slots."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from reconciler.loops.event_log import EventFilter
from reconciler.loops.events import BATCH, SLOTS, EventRecorder
from reconciler.resources import keys
from reconciler.resources.kinds import Kind
from reconciler.resources.records import Event, EventType
from reconciler.sim.desk import Desk
from reconciler.sim.store import TxnFault

VM = Kind.VIRTUAL_MACHINE


@pytest.fixture
async def desk() -> Desk:
    made = Desk()
    await made.start()
    return made


def note(recorder: EventRecorder, message: str = "running on r1", name: str = "web") -> None:
    recorder.record(EventType.NORMAL, VM, name, "Started", message)


async def written(desk: Desk, recorder: EventRecorder | None = None, **wanted: Any) -> tuple[Event, ...]:
    assert await (recorder or desk.recorder).flush()
    await desk.sync()
    return desk.events.list(EventFilter(**wanted))


async def test_an_event_says_what_happened_to_what_and_when(desk: Desk) -> None:
    note(desk.recorder)
    [event] = await written(desk)
    assert (event.kind, event.name, event.reason, event.message, event.node, event.time, event.count) == (
        *("VirtualMachine", "web", "Started", "running on r1", "r1", "2026-01-31T12:00:00Z"),
        1,
    )


async def test_what_repeats_is_one_event_with_a_count(desk: Desk) -> None:
    note(desk.recorder)
    desk.clock.advance(60)
    note(desk.recorder)
    note(desk.recorder, "running on r2")
    again, other = await written(desk)
    assert (again.count, again.first_time, again.time) == (2, "2026-01-31T12:00:00Z", "2026-01-31T12:01:00Z")
    assert other.count == 1


async def test_they_come_oldest_first_and_of_what_was_asked_for(desk: Desk) -> None:
    note(desk.recorder, name="web")
    note(desk.recorder, name="db")
    note(desk.recorder, "again", name="web")
    found = await written(desk, kind="VirtualMachine", name="web")
    assert [event.message for event in found] == ["running on r1", "again"]


async def test_recording_never_waits_for_the_store(desk: Desk) -> None:
    desk.store.arm(TxnFault.REFUSED, count=1000)
    note(desk.recorder)
    assert not await desk.recorder.flush()
    assert desk.events.list(EventFilter()) == ()


async def test_what_the_store_did_not_take_is_written_later(desk: Desk) -> None:
    desk.store.arm(TxnFault.REFUSED)
    note(desk.recorder)
    assert not await desk.recorder.flush()
    assert len(await written(desk)) == 1


async def test_a_full_ring_forgets_what_was_not_seen_for_longest(desk: Desk) -> None:
    note(desk.recorder, "first")
    note(desk.recorder, "second")
    for number in range(SLOTS - 2):
        note(desk.recorder, f"filler {number}")
    note(desk.recorder, "first")
    note(desk.recorder, "one more")
    messages = {event.message for event in await written(desk)}
    assert len(messages) == SLOTS
    assert "second" not in messages
    assert {"first", "one more"} <= messages


async def test_a_thousand_events_are_a_few_transactions(desk: Desk) -> None:
    await written(desk)
    before = desk.cache.revision
    for number in range(500):
        note(desk.recorder, f"event {number}")
    await written(desk)
    assert desk.cache.revision - before == 500 // BATCH


async def test_a_new_daemon_goes_on_counting_where_the_old_one_was(desk: Desk) -> None:
    note(desk.recorder)
    note(desk.recorder, "other")
    await written(desk)
    successor = EventRecorder("r1", desk.cache, desk.writer, desk.clock)
    note(successor)
    note(successor, "new")
    found = await written(desk, successor)
    assert sorted((event.message, event.count) for event in found) == [
        ("new", 1),
        ("other", 1),
        ("running on r1", 2),
    ]


async def test_events_before_the_store_is_read_are_kept() -> None:
    desk = Desk()
    note(desk.recorder)
    assert not await desk.recorder.flush()
    await desk.start()
    assert len(await written(desk)) == 1


async def test_an_event_that_cannot_be_read_is_passed_over(desk: Desk) -> None:
    await desk.put({keys.event("r1", 5): {"broken": True}, "event/r1/zzz": {}})
    note(desk.recorder)
    assert len(await written(desk)) == 1


async def test_a_very_long_message_is_cut(desk: Desk) -> None:
    note(desk.recorder, "x" * 100_000)
    [event] = await written(desk)
    assert len(event.message) == 1024


async def test_the_loop_writes_by_itself(desk: Desk) -> None:
    loop = asyncio.create_task(desk.recorder.run())
    note(desk.recorder)
    async with asyncio.timeout(5):
        while not desk.events.list(EventFilter()):
            await desk.sync()
    loop.cancel()
    assert (await asyncio.gather(loop, return_exceptions=True))[0].__class__ is asyncio.CancelledError


async def test_a_watch_tells_new_events_and_repeats(desk: Desk) -> None:
    note(desk.recorder)
    await written(desk)
    watch = desk.events.watch(EventFilter(), None)
    first = await watch.next(0.0)
    assert [(type.value, event.count) for type, event in first.events] == [("ADDED", 1)]
    note(desk.recorder)
    await written(desk)
    second = await watch.next(0.0)
    assert [(type.value, event.count) for type, event in second.events] == [("MODIFIED", 2)]
    assert (await watch.next(0.01)).events == ()
    watch.close()


async def test_a_watch_from_a_revision_tells_only_what_came_after(desk: Desk) -> None:
    note(desk.recorder, "old")
    await written(desk)
    watch = desk.events.watch(EventFilter(), desk.cache.revision)
    note(desk.recorder, "new")
    await written(desk)
    batch = await watch.next(0.0)
    assert [event.message for _, event in batch.events] == ["new"]
    assert batch.revision == desk.cache.revision
