"""Watches over HTTP: lines of JSON that follow the store."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import pytest
from aiohttp import ClientResponse

from reconciler.resources import keys
from reconciler.resources.kinds import Kind
from reconciler.resources.records import EventType


async def next_line(response: ClientResponse) -> dict[str, Any]:
    async with asyncio.timeout(5):
        line: dict[str, Any] = json.loads(await response.content.readline())
        return line


async def told(response: ClientResponse) -> tuple[str, str]:
    """Type and name of the next line that is no bookmark."""
    while True:
        line = await next_line(response)
        if line["type"] != "BOOKMARK":
            return line["type"], line["object"]["metadata"]["name"]


async def test_a_watch_from_the_start_tells_everything_then_what_changes(api: Any) -> None:
    await api.desk.vm("web")
    async with api.session.get("virtualmachines?watch=1") as response:
        assert await told(response) == ("ADDED", "web")
        await api.desk.run("web")
        assert await told(response) == ("MODIFIED", "web")
        await api.desk.put({}, deletes=(keys.spec(Kind.VIRTUAL_MACHINE, "web"),))
        assert await told(response) == ("DELETED", "web")


async def test_a_watch_goes_on_from_a_list(api: Any) -> None:
    await api.desk.vm("web")
    _, listed = await api.get("virtualmachines")
    version = listed["metadata"]["resourceVersion"]
    await api.desk.vm("db")
    async with api.session.get(f"virtualmachines?watch=1&resourceVersion={version}") as response:
        assert await told(response) == ("ADDED", "db")


async def test_a_version_that_is_too_old_gives_one_error_and_the_end(api: Any) -> None:
    async with api.session.get("virtualmachines?watch=1&resourceVersion=999999") as response:
        line = await next_line(response)
        assert (line["type"], line["object"]["code"]) == ("ERROR", 410)
        assert await response.content.read() == b""


async def test_a_table_watch_tells_tables_of_one_row(api: Any) -> None:
    await api.desk.vm("web")
    async with api.session.get("virtualmachines?watch=1&as=Table") as response:
        line = await next_line(response)
    assert line["type"] == "ADDED"
    assert [row["cells"][:2] for row in line["object"]["rows"]] == [["web", "Pending"]]
    assert line["object"]["columnDefinitions"][0]["name"] == "NAME"


async def test_one_object_can_be_watched(api: Any) -> None:
    await api.desk.vm("web")
    async with api.session.get("virtualmachines/db?watch=1") as response:
        await api.desk.vm("db")
        assert await told(response) == ("ADDED", "db")


async def test_a_quiet_watch_sends_bookmarks_with_the_version_it_is_at(idle_api: Any) -> None:
    await idle_api.start(bookmark=0.05)
    async with idle_api.session.get("virtualmachines?watch=1") as response:
        line = await next_line(response)
    assert line["type"] == "BOOKMARK"
    assert line["object"]["metadata"]["resourceVersion"] == str(idle_api.desk.cache.revision)


async def test_a_watch_ends_when_the_daemon_stops(api: Any) -> None:
    await api.desk.vm("web")
    async with api.session.get("virtualmachines?watch=1") as response:
        await next_line(response)
        async with asyncio.timeout(3):
            await api.stop_serving()
            assert await response.content.read() == b""


async def test_a_reader_that_takes_nothing_is_dropped_and_costs_no_memory(
    idle_api: Any, caplog: pytest.LogCaptureFixture
) -> None:
    await idle_api.start(stall=0.2)
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX) as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.setblocking(False)
        await loop.sock_connect(reader, str(idle_api.path))
        request = b"GET /apis/vcl/v1/virtualmachines?watch=1 HTTP/1.1\r\nHost: vcld\r\n\r\n"
        await loop.sock_sendall(reader, request)
        async with asyncio.timeout(10):
            number = 0
            while "took nothing" not in caplog.text:
                number += 1
                await idle_api.desk.vm("web", cloudInit={"userData": f"{number}" + "x" * 100_000})
                await asyncio.sleep(0.01)
    assert (await idle_api.get("status"))[0] == 200


async def test_events_are_listed_and_watched(api: Any) -> None:
    recorder = api.desk.recorder
    recorder.record(EventType.NORMAL, Kind.VIRTUAL_MACHINE, "web", "Started", "running on r1")
    recorder.record(EventType.WARNING, Kind.VIRTUAL_MACHINE, "db", "Failed", "no room")
    await recorder.flush()
    await api.desk.sync()
    _, body = await api.get("events?kind=VirtualMachine&name=web")
    assert [(item["reason"], item["count"]) for item in body["items"]] == [("Started", 1)]
    version = body["metadata"]["resourceVersion"]
    async with api.session.get(f"events?watch=1&name=web&resourceVersion={version}") as response:
        recorder.record(EventType.NORMAL, Kind.VIRTUAL_MACHINE, "web", "Started", "running on r1")
        await recorder.flush()
        line = await next_line(response)
    assert (line["type"], line["object"]["count"]) == ("MODIFIED", 2)


async def test_events_of_no_kind_at_all_are_a_bad_request(api: Any) -> None:
    code, body = await api.get("events?kind=Chair")
    assert (code, body["reason"]) == (400, "BadRequest")
