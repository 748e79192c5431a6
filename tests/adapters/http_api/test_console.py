"""Consoles and screens over HTTP."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest
from aiohttp import WSCloseCode, WSMsgType

from reconciler.resources.status import Phase


@pytest.fixture
async def running(api: Any) -> Any:
    await api.desk.vm("web")
    await api.desk.run("web")
    return api


def connect(api: Any) -> Any:
    return api.session.ws_connect("virtualmachines/web/console")


async def test_bytes_go_both_ways(running: Any) -> None:
    async with connect(running) as socket:
        running.console.printed.put_nowait(b"login: \xff")
        assert await socket.receive_bytes() == b"login: \xff"
        await socket.send_bytes(b"root\n")
        await socket.send_str("ä")
        async with asyncio.timeout(5):
            while running.console.typed != "root\nä".encode():
                await asyncio.sleep(0.01)


async def test_it_ends_when_the_vm_stops(running: Any) -> None:
    async with connect(running) as socket:
        running.console.printed.put_nowait(b"")
        message = await socket.receive(timeout=5)
        assert message.type is WSMsgType.CLOSE
        assert (message.data, message.extra) == (WSCloseCode.OK, "the console has ended: the VM stopped")
    assert running.console.closed == 1


async def test_the_console_is_free_again_after_the_client_left(running: Any) -> None:
    async with connect(running) as socket:
        await socket.close()
    async with asyncio.timeout(5):
        while not running.console.closed:
            await asyncio.sleep(0.01)
    async with connect(running) as socket:
        running.console.printed.put_nowait(b"again")
        assert await socket.receive_bytes() == b"again"


async def test_a_guest_that_takes_nothing_ends_the_console(idle_api: Any) -> None:
    await idle_api.start(stall=0.1)
    await idle_api.desk.vm("web")
    await idle_api.desk.run("web")
    idle_api.console.takes.clear()
    async with connect(idle_api) as socket:
        await socket.send_bytes(b"x")
        message = await socket.receive(timeout=5)
    assert message.data == WSCloseCode.TRY_AGAIN_LATER
    assert idle_api.console.closed == 1


async def test_stopping_the_daemon_says_that_the_vm_runs_on(running: Any) -> None:
    async with connect(running) as socket:
        stopping = asyncio.create_task(running.stop_serving())
        message = await socket.receive(timeout=5)
        assert (message.data, message.extra) == (WSCloseCode.GOING_AWAY, "vcld is stopping; the VM runs on")
    await stopping


async def test_a_second_reader_is_refused_before_the_upgrade(running: Any) -> None:
    async with connect(running):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await connect(running)
    assert refused.value.status == 409


async def test_a_plain_get_is_told_to_use_a_websocket(running: Any) -> None:
    code, body = await running.get("virtualmachines/web/console")
    assert code == 400
    assert "vcl console web" in body["details"]["cure"]


@pytest.mark.parametrize("path", ["console/tail", "vnc", "console"])
async def test_nobody_has_no_console_and_no_screen(api: Any, path: str) -> None:
    code, _ = await api.get(f"virtualmachines/nobody/{path}")
    assert code == 404


async def test_the_tail_is_the_last_bytes(running: Any) -> None:
    async with running.session.get("virtualmachines/web/console/tail?bytes=7") as response:
        assert response.content_type == "text/plain"
        assert await response.read() == b"login: "


async def test_a_tail_has_a_limit(running: Any) -> None:
    code, body = await running.get("virtualmachines/web/console/tail?bytes=99999999")
    assert code == 400
    assert "1048576 at most" in body["message"]


async def test_a_vm_elsewhere_has_no_console_here(running: Any) -> None:
    running.console = None
    code, body = await running.get("virtualmachines/web/console/tail")
    assert (code, body["reason"]) == (409, "Conflict")


async def test_the_screen_has_a_host_and_a_port(running: Any) -> None:
    _, body = await running.get("virtualmachines/web/vnc")
    assert body == {"host": "127.0.0.1", "port": 5901, "display": ":1"}


async def test_an_ipv6_screen(running: Any) -> None:
    running.guest.vnc = "[::1]:5900"
    _, body = await running.get("virtualmachines/web/vnc")
    assert (body["host"], body["port"]) == ("::1", 5900)


async def test_without_a_screen_it_is_a_conflict(running: Any) -> None:
    running.guest.vnc = None
    assert (await running.get("virtualmachines/web/vnc"))[0] == 409


async def test_a_vm_that_does_not_run_has_no_screen(api: Any) -> None:
    await api.desk.vm("web")
    await api.desk.run("web", phase=Phase.FAILED)
    code, body = await api.get("virtualmachines/web/vnc")
    assert code == 409
    assert "is Failed" in body["message"]
