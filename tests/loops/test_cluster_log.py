"""The log of a cluster, read on one of its nodes."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from reconciler.adapters.clock import SystemClock
from reconciler.loops.cluster_log import ClusterLog
from reconciler.loops.log_answers import LogLimits
from reconciler.loops.log_reader import LogReader, NoticeKind
from reconciler.loops.log_ring import LogRing
from reconciler.ports.transport import Endpoint, Link, LinkState, Listener, Message, Topic
from reconciler.resources.errors import NotFound, StoreUnavailable
from reconciler.resources.logrecords import LogEntry, LogFilter, LogLevel, LogRecord

LIMITS = LogLimits(
    gather=0.005, hold=0.1, patience=0.3, renew=0.2, expire=1.0, look=0.02, grace=0.1, records=7, size=8192
)
FOLLOW = LogFilter(follow=True)
EVERYTHING = LogFilter()


class Wire:
    """One node's end of a mesh in memory."""

    def __init__(self, mesh: Mesh, node: str) -> None:
        self._mesh = mesh
        self._node = node
        self.listeners: list[Listener] = []
        self.refuses = False
        self.sent: list[tuple[str, Message]] = []

    def connect(self, peers: Mapping[str, Endpoint]) -> None:
        raise AssertionError("the log does not choose the links")

    def links(self) -> Mapping[str, Link]:
        return {
            node: Link(
                state=LinkState.CONNECTED if self._mesh.joined(self._node, node) else LinkState.UNREACHABLE,
                since=0.0,
                reason="" if self._mesh.joined(self._node, node) else "no route",
            )
            for node in self._mesh.wires
            if node != self._node
        }

    def send(self, node: str, message: Message) -> bool:
        if self.refuses or not self._mesh.joined(self._node, node):
            return False
        self.sent.append((node, message))
        body = json.dumps(message.body)
        assert len(body) <= 256 * 1024
        if not self._mesh.loses(message):
            arrived = Message(topic=message.topic, body=json.loads(body))
            asyncio.get_running_loop().call_soon(self._mesh.deliver, self._node, node, arrived)
        return True

    def listen(self, listener: Listener) -> Callable[[], None]:
        self.listeners.append(listener)
        return lambda: self.listeners.remove(listener)

    async def run(self) -> None:
        await asyncio.Event().wait()


class Mesh:
    def __init__(self) -> None:
        self.wires: dict[str, Wire] = {}
        self.down: set[str] = set()
        self.loses: Callable[[Message], bool] = lambda message: False

    def joined(self, one: str, other: str) -> bool:
        return not {one, other} & self.down

    def deliver(self, sender: str, node: str, message: Message) -> None:
        if self.joined(sender, node):
            for listener in list(self.wires[node].listeners):
                listener(sender, message)


class World:
    """Nodes with their logs; `tell` lets one say something at a second of the same minute."""

    def __init__(self) -> None:
        self.mesh = Mesh()
        self.logs: dict[str, ClusterLog] = {}
        self.tasks: list[asyncio.Task[None]] = []

    def start(self, *nodes: str, session: int = 1, **more: Any) -> None:
        for node in nodes:
            wire = self.mesh.wires[node] = Wire(self.mesh, node)
            self.logs[node] = ClusterLog(node, session, SystemClock(), wire, **{"limits": LIMITS, **more})
        self.tasks += [asyncio.create_task(self.logs[node].run()) for node in nodes]

    def tell(self, node: str, message: str, second: int = 0, *, vm: str | None = None) -> None:
        self.logs[node].add(
            LogEntry(
                time=f"2026-01-31T12:00:{second:02}.000000Z",
                level=LogLevel.ERROR if "!" in message else LogLevel.INFO,
                logger="test",
                message=message,
                vm=vm,
            )
        )

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    await made.stop()


class Read:
    """What a reader was told."""

    def __init__(self) -> None:
        self.records: list[LogRecord] = []
        self.notices: list[tuple[NoticeKind, str]] = []
        self.texts: list[str] = []
        self.dropped = 0

    @property
    def messages(self) -> list[str]:
        return [record.message for record in self.records]


async def history(log: ClusterLog, wanted: LogFilter = EVERYTHING) -> Read:
    """All that there is, to the end."""
    reader = log.read(wanted)
    try:
        return await until(reader, lambda read: False)
    finally:
        reader.close()


async def until(reader: LogReader, enough: Callable[[Read], bool], read: Read | None = None) -> Read:
    read = read or Read()
    async with asyncio.timeout(20):
        while not enough(read):
            batch = await reader.next(5.0)
            read.records += batch.records
            read.notices += [(notice.kind, notice.node) for notice in batch.notices]
            read.texts += [notice.message for notice in batch.notices]
            read.dropped += sum(notice.count for notice in batch.notices)
            if batch.ended:
                break
    return read


