"""The API's UNIX socket: whom it lets in, and whose place it takes."""

from __future__ import annotations

import asyncio
import grp
import os
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web

from reconciler.adapters.http_api import serve
from reconciler.resources.errors import AlreadyExists, InvalidInput

Start = Callable[..., Awaitable[web.AppRunner]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    runners: list[web.AppRunner] = []

    async def started(path: Path, **options: object) -> web.AppRunner:
        runners.append(await serve(web.Application(), path, **options))  # type: ignore[arg-type]
        return runners[-1]

    yield started
    for runner in runners:
        await runner.cleanup()


async def answers(path: Path) -> bool:
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(b"GET / HTTP/1.0\r\n\r\n")
    line = await reader.readline()
    writer.close()
    return line.startswith(b"HTTP/1.")


async def test_it_serves_for_owner_and_group_only_and_leaves_nothing_else(
    start: Start, tmp_path: Path
) -> None:
    path = tmp_path / "run" / "vcld.sock"
    await start(path)
    assert await answers(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert os.listdir(path.parent) == ["vcld.sock"]


async def test_it_belongs_to_the_group_it_is_told(start: Start, tmp_path: Path) -> None:
    group = grp.getgrgid(os.getgid()).gr_name
    await start(tmp_path / "s", group=group, mode=0o600)
    found = (tmp_path / "s").stat()
    assert (found.st_gid, stat.S_IMODE(found.st_mode)) == (os.getgid(), 0o600)


async def test_a_dead_daemons_socket_is_replaced(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    await start(path)
    assert await answers(path)


async def test_another_daemons_socket_is_left_to_it(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "s"
    await start(path)
    with pytest.raises(AlreadyExists, match="another daemon answers"):
        await start(path)
    assert await answers(path)


async def test_a_file_in_the_way_is_left_alone(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_text("mine")
    with pytest.raises(InvalidInput, match="is no socket"):
        await start(path)
    assert path.read_text() == "mine"


async def test_too_long_a_path_is_named_with_its_limit(start: Start, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="107 at most"):
        await start(tmp_path / ("x" * 100) / "vcld.sock")


async def test_a_group_that_is_not_there_has_a_cure(start: Start, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="groupadd --system no-such-group"):
        await start(tmp_path / "s", group="no-such-group")
    assert os.listdir(tmp_path) == []


async def test_a_directory_that_cannot_be_made_has_a_cure(start: Start, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput, match="cannot be made"):
        await start(tmp_path / "file" / "sub" / "s")


async def test_the_socket_goes_with_the_daemon(start: Start, tmp_path: Path) -> None:
    runner = await start(tmp_path / "s")
    await runner.cleanup()
    assert os.listdir(tmp_path) == []


async def test_a_successors_socket_is_not_removed(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "s"
    runner = await start(path)
    path.rename(tmp_path / "old")
    await start(path)
    await runner.cleanup()
    assert await answers(path)
