"""What the worker answers when the object plays every trick that Ceph may play; no Ceph needed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import pytest

from reconciler.adapters.rados.follow import load
from reconciler.adapters.rados.link import PAGE, Place, Write, WriteFailed
from reconciler.adapters.rados.records import Entry, Version
from reconciler.adapters.rados.replica import Limits
from reconciler.adapters.rados.requests import Look, Request, Resolve
from reconciler.adapters.rados.worker import Worker
from reconciler.resources.errors import OutcomeUnknown, StoreUnavailable
from reconciler.resources.transactions import Committed, Conflict, KeyValue, NotApplied, Unresolved
from reconciler.testing.store_harness import txn

HANG = 30.0
PLACE = Place(conf="conf", user="vcl", pool="pool", namespace="space", object="object")


class Trick(Enum):
    LATE = "the answer is a time-out, and the operation waits for `land`"
    DONE = "the answer is a time-out, and the operation was applied"
    TWICE = "it was applied, and the answer to its second sending says that it was refused"
    FULL = "it certainly had no effect"


@dataclass(slots=True, kw_only=True, eq=False)
class FakeObject:
    """The object of every FakeLink, as the OSDs have it."""

    version: Version = field(default_factory=lambda: Version(uid="uid"))
    items: dict[str, KeyValue] = field(default_factory=dict)
    log: dict[int, Entry] = field(default_factory=dict)
    late: list[Write] = field(default_factory=list)
    lock: Any = field(default_factory=threading.Lock)

    def apply(self, write: Write) -> bool:
        with self.lock:
            if write.before != self.version:
                return False
            self.version = write.after
            for key, item in write.items.items():
                if item is None:
                    self.items.pop(key, None)
                else:
                    self.items[key] = item
            self.log |= {entry.revision: entry for entry in write.entries}
            self.log = {at: entry for at, entry in self.log.items() if at > self.version.compacted}
            return True

    def land(self) -> list[bool]:
        late, self.late = self.late, []
        return [self.apply(write) for write in late]


class FakeLink:
    """One client's way to it. `tricks` are used up one per write; `gate` holds writes back while clear."""

    def __init__(self, target: FakeObject, *tricks: Trick) -> None:
        self.place = PLACE
        self.target = target
        self.tricks = list(tricks)
        self.gate = threading.Event()
        self.gate.set()
        self.read_gate = threading.Event()
        self.read_gate.set()
        self.blind = False
        self.writes: list[Write] = []

    def read(self, after: int) -> tuple[Version, tuple[Entry, ...]]:
        self.read_gate.wait(HANG)
        if self.blind:
            raise StoreUnavailable("nothing answers")
        with self.target.lock:
            entries = [self.target.log[at] for at in sorted(self.target.log) if at > after]
            return self.target.version, tuple(entries[:PAGE])

    def items(self) -> list[KeyValue]:
        return list(self.target.items.values())

    def write(self, write: Write) -> bool:
        self.gate.wait(HANG)
        self.writes.append(write)
        match self.tricks.pop(0) if self.tricks else None:
            case Trick.LATE:
                self.target.late.append(write)
                raise WriteFailed("no answer")
            case Trick.DONE:
                self.target.apply(write)
                raise WriteFailed("no answer")
            case Trick.TWICE:
                self.target.apply(write)
                return False
            case Trick.FULL:
                raise StoreUnavailable("Ceph is full")
            case _:
                return self.target.apply(write)


@asynccontextmanager
async def working(link: FakeLink, *, log_size: int = 1000) -> AsyncIterator[Worker]:
    worker = Worker(
        link,  # type: ignore[arg-type]
        load(link),  # type: ignore[arg-type]
        limits=Limits(revisions=log_size, bytes=10**9),
        loop=asyncio.get_running_loop(),
        moved=lambda _: None,
    )
    worker.start()
    try:
        yield worker
    finally:
        link.gate.set()
        link.read_gate.set()
        worker.stop()
        async with asyncio.timeout(HANG):
            await worker.stopped.wait()


async def answer(request: Request) -> Any:
    async with asyncio.timeout(HANG):
        return await request.future


async def do(worker: Worker, work: Any) -> Any:
    return await answer(worker.submit(work))