def count(number: int) -> Callable[[Read], bool]:
    return lambda read: len(read.records) >= number


async def test_every_node_shows_what_all_of_them_said_in_one_order(world: World) -> None:
    world.start("r1", "r2", "r3")
    for second in range(0, 60, 3):
        world.tell("r2", f"b{second + 1}", second + 1)
        world.tell("r1", f"a{second}", second)
        world.tell("r3", f"c{second + 2}", second + 2)
    expected = [f"{'abc'[second % 3]}{second}" for second in range(60)]
    for node in ("r1", "r2", "r3"):
        read = await history(world.logs[node])
        assert read.messages == expected
        assert read.notices == []


async def test_a_filter_counts_on_every_node(world: World) -> None:
    world.start("r1", "r2")
    world.tell("r1", "web starts", 1, vm="web")
    world.tell("r1", "db fails!", 2, vm="db")
    world.tell("r2", "web fails!", 3, vm="web")
    log = world.logs["r1"]
    assert (await history(log, LogFilter(vm="web"))).messages == ["web starts", "web fails!"]
    assert (await history(log, LogFilter(level=LogLevel.ERROR))).messages == ["db fails!", "web fails!"]
    assert (await history(log, LogFilter(node="r2"))).messages == ["web fails!"]
    since = LogFilter(since="2026-01-31T12:00:02.000000Z")
    assert (await history(log, since)).messages == ["db fails!", "web fails!"]


async def test_a_tail_is_of_the_whole_log_and_not_of_each_node(world: World) -> None:
    world.start("r1", "r2")
    for second in range(0, 40, 2):
        world.tell("r1", f"{second}", second)
        world.tell("r2", f"{second + 1}", second + 1)
    assert (await history(world.logs["r1"], LogFilter(tail=3))).messages == ["37", "38", "39"]
    assert (await history(world.logs["r1"], LogFilter(tail=0))).messages == []


async def test_a_follower_sees_what_is_said_from_now_on(world: World) -> None:
    world.start("r1", "r2")
    world.tell("r2", "before", 1)
    reader = world.logs["r1"].read(LogFilter(follow=True, tail=1))
    read = await until(reader, count(1))
    world.tell("r2", "second", 3)
    world.tell("r1", "first", 2)
    await until(reader, count(3), read)
    assert read.messages == ["before", "first", "second"]
    reader.close()


async def test_a_follower_of_nothing_that_happens_is_told_so_at_its_time_out(world: World) -> None:
    world.start("r1", "r2")
    reader = world.logs["r1"].read(FOLLOW)
    batch = await reader.next(0.2)
    assert (batch.records, batch.notices, batch.ended) == ((), (), False)
    reader.close()


async def test_one_node_without_a_mesh_reads_its_own_log() -> None:
    log = ClusterLog("r1", 1, SystemClock(), limits=LIMITS)
    task = asyncio.create_task(log.run())
    log.add(LogEntry(time="2026-01-31T12:00:00.000000Z", level=LogLevel.INFO, logger="t", message="here"))
    assert (await history(log)).messages == ["here"]
    assert log.nodes() == {"r1"}
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_node_that_is_not_connected_is_named_and_the_others_are_read(world: World) -> None:
    world.start("r1", "r2", "r3")
    world.tell("r1", "one", 1)
    world.tell("r2", "two", 2)
    world.mesh.down.add("r3")
    read = await history(world.logs["r1"])
    assert read.messages == ["one", "two"]
    assert read.texts == ["r3 is not connected: its log is missing (no route)"]


async def test_a_configured_node_without_a_link_is_named_too(world: World) -> None:
    world.start("r1", members=lambda: ["r1", "r8"])
    assert (await history(world.logs["r1"])).texts == ["r8 is not connected: its log is missing"]


async def test_a_node_that_there_is_not_cannot_be_read(world: World) -> None:
    world.start("r1", "r2")
    with pytest.raises(NotFound, match="there are r1, r2"):
        world.logs["r1"].read(LogFilter(node="r9"))


async def test_a_node_that_does_not_answer_holds_nobody_up_for_long(world: World) -> None:
    world.start("r1", "r2")
    world.tell("r1", "one", 1)
    world.mesh.loses = lambda message: message.topic is Topic.LOG
    read = await history(world.logs["r1"])
    assert read.messages == ["one"]
    assert read.texts == ["r2 does not answer: its log is missing"]


