"""The listening side: lets connections in until they have proven who they are, or have had time enough.

Invariant: connections that have proven nothing are few, in all and from each address, and live for seconds;
so a flood of them costs neither memory nor the links that exist.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from reconciler.adapters.mesh.counts import Counts
from reconciler.adapters.mesh.options import Limits
from reconciler.adapters.mesh.wire import CLOSE_PATIENCE, MESSAGE_LIMIT, PATH, Wire
from reconciler.resources.errors import VclError

log = logging.getLogger(__name__)

_SILENT = logging.Logger("mesh", level=logging.CRITICAL + 1)
"""For aiohttp, which logs whatever strangers send; this module counts it and logs some of it."""
UNPROVEN_BYTES = 64 << 10
"""What a connection may send before its proof, HTTP headers included; a handshake is less than 2 KiB."""
_BACKLOG = 64
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_EXHAUSTED_PAUSE = 0.2


class Visit:
    """A connection before its proof. `settled` is set when it has become a link or has ended."""

    def __init__(self, remote: str) -> None:
        self.remote = remote
        self.settled = asyncio.Event()
        self.received = 0
        """Bytes, until it is trusted."""
        self.trusted = False
        """It knows the secret and is a member; set before it can know that, so all it says then is read."""
        self.proven = False
        self.refused = False

    def prove(self) -> None:
        """It is one of ours."""
        self.proven = True
        self.settled.set()

    def refuse(self) -> None:
        """It was refused, and that was counted; it stays a visit until it is closed."""
        self.refused = True


Welcome = Callable[[Wire, Visit], Awaitable[None]]
"""Does the handshake and keeps the link until it ends."""


class _Protocol(RequestHandler):
    """aiohttp's, takes little before the proof, and tells when the connection is gone."""

    __slots__ = ("sock", "visit")

    def __init__(self, server: web.Server, visit: Visit, sock: socket.socket, patience: float) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=patience,
            access_log=_SILENT,
            logger=_SILENT,
            lingering_time=0,
        )
        self.visit = visit
        self.sock = sock

    def data_received(self, data: bytes) -> None:
        visit = self.visit
        if not visit.trusted:
            visit.received += len(data)
            if visit.received > UNPROVEN_BYTES:
                _break(self.sock)
                return
        super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self.visit.settled.set()


