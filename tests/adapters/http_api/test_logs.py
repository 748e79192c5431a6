"""The cluster log over HTTP: lines of JSON, to the end or as they come."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import ClientResponse

from reconciler.adapters.clock import SystemClock
from reconciler.loops.cluster_log import ClusterLog
from reconciler.resources.logrecords import LogEntry, LogLevel


@pytest.fixture
async def log() -> AsyncIterator[ClusterLog]:
    made = ClusterLog("r1", 3, SystemClock(), members=lambda: ["r2"])
    task = asyncio.create_task(made.run())
    yield made
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def log_api(idle_api: Any, log: ClusterLog) -> Any:
    idle_api.logs = log
    await idle_api.start(bookmark=0.3)
    return idle_api


def say(log: ClusterLog, message: str, second: int = 0, level: str = "info", vm: str | None = None) -> None:
    time = f"2026-01-31T12:00:{second:02}.000000Z"
    log.add(LogEntry(time=time, level=LogLevel(level), logger="t", message=message, vm=vm))


async def read(api: Any, query: str = "") -> list[dict[str, Any]]:
    """All lines to the end, without bookmarks."""
    async with api.session.get(f"logs?{query}") as response:
        assert response.status == 200
        lines = [json.loads(line) for line in (await response.content.read()).splitlines()]
    return [line for line in lines if line["type"] != "BOOKMARK"]


def messages(lines: list[dict[str, Any]]) -> list[str]:
    return [line["object"]["message"] for line in lines if line["type"] == "RECORD"]


async def next_line(response: ClientResponse, type: str) -> dict[str, Any]:
    async with asyncio.timeout(5):
        while True:
            line: dict[str, Any] = json.loads(await response.content.readline())
            if line["type"] == type:
                return line


async def test_what_was_said_is_read_to_its_end(log_api: Any, log: ClusterLog) -> None:
    say(log, "vm web: starts", vm="web")
    lines = await read(log_api)
    assert {"type": "MISSING", "object": {
        "kind": "MISSING", "node": "r2", "message": "r2 is not connected: its log is missing", "count": 0,
    }} in lines  # fmt: skip
    assert lines[-1] == {"type": "RECORD", "object": {
        "time": "2026-01-31T12:00:00.000000Z", "node": "r1", "level": "info", "logger": "t",
        "message": "vm web: starts", "session": 3, "sequence": 1, "vm": "web",
    }}  # fmt: skip


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", ["a", "b", "c"]),
        ("level=warning", ["b", "c"]),
        ("level=WARN&vm=web", ["c"]),
        ("tail=1", ["c"]),
        ("tail=0", []),
        ("since=2026-01-31T12:00:02Z", ["b", "c"]),
        ("since=60", []),
        ("since=999999999999", ["a", "b", "c"]),
        ("node=r1", ["a", "b", "c"]),
    ],
)
async def test_a_query_chooses(log_api: Any, log: ClusterLog, query: str, found: list[str]) -> None:
    say(log, "a", 1)
    say(log, "b", 2, "warning")
    say(log, "c", 3, "error", vm="web")
    assert messages(await read(log_api, query)) == found


@pytest.mark.parametrize(
    ("query", "code", "word"),
    [
        ("level=loud", 400, "not a level"),
        ("since=noon", 400, "not a time"),
        ("tail=-1", 400, "whole number"),
        ("follow=perhaps", 400, "not understood"),
        ("node=r9", 404, "there is no node"),
    ],
)
async def test_a_query_that_makes_no_sense_is_refused(log_api: Any, query: str, code: int, word: str) -> None:
    status, body = await log_api.get(f"logs?{query}")
    assert (status, word in body["message"]) == (code, True)


async def test_a_follower_gets_lines_as_they_come_and_bookmarks_in_silence(
    log_api: Any, log: ClusterLog
) -> None:
    async with log_api.session.get("logs?follow=1&node=r1") as response:
        assert json.loads(await response.content.readline())["type"] == "BOOKMARK"
        say(log, "first")
        assert (await next_line(response, "RECORD"))["object"]["message"] == "first"
        await next_line(response, "BOOKMARK")
        say(log, "second")
        assert (await next_line(response, "RECORD"))["object"]["message"] == "second"
        await log_api.stop_serving()
        async with asyncio.timeout(3):
            await response.content.read()


async def test_a_daemon_without_a_log_says_where_to_look(api: Any) -> None:
    status, body = await api.get("logs")
    assert (status, body["details"]["cure"]) == (404, "look at its standard error")