async def test_a_follower_misses_nothing_of_a_node_whose_link_was_down(world: World) -> None:
    world.start("r1", "r2")
    world.tell("r2", "before", 1)
    reader = world.logs["r1"].read(FOLLOW)
    read = await until(reader, count(1))
    world.mesh.down.add("r2")
    world.tell("r2", "meanwhile", 2)
    await until(reader, lambda read: bool(read.notices), read)
    world.mesh.down.clear()
    await until(reader, count(2), read)
    assert read.messages == ["before", "meanwhile"]
    assert read.notices == [(NoticeKind.MISSING, "r2"), (NoticeKind.BACK, "r2")]
    reader.close()


async def test_a_link_that_is_down_for_a_moment_is_no_news_to_a_follower(world: World) -> None:
    world.start("r1", "r2", limits=replace(LIMITS, grace=60.0))
    reader = world.logs["r1"].read(FOLLOW)
    assert (await reader.next(0.05)).records == ()
    world.mesh.down.add("r2")
    assert (await reader.next(0.1)).notices == ()
    world.mesh.down.clear()
    world.tell("r2", "here again", 1)
    read = await until(reader, count(1))
    assert (read.messages, read.notices) == (["here again"], [])
    reader.close()


async def test_messages_that_are_lost_are_asked_for_again(world: World) -> None:
    """Nearly every other one is lost, in both directions."""
    world.start("r1", "r2", limits=replace(LIMITS, renew=0.03))
    for second in range(40):
        world.tell("r2", f"{second}", second)
    chance = random.Random(7)
    world.mesh.loses = lambda message: chance.random() < 0.4
    reader = world.logs["r1"].read(FOLLOW)
    read = await until(reader, count(40))
    assert read.messages == [f"{second}" for second in range(40)]
    reader.close()


async def test_a_link_that_takes_no_answer_gets_it_later(world: World) -> None:
    world.start("r1", "r2")
    reader = world.logs["r1"].read(FOLLOW)
    await reader.next(0.1)
    world.mesh.wires["r2"].refuses = True
    world.tell("r2", "late", 1)
    assert (await reader.next(0.1)).records == ()
    world.mesh.wires["r2"].refuses = False
    assert (await until(reader, count(1))).messages == ["late"]
    reader.close()


async def test_a_slow_reader_loses_records_and_is_told_how_many(world: World) -> None:
    world.start("r1")
    world.start("r2", ring=LogRing(records=20))
    reader = world.logs["r1"].read(FOLLOW)
    await reader.next(0.1)
    for number in range(1, 101):
        world.tell("r2", f"{number}", 1)
        await asyncio.sleep(0.001)
    read = await until(reader, lambda read: bool(read.records) and read.messages[-1] == "100")
    assert len(read.records) + read.dropped == 100
    assert read.dropped >= 60
    assert read.messages == sorted(read.messages, key=int)
    assert f"{read.dropped} records of r2 were dropped before they could be read" in read.texts
    reader.close()


async def test_a_burst_is_read_without_flooding_the_link(world: World) -> None:
    """Each page is asked for: no more than one is ever on its way."""
    world.start("r1", "r2")
    for _ in range(500):
        world.tell("r2", "é" * 2000, 1)
    await history(world.logs["r1"])
    asked = [m for _, m in world.mesh.wires["r1"].sent if m.topic is Topic.LOG_ASK]
    pages = [m for _, m in world.mesh.wires["r2"].sent if m.topic is Topic.LOG]
    assert len(pages) == len(asked)
    assert max(len(json.dumps(page.body)) for page in pages) < 256 * 1024


async def test_the_other_nodes_forget_a_reader_that_ends_or_falls_silent(world: World) -> None:
    world.start("r1", "r2", limits=replace(LIMITS, expire=0.1))
    closed, silent = world.logs["r1"].read(FOLLOW), world.logs["r1"].read(FOLLOW)
    for reader in (closed, silent):
        await reader.next(0.1)
    closed.close()
    await asyncio.sleep(0.15)
    before = len(world.mesh.wires["r2"].sent)
    world.tell("r2", "nobody hears it", 1)
    await asyncio.sleep(0.1)
    assert len(world.mesh.wires["r2"].sent) == before
    assert (await until(silent, count(1))).messages == ["nobody hears it"]
    silent.close()