async def test_a_write_that_may_still_come_is_barred_before_it_is_called_not_applied() -> None:
    target = FakeObject()
    async with working(FakeLink(target, Trick.LATE)) as writer, working(FakeLink(target)) as other:
        change = txn({"a": b"1"})
        assert isinstance(await do(writer, change), OutcomeUnknown)
        assert await do(other, Resolve(id=change.id, after=0)) == NotApplied()
        assert target.land() == [False]
        assert target.items == {}
        assert await do(writer, Resolve(id=change.id, after=0)) == NotApplied()


async def test_a_write_that_came_late_is_found_in_the_log() -> None:
    target = FakeObject()
    async with working(FakeLink(target, Trick.LATE)) as writer, working(FakeLink(target)) as other:
        change = txn({"a": b"1"})
        assert isinstance(await do(writer, change), OutcomeUnknown)
        assert target.land() == [True]
        assert await do(other, Resolve(id=change.id, after=0)) == Committed(revision=1)
        assert await do(writer, Resolve(id=change.id, after=0)) == Committed(revision=1)


async def test_any_later_commit_bars_it_too() -> None:
    target = FakeObject()
    async with working(FakeLink(target, Trick.LATE)) as writer:
        change = txn({"a": b"1"})
        assert isinstance(await do(writer, change), OutcomeUnknown)
        assert await do(writer, txn({"b": b"1"})) == Committed(revision=1)
        assert target.land() == [False]
        assert await do(writer, Resolve(id=change.id, after=0)) == NotApplied()


async def test_a_write_that_was_done_without_an_answer_is_known_to_have_been_done() -> None:
    link = FakeLink(FakeObject(), Trick.DONE)
    async with working(link) as writer:
        change = txn({"a": b"1"})
        assert isinstance(await do(writer, change), OutcomeUnknown)
        assert await do(writer, change) == Committed(revision=1)
        assert await do(writer, Resolve(id=change.id, after=0)) == Committed(revision=1)
        assert len(link.writes) == 1


async def test_a_refusal_of_the_second_sending_does_not_hide_that_the_first_was_accepted() -> None:
    link = FakeLink(FakeObject(), Trick.TWICE)
    async with working(link) as writer:
        assert await do(writer, txn({"a": b"1"}, compares={"a": 0})) == Committed(revision=1)
        assert len(link.writes) == 1


async def test_it_is_unknown_when_the_log_was_trimmed_in_between() -> None:
    target = FakeObject()
    link = FakeLink(target, Trick.TWICE)
    async with working(link) as writer, working(FakeLink(target), log_size=2) as other:
        link.gate.clear()
        change = txn({"a": b"1"})
        asked = writer.submit(change)
        for number in range(10):
            assert isinstance(await do(other, txn({"b": str(number).encode()})), Committed)
        link.gate.set()
        assert isinstance(await answer(asked), OutcomeUnknown)
        assert await do(writer, Resolve(id=change.id, after=0)) == Unresolved()


async def test_a_refusal_that_cannot_be_looked_into_is_unknown() -> None:
    target = FakeObject()
    link = FakeLink(target)
    async with working(link) as writer, working(FakeLink(target)) as other:
        link.gate.clear()
        asked = writer.submit(txn({"a": b"1"}))
        assert isinstance(await do(other, txn({"b": b"1"})), Committed)
        link.blind = True
        link.gate.set()
        assert isinstance(await answer(asked), OutcomeUnknown)
        assert isinstance(await do(writer, txn({"c": b"1"})), StoreUnavailable)


async def test_what_nobody_waits_for_any_more_is_not_sent_again() -> None:
    target = FakeObject()
    link = FakeLink(target)
    async with working(link) as writer, working(FakeLink(target)) as other:
        link.gate.clear()
        asked = writer.submit(txn({"a": b"1"}))
        await until(lambda: not len(writer._requests))
        assert not writer.withdraw(asked)
        assert await do(other, Resolve(id=getattr(asked.work, "id", ""), after=0)) == NotApplied()
        link.gate.set()
        assert await do(writer, txn({"b": b"1"})) == Committed(revision=1)
        assert list(target.items) == ["b"]


