"""Watches and logs over HTTP: one JSON line for each change, and a BOOKMARK when there is nothing to tell.

Invariants: memory does not grow with a slow reader (the watch keeps one entry for each object, and a line is
made only when the one before is on its way); one that takes nothing for `stall` seconds is dropped.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from enum import StrEnum
from typing import Any

from aiohttp import web

from reconciler.adapters.http_api.errors import status_of
from reconciler.adapters.http_api.services import SERVICES
from reconciler.loops.object_views import dump_json
from reconciler.loops.watches import WatchType
from reconciler.resources.errors import VclError
from reconciler.resources.kinds import API_VERSION

log = logging.getLogger(__name__)

STOPPING = web.AppKey("stopping", asyncio.Event)
"""Set when the daemon stops: streams end, so that their readers know at once."""

Line = tuple[StrEnum, bytes]
Lines = Callable[[float], Awaitable[tuple[Sequence[Line], int] | None]]
"""Called with the longest time to wait, in seconds: the lines (type, object as JSON) that are new, and the
revision that the reader is up to date with afterwards; None: that was all."""

CHUNK = 64 * 1024


def line(type: StrEnum, document: bytes) -> bytes:
    """One line of a watch."""
    return b'{"type":"%s","object":%s}\n' % (type.value.encode(), document)


async def stream(request: web.Request, kind: str, lines: Lines) -> web.StreamResponse:
    """Answer with lines until the reader goes away or the daemon stops."""
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Cache-Control": "no-store"})
    stall = request.app[SERVICES].limits.stall
    async with asyncio.timeout(stall):
        await response.prepare(request)
    try:
        async with aclosing(_chunks(request, kind, lines)) as chunks:
            async for data in chunks:
                async with asyncio.timeout(stall):
                    await response.write(data)
        async with asyncio.timeout(stall):
            await response.write_eof()
    except TimeoutError:
        log.warning("%s: a reader took nothing for %g s and is dropped", request.path_qs, stall)
        _abort(request)
    except (ConnectionResetError, ConnectionAbortedError, BrokenPipeError):
        log.debug("%s: the reader has gone", request.path_qs)
    return response


async def expired(request: web.Request, error: VclError) -> web.StreamResponse:
    """The answer to a watch that cannot begin: one ERROR line."""

    async def once(timeout: float) -> tuple[list[Line], int]:
        raise error

    return await stream(request, "", once)


async def _chunks(request: web.Request, kind: str, lines: Lines) -> AsyncGenerator[bytes, None]:
    """The lines, joined to pieces of a reasonable size."""
    stopping, silence = request.app[STOPPING], request.app[SERVICES].limits.bookmark
    while not stopping.is_set() and not _gone(request):
        try:
            found = await _unless(stopping, lines(silence))
        except VclError as error:
            yield line(WatchType.ERROR, dump_json(status_of(error)))
            return
        if found is None:
            return
        new, revision = found
        piece = bytearray()
        for type, document in new or [(WatchType.BOOKMARK, _bookmark(kind, revision))]:
            piece += line(type, document)
            if len(piece) > CHUNK:
                yield bytes(piece)
                piece.clear()
        if piece:
            yield bytes(piece)


async def _unless(stopping: asyncio.Event, work: Awaitable[Any]) -> Any | None:
    """The result of `work`, or None when the daemon stops first."""
    task, stop = asyncio.ensure_future(work), asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait((task, stop), return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        for each in (task, stop):
            each.cancel()


def _bookmark(kind: str, revision: int) -> bytes:
    return dump_json(
        {"apiVersion": API_VERSION, "kind": kind, "metadata": {"resourceVersion": str(revision)}}
    )


def _gone(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()


def _abort(request: web.Request) -> None:
    """Close without waiting for what the reader does not take."""
    transport = request.transport
    if isinstance(transport, asyncio.WriteTransport):
        transport.abort()