async def test_too_many_readers_cost_the_ones_that_asked_first(world: World) -> None:
    world.start("r1", "r2", limits=replace(LIMITS, readers=2, renew=60.0))
    readers = [world.logs["r1"].read(FOLLOW) for _ in range(4)]
    for reader in readers:
        await reader.next(0.05)
    before = len(world.mesh.wires["r2"].sent)
    world.tell("r2", "x", 1)
    await asyncio.sleep(0.1)
    assert len(world.mesh.wires["r2"].sent) == before + 2
    for reader in readers:
        reader.close()


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"reader": "x" * 100, "ask": 1},
        {"reader": "a", "ask": "1"},
        {"reader": "a", "ask": 1, "filter": {"level": "loud"}},
        {"reader": "a", "ask": 1, "after": [1, -1]},
        {"reader": "a", "ask": 1, "filter": []},
        {"reader": "a", "ask": 1, "filter": "all"},
    ],
)
async def test_a_question_that_makes_no_sense_is_not_answered(world: World, body: dict[str, Any]) -> None:
    world.start("r1", "r2")
    await asyncio.sleep(0.01)
    world.mesh.deliver("r2", "r1", Message(topic=Topic.LOG_ASK, body=body))
    answers = [m for _, m in world.mesh.wires["r1"].sent]
    assert answers == [] or body.get("filter") == []
    world.tell("r1", "alive", 1)
    assert (await history(world.logs["r2"])).messages == ["alive"]


async def test_a_node_cannot_speak_for_another_or_repeat_itself(world: World) -> None:
    world.start("r1", "r2")
    world.tell("r2", "mine", 1)
    reader = world.logs["r1"].read(FOLLOW)
    read = await until(reader, count(1))
    await reader.next(0.05)
    asked = [m for _, m in world.mesh.wires["r1"].sent if m.topic is Topic.LOG_ASK][-1]
    forged = {
        "node": "r1", "session": 1, "sequence": 9, "time": "2026-01-31T12:00:00.000000Z",
        "level": "info", "logger": "t", "message": "forged",
    }  # fmt: skip
    body = {
        "reader": asked.body["reader"],
        "ask": asked.body["ask"],
        "upto": [1, 9],
        "records": [
            forged,
            {**forged, "node": "r2", "sequence": 1},
            {**forged, "node": "r2", "message": "9"},
        ],
    }
    for wrong in ({**body, "records": "x"}, {**body, "upto": "x"}, {**body, "ask": 999}):
        world.mesh.deliver("r2", "r1", Message(topic=Topic.LOG, body=wrong))
    world.mesh.deliver("r2", "r1", Message(topic=Topic.LOG, body=body))
    await until(reader, count(2), read)
    assert read.messages == ["mine", "9"]
    reader.close()


class Shelf:
    """A LogArchive in memory."""

    def __init__(self, *records: LogRecord) -> None:
        self.records = list(records)
        self.broken = False

    async def load(self, most: int) -> tuple[LogRecord, ...]:
        if self.broken:
            raise StoreUnavailable("the disk is gone")
        return tuple(self.records[-most:])

    def write(self, record: LogRecord) -> None:
        self.records.append(record)


def earlier(sequence: int) -> LogRecord:
    return LogRecord(
        node="r1",
        session=1,
        sequence=sequence,
        time=f"2026-01-31T11:00:{sequence:02}.000000Z",
        level=LogLevel.INFO,
        logger="test",
        message=f"earlier {sequence}",
    )


async def test_what_an_earlier_run_said_is_shown_after_a_restart_also_on_other_nodes(world: World) -> None:
    shelf = Shelf(earlier(1), earlier(2))
    world.start("r1", session=2, archive=shelf)
    world.start("r2")
    world.tell("r1", "now", 1)
    assert (await history(world.logs["r2"])).messages == ["earlier 1", "earlier 2", "now"]
    since = LogFilter(since="2026-01-31T11:00:02.000000Z")
    assert (await history(world.logs["r1"], since)).messages == ["earlier 2", "now"]
    assert [record.session for record in shelf.records] == [1, 1, 2]


async def test_a_follower_of_a_node_that_restarts_misses_nothing_and_gets_nothing_twice(world: World) -> None:
    shelf = Shelf()
    world.start("r2")
    world.start("r1", archive=shelf)
    world.tell("r1", "first run", 1)
    reader = world.logs["r2"].read(FOLLOW)
    read = await until(reader, count(1))
    world.mesh.down.add("r1")
    world.tell("r1", "last words", 2)
    await reader.next(0.05)
    shelf.records.sort(key=lambda record: record.position)
    world.start("r1", session=2, archive=shelf)
    world.mesh.down.clear()
    world.tell("r1", "second run", 3)
    await until(reader, count(3), read)
    assert read.messages == ["first run", "last words", "second run"]
    reader.close()


async def test_an_archive_that_cannot_be_read_costs_only_what_is_in_it(world: World) -> None:
    shelf = Shelf(earlier(1))
    shelf.broken = True
    world.start("r1", session=2, archive=shelf)
    world.tell("r1", "now", 1)
    assert (await history(world.logs["r1"])).messages == ["now"]
