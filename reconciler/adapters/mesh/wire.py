"""One WebSocket, dialled or accepted, as the mesh uses it: whole binary messages, or the end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Mapping
from typing import Any

from aiohttp import ClientError, ClientWebSocketResponse, WSMsgType
from aiohttp.http_websocket import WebSocketError
from aiohttp.web import WebSocketResponse

from reconciler.adapters.mesh.frames import FRAME_LIMIT, FrameProblem, FrameRefused

PATH = "/vcl/mesh"
MESSAGE_LIMIT = FRAME_LIMIT + 1
"""What aiohttp may hand over; it refuses what is larger before it is read."""
CLOSE_PATIENCE = 0.5
"""Seconds for the other end to answer a close."""
_TOO_BIG = 1009
_USER_TIMEOUT = 5000
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 3), (socket.TCP_KEEPINTVL, 1), (socket.TCP_KEEPCNT, 3))


class Wire:
    """`remote` is for the log; `certified`: the names in the other end's certificate, None without TLS."""

    def __init__(
        self, ws: ClientWebSocketResponse[Any] | WebSocketResponse, *, transport: Any, remote: str
    ) -> None:
        self.remote = remote
        self._ws = ws
        self._socket = transport("socket")
        certificate = transport("peercert")
        self.certified = None if transport("sslcontext") is None else names_in(certificate or {})
        if self._socket is not None:
            harden(self._socket)

    async def send(self, data: bytes) -> None:
        """Returns when there is room for more. Raises ConnectionError."""
        try:
            await self._ws.send_bytes(data)
        except ClientError as error:
            raise ConnectionResetError("the connection was closed") from error

    async def receive(self, limit: int = FRAME_LIMIT) -> bytes:
        """The next message. Raises ConnectionError, and FrameRefused for what is not one of the mesh's."""
        message = await self._ws.receive()
        if message.type is WSMsgType.BINARY:
            if len(message.data) > limit:
                raise FrameRefused(FrameProblem.OVERSIZED, f"{len(message.data)} bytes")
            return bytes(message.data)
        if message.type is WSMsgType.ERROR:
            raise _translated(message.data)
        if message.type in (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED):
            cause = self._ws.exception()
            raise ConnectionResetError("the other end closed the connection") from cause
        raise FrameRefused(FrameProblem.MALFORMED, f"a {message.type.name} message")

    async def close(self) -> None:
        """Send what is queued, say goodbye, and do not wait long for the answer."""
        with contextlib.suppress(ConnectionError, ClientError, TimeoutError):
            async with asyncio.timeout(CLOSE_PATIENCE):
                await self._ws.close()
        self.abort()

    def abort(self) -> None:
        """End it now; every call under way ends with ConnectionError."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)


def harden(sock: Any) -> None:
    """A host that vanished is noticed within seconds, whether something was sent or not."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _USER_TIMEOUT)


def names_in(certificate: Mapping[str, Any]) -> frozenset[str]:
    """The common name and the DNS names, of what `getpeercert` gives."""
    common = {value for part in certificate.get("subject", ()) for key, value in part if key == "commonName"}
    return frozenset(
        common | {value for kind, value in certificate.get("subjectAltName", ()) if kind == "DNS"}
    )


def _translated(error: Any) -> Exception:
    if isinstance(error, WebSocketError):
        problem = FrameProblem.OVERSIZED if error.code == _TOO_BIG else FrameProblem.MALFORMED
        return FrameRefused(problem, str(error))
    lost = ConnectionResetError(f"the connection broke: {error}")
    lost.__cause__ = error if isinstance(error, BaseException) else None
    return lost