async def test_what_was_given_up_during_a_read_is_not_sent_on_top_of_its_settlement() -> None:
    target = FakeObject()
    link = FakeLink(target, Trick.DONE)
    async with working(link) as writer, working(FakeLink(target)) as other:
        assert isinstance(await do(writer, txn({"doubt": b"1"})), OutcomeUnknown)
        link.read_gate.clear()
        change = txn({"a": b"1"})
        asked = writer.submit(change)
        await until(lambda: not len(writer._requests))
        assert not writer.withdraw(asked)
        assert await do(other, Resolve(id=change.id, after=1)) == NotApplied()
        link.read_gate.set()
        assert await do(writer, txn({"b": b"1"})) == Committed(revision=2)
        assert list(target.items) == ["doubt", "b"]


async def test_what_was_withdrawn_from_the_queue_never_happens() -> None:
    target = FakeObject()
    link = FakeLink(target)
    async with working(link) as writer:
        link.gate.clear()
        first = writer.submit(txn({"a": b"1"}))
        await until(lambda: not len(writer._requests))
        second = writer.submit(txn({"b": b"1"}))
        assert writer.withdraw(second)
        link.gate.set()
        assert await answer(first) == Committed(revision=1)
        assert list(target.items) == ["a"]


async def test_a_certain_failure_is_said_to_have_had_no_effect() -> None:
    link = FakeLink(FakeObject(), Trick.FULL)
    async with working(link) as writer:
        assert isinstance(await do(writer, txn({"a": b"1"})), StoreUnavailable)
        assert await do(writer, txn({"a": b"1"}, compares={"a": 0})) == Committed(revision=1)


async def test_only_what_would_have_been_written_is_unknown_when_a_write_fails() -> None:
    link = FakeLink(FakeObject(), Trick.LATE)
    async with working(link) as writer:
        link.gate.clear()
        plug = writer.submit(txn({"plug": b"1"}))
        await until(lambda: not len(writer._requests))
        link.tricks = [Trick.DONE, Trick.LATE]
        asked = [
            writer.submit(work)
            for work in (
                txn({"a": b"1"}),
                txn({"a": b"2"}, compares={"b": 7}),
                Look(query=lambda replica: replica.listing("")),
                Resolve(id="other", after=0),
            )
        ]
        link.gate.set()
        assert isinstance(await answer(plug), OutcomeUnknown)
        kinds = [type(await answer(each)) for each in asked]
        assert kinds == [OutcomeUnknown, StoreUnavailable, StoreUnavailable, StoreUnavailable]


async def test_what_queues_up_during_a_write_is_one_write() -> None:
    link = FakeLink(FakeObject())
    async with working(link) as writer:
        link.gate.clear()
        requests = [writer.submit(txn({"key0": b"1"}))]
        await until(lambda: not len(writer._requests))
        requests += [writer.submit(txn({f"key{number}": b"1"})) for number in range(1, 100)]
        looking = writer.submit(Look(query=lambda replica: len(replica.listing("").items)))
        link.gate.set()
        assert [await answer(each) for each in requests] == [Committed(revision=n) for n in range(1, 101)]
        assert await answer(looking) == 100
        assert len(link.writes) == 2


async def test_a_conflict_is_judged_on_the_newest_state() -> None:
    target = FakeObject()
    async with working(FakeLink(target)) as one, working(FakeLink(target)) as two:
        assert await do(one, txn({"a": b"1"})) == Committed(revision=1)
        assert await do(two, txn({"b": b"1"}, compares={"a": 1})) == Committed(revision=2)
        assert await do(one, txn({"c": b"1"}, compares={"b": 0})) == Conflict(keys=("b",))
        assert await do(one, txn(compares={"b": 2})) == Committed(revision=2)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(HANG):
        while not holds():
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("count", [PAGE - 1, PAGE, PAGE + 1, 3 * PAGE])
async def test_a_log_of_any_number_of_pages_is_followed(count: int) -> None:
    target = FakeObject()
    async with working(FakeLink(target), log_size=10_000) as one:
        requests = [one.submit(txn({"a": b"1"})) for _ in range(count)]
        for each in requests:
            assert isinstance(await answer(each), Committed)
        replica = load(FakeLink(target))  # type: ignore[arg-type]
        assert replica.version.revision == count
