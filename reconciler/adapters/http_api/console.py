"""A serial console as a WebSocket: bytes both ways, until the client or the VM ends it.

Each direction reads only when the other side took what was read before, so that neither a fast guest nor a
fast client fills the daemon's memory.
"""

from __future__ import annotations

import asyncio
import logging

from aiohttp import WSCloseCode, WSMsgType, web

from reconciler.adapters.http_api.errors import BadRequest
from reconciler.adapters.http_api.guests import CALL_SECONDS, require_console, require_running
from reconciler.adapters.http_api.services import SERVICES
from reconciler.adapters.http_api.streams import STOPPING
from reconciler.ports.controller import Console, ConsoleStream
from reconciler.resources.errors import ControllerUnavailable, VclError

log = logging.getLogger(__name__)

MAX_MESSAGE = 256 * 1024
MAX_REASON = 123
HEARTBEAT = 20.0

Ending = tuple[WSCloseCode, str]


async def console(request: web.Request) -> web.StreamResponse:
    """GET .../console"""
    services, name = request.app[SERVICES], request.match_info["name"]
    socket = web.WebSocketResponse(heartbeat=HEARTBEAT, max_msg_size=MAX_MESSAGE, compress=False, timeout=2.0)
    if not socket.can_prepare(request).ok:
        require_console(services, name)
        raise BadRequest("a console is a WebSocket", cure=f"use `vcl console {name}`, or GET console/tail")
    console = require_console(services, name)
    require_running(services, name)
    stream = await _open(console, name)
    try:
        await socket.prepare(request)
        code, why = await _carry(request, socket, stream)
    finally:
        await _end(request, stream)
    await socket.close(code=code, message=_short(why))
    return socket


async def _open(console: Console, name: str) -> ConsoleStream:
    """The console's stream, or an error: a controller that misses its own deadline does not hold us up."""
    try:
        async with asyncio.timeout(CALL_SECONDS + 1.0):
            return await console.open(name, timeout=CALL_SECONDS)
    except TimeoutError as error:
        raise ControllerUnavailable(
            f"the console of virtualmachine '{name}' does not answer", cure="try again in a moment"
        ) from error


async def _end(request: web.Request, stream: ConsoleStream) -> None:
    try:
        async with asyncio.timeout(CALL_SECONDS):
            await stream.close()
    except (TimeoutError, VclError) as error:
        log.warning("%s: closing the console: %s", request.path, error or "it does not answer")


def _short(why: str) -> bytes:
    """What fits into a close frame, whole characters."""
    return why.encode()[:MAX_REASON].decode(errors="ignore").encode()


async def _carry(request: web.Request, socket: web.WebSocketResponse, stream: ConsoleStream) -> Ending:
    """Carry bytes both ways; returns why it ended."""
    stall = request.app[SERVICES].limits.stall
    tasks = [
        asyncio.create_task(_from_guest(socket, stream, stall)),
        asyncio.create_task(_to_guest(socket, stream, stall)),
        asyncio.create_task(_until_stopped(request.app[STOPPING])),
    ]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return next(_ending(request, task) for task in tasks if task in done)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _ending(request: web.Request, task: asyncio.Task[Ending]) -> Ending:
    try:
        return task.result()
    except VclError as error:
        return WSCloseCode.INTERNAL_ERROR, str(error)
    except TimeoutError:
        log.warning("%s: one side took nothing for too long", request.path)
        return WSCloseCode.TRY_AGAIN_LATER, "one side took nothing for too long"
    except (ConnectionError, OSError) as error:
        log.debug("%s: the connection ended: %s", request.path, error)
        return WSCloseCode.GOING_AWAY, "the connection ended"


async def _from_guest(socket: web.WebSocketResponse, stream: ConsoleStream, stall: float) -> Ending:
    while data := await stream.read():
        async with asyncio.timeout(stall):
            await socket.send_bytes(data)
    return WSCloseCode.OK, "the console has ended: the VM stopped"


async def _to_guest(socket: web.WebSocketResponse, stream: ConsoleStream, stall: float) -> Ending:
    async for message in socket:
        if message.type not in (WSMsgType.BINARY, WSMsgType.TEXT):
            break
        data = message.data if isinstance(message.data, bytes) else message.data.encode()
        async with asyncio.timeout(stall):
            await stream.write(data)
    return WSCloseCode.OK, ""


async def _until_stopped(stopping: asyncio.Event) -> Ending:
    await stopping.wait()
    return WSCloseCode.GOING_AWAY, "vcld is stopping; the VM runs on"