class Door:
    """`run` until cancelled, then `close`."""

    def __init__(
        self,
        listener: socket.socket,
        *,
        tls: ssl.SSLContext | None,
        limits: Limits,
        counts: Counts,
        welcome: Welcome,
    ) -> None:
        self._listener = listener
        self._tls = tls
        self._limits = limits
        self._counts = counts
        self._welcome = welcome
        self._unproven: Counter[str] = Counter()
        self._server = web.Server(self._handle)

    async def run(self) -> None:
        """Accept connections for ever."""
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as visits:
            while True:
                try:
                    sock, address = await loop.sock_accept(self._listener)
                except OSError as error:
                    await self._cannot_accept(error)
                    continue
                remote = str(address[0]).removeprefix("::ffff:")
                if not self._has_room(remote):
                    self._refuse("crowd", f"a connection from {remote}: too many have proven nothing yet")
                    sock.close()
                    continue
                self._unproven[remote] += 1
                visits.create_task(self._let_in(sock, Visit(remote)))

    async def close(self) -> None:
        """End every connection."""
        self._listener.close()
        for protocol in self._server.connections:
            if isinstance(protocol, _Protocol):
                _break(protocol.sock)
        await self._server.shutdown(CLOSE_PATIENCE)

    def _has_room(self, remote: str) -> bool:
        limits = self._limits
        return (
            self._unproven.total() < limits.unproven and self._unproven[remote] < limits.unproven_per_address
        )

    def _refuse(self, which: str, detail: str) -> None:
        self._counts.refuse("refused_connections", which, detail)

    async def _cannot_accept(self, error: OSError) -> None:
        if error.errno in _EXHAUSTED:
            self._refuse("exhausted", f"connections: {error.strerror}")
            await asyncio.sleep(_EXHAUSTED_PAUSE)
        elif error.errno in (errno.EBADF, errno.EINVAL):
            raise VclError("mesh: the listening socket is gone", cure="restart vcld") from error

    async def _let_in(self, sock: socket.socket, visit: Visit) -> None:
        limits = self._limits
        try:
            async with asyncio.timeout(limits.handshake):
                await asyncio.get_running_loop().connect_accepted_socket(
                    lambda: _Protocol(self._server, visit, sock, limits.handshake), sock, ssl=self._tls
                )
                await visit.settled.wait()
            if visit.received > UNPROVEN_BYTES:
                self._refuse("oversized", f"{visit.remote} sent more than a handshake has")
            elif not visit.proven and not visit.refused:
                detail = f"{visit.remote} connected and left without a proof"
                self._counts.refuse("refused_connections", "no-hello", detail, level=logging.INFO)
        except TimeoutError:
            if not visit.refused:
                self._refuse("slow", f"{visit.remote} did not prove itself within {limits.handshake:g} s")
        except OSError as error:
            self._refuse("tls", f"{visit.remote}: {tls_words(error)}")
        finally:
            self._unproven[visit.remote] -= 1
            self._unproven += Counter()  # forget addresses without connections
            if not visit.proven:
                _break(sock)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        protocol = request.protocol
        assert isinstance(protocol, _Protocol)
        ws = web.WebSocketResponse(timeout=CLOSE_PATIENCE, max_msg_size=MESSAGE_LIMIT, compress=False)
        if request.path != PATH or not ws.can_prepare(request):
            return _not_found()
        await ws.prepare(request)
        wire = Wire(ws, transport=_extra(request), remote=protocol.visit.remote)
        try:
            await self._welcome(wire, protocol.visit)
        except Exception:
            log.exception("mesh: a connection from %s failed", protocol.visit.remote)
        await wire.close()
        return ws


def bind(address: str, port: int) -> socket.socket:
    """A listening socket, for IPv4 and IPv6 when `address` is empty. Raises VclError with the cure."""
    try:
        if address:
            family = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
            listener = socket.create_server((address, port), family=family, backlog=_BACKLOG)
        elif socket.has_dualstack_ipv6():
            listener = socket.create_server(
                ("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=_BACKLOG
            )
        else:
            listener = socket.create_server(("", port), backlog=_BACKLOG)
    except OSError as error:
        raise _cannot_listen(address, port, error) from error
    listener.setblocking(False)
    return listener


def _cannot_listen(address: str, port: int, error: OSError) -> VclError:
    cures = {
        errno.EADDRINUSE: "another program, perhaps another vcld, has this port; set mesh.port, or stop it",
        errno.EADDRNOTAVAIL: "no interface of this host has that address; correct mesh.bind",
        errno.EACCES: "ports below 1024 are for root; set mesh.port",
    }
    cure = cures.get(error.errno or 0, "correct mesh.bind and mesh.port")
    where = f"{address or '*'} port {port}"
    return VclError(f"mesh: cannot listen on {where}: {error.strerror or error}", cure=cure)


def tls_words(error: BaseException) -> str:
    """Why TLS failed, short."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is refused: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        reason = (error.reason or str(error)).replace("_", " ").lower()
        return f"no TLS connection: {reason}"
    return f"the connection broke: {error or type(error).__name__}"


def _break(sock: socket.socket) -> None:
    """By the socket: a TLS transport that was closed twice cannot be aborted any more (asyncio of 3.11)."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def _not_found() -> web.Response:
    response = web.Response(status=404, text="This is a port of vcl's mesh.\n")
    response.force_close()
    return response


def _extra(request: web.BaseRequest) -> Callable[[str], Any]:
    return lambda name: request.get_extra_info(name)
