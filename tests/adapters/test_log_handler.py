"""What Python's logging says becomes entries of the cluster log."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from reconciler.adapters.log_handler import ClusterLogHandler
from reconciler.resources.logrecords import MESSAGE_LIMIT, LogEntry, LogLevel, parse_log_time


class Said:
    """A logger of its own, its handler, and what came out."""

    def __init__(self, waiting: int = 100) -> None:
        self.handler = ClusterLogHandler(waiting=waiting)
        self.log = logging.Logger("vcl.test", logging.DEBUG)
        self.log.addHandler(self.handler)
        self.entries: list[LogEntry] = []

    async def all(self) -> list[LogEntry]:
        for _ in range(3):
            await asyncio.sleep(0)
        return self.entries

    async def last(self) -> LogEntry:
        return (await self.all())[-1]


@pytest.fixture
async def said() -> Said:
    made = Said()
    made.handler.connect(made.entries.append)
    return made


@pytest.fixture
def no_errors() -> Iterator[None]:
    """Errors of handlers are silent, as with `python -O` in production code."""
    before, logging.raiseExceptions = logging.raiseExceptions, False
    yield
    logging.raiseExceptions = before


async def test_an_entry_has_time_level_logger_and_message(said: Said) -> None:
    before = datetime.now(UTC).isoformat()
    said.log.warning("store %s: still busy", "a.db")
    entry = await said.last()
    assert (entry.level, entry.logger, entry.message) == (
        LogLevel.WARNING,
        "vcl.test",
        "store a.db: still busy",
    )
    assert parse_log_time(before) <= entry.time == parse_log_time(entry.time)


@pytest.mark.parametrize(
    ("number", "level"),
    [(5, "debug"), (10, "debug"), (20, "info"), (25, "info"), (30, "warning"), (40, "error"), (50, "error")],
)
async def test_every_level_of_python_has_one_here(said: Said, number: int, level: str) -> None:
    said.log.setLevel(1)
    said.log.log(number, "x")
    assert (await said.last()).level == level


@pytest.mark.parametrize(
    ("message", "vm"),
    [
        ("vm web1: Running -> Stopping", "web1"),
        ("vm r210II-1.example: bound", "r210II-1.example"),
        ("vm web1 is fine", None),
        ("a vm web1: no", None),
        ("vm -web: no", None),
        ("vms web: no", None),
    ],
)
async def test_the_vm_is_read_from_the_message(said: Said, message: str, vm: str | None) -> None:
    said.log.info("%s", message)
    assert (await said.last()).vm == vm


async def test_the_vm_that_a_caller_names_counts_more(said: Said) -> None:
    said.log.info("vm web: moved", extra={"vm": "db"})
    assert (await said.last()).vm == "db"
    said.log.info("vm web: moved", extra={"vm": 3})
    assert (await said.last()).vm == "web"


async def test_a_traceback_is_part_of_the_message_and_only_its_middle_is_cut(said: Said) -> None:
    try:
        raise ValueError("x" * (2 * MESSAGE_LIMIT) + " the end")
    except ValueError:
        said.log.exception("loop agent failed")
    message = (await said.last()).message
    assert message.startswith("loop agent failed\nTraceback")
    assert message.endswith(" the end")
    assert "characters]" in message
    assert len(message) <= MESSAGE_LIMIT


async def test_what_cannot_be_encoded_is_replaced(said: Said) -> None:
    said.log.info("file %s", "a\udcff.yaml", extra={"vm": "\udcff"})
    entry = await said.last()
    assert (entry.message, entry.vm) == ("file a?.yaml", "?")


async def test_what_was_said_before_the_cluster_log_is_there_is_told_then() -> None:
    said = Said(waiting=3)
    for number in range(5):
        said.log.info("%d", number)
    assert said.entries == []
    said.handler.connect(said.entries.append)
    assert [entry.message for entry in said.entries] == [
        "log: 2 records were dropped here: too many at once",
        "2",
        "3",
        "4",
    ]


async def test_disconnecting_tells_what_waits_and_keeps_what_comes(said: Said) -> None:
    said.log.info("before")
    said.handler.disconnect()
    said.log.info("after")
    assert [entry.message for entry in await said.all()] == ["before"]
    said.handler.connect(said.entries.append)
    assert [entry.message for entry in said.entries] == ["before", "after"]


async def test_threads_log_in_their_order_and_lose_nothing() -> None:
    said = Said(waiting=10_000)
    said.handler.connect(said.entries.append)

    def chatter(name: str) -> None:
        for number in range(500):
            said.log.info("%s %d", name, number)

    threads = [threading.Thread(target=chatter, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    await asyncio.to_thread(lambda: [thread.join(20) for thread in threads])
    messages = [entry.message for entry in await said.all()]
    for name in "abcd":
        assert [m for m in messages if m[0] == name] == [f"{name} {number}" for number in range(500)]


async def test_an_argument_that_logs_while_it_is_printed_does_not_recurse(said: Said) -> None:
    class Chatty:
        def __str__(self) -> str:
            said.log.info("I am printed: %s", self)
            return "chatty"

    said.log.info("%s", Chatty())
    assert [entry.message for entry in await said.all()] == ["chatty"]


async def test_a_sink_that_logs_does_not_hang_the_loop(said: Said) -> None:
    def sink(entry: LogEntry) -> None:
        said.entries.append(entry)
        if len(said.entries) < 5:
            said.log.info("again")

    said.handler.connect(sink)
    said.log.info("once")
    assert len(await said.all()) <= 5


@pytest.mark.usefixtures("no_errors")
async def test_a_log_call_with_wrong_arguments_fails_nobody(said: Said) -> None:
    said.log.info("%d", "three")
    said.log.info("fine")
    assert [entry.message for entry in await said.all()] == ["fine"]


async def test_a_log_call_after_the_loops_end_fails_nobody() -> None:
    said = Said()

    async def connect() -> None:
        said.handler.connect(said.entries.append)

    await asyncio.to_thread(lambda: asyncio.run(connect()))
    said.log.info("too late")
    assert said.entries == []
