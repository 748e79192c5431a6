"""The dialling side: one attempt, and what its failure says about the other host."""

from __future__ import annotations

import errno
import ssl
from collections.abc import Iterator
from typing import Any

import aiohttp
from yarl import URL

from reconciler.adapters.mesh.door import tls_words
from reconciler.adapters.mesh.frames import FrameRefused
from reconciler.adapters.mesh.handshake import Refused
from reconciler.adapters.mesh.options import Limits
from reconciler.adapters.mesh.wire import CLOSE_PATIENCE, MESSAGE_LIMIT, PATH, Wire
from reconciler.ports.transport import Endpoint, LinkState

_SPREAD = 0.05
"""Seconds over which first attempts are spread."""
_ALIVE_FOR = 1.0
"""Seconds after which a link counts as having worked."""


class Dialler:
    """Use it in `async with`."""

    def __init__(self, tls: ssl.SSLContext | None) -> None:
        self._tls = tls
        trace = aiohttp.TraceConfig()
        trace.on_request_redirect.append(_refuse_redirect)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, force_close=True, use_dns_cache=False),
            cookie_jar=aiohttp.DummyCookieJar(),
            trace_configs=[trace],
        )

    async def __aenter__(self) -> Dialler:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._session.close()

    async def dial(self, endpoint: Endpoint) -> Wire:
        """A connection that has proven nothing yet. Raises what `explain` explains."""
        url = URL.build(
            scheme="http" if self._tls is None else "https",
            host=endpoint.address,
            port=endpoint.port,
            path=PATH,
        )
        ws = await self._session.ws_connect(
            url,
            ssl=self._tls if self._tls is not None else True,
            max_msg_size=MESSAGE_LIMIT,
            timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_PATIENCE),
        )
        return Wire(ws, transport=ws.get_extra_info, remote=f"{endpoint.address} port {endpoint.port}")


def pause(limits: Limits, failures: int, jitter: float) -> float:
    """Seconds before the next attempt; the first one after a loss comes at once, but not everybody's at the
    same moment. `jitter` in [0, 1)."""
    if failures == 0:
        return _SPREAD * jitter
    base = min(limits.retry_last, limits.retry_first * 2.0 ** min(failures - 1, 16))
    return base * (1.0 - 0.25 * jitter)


def failures_after(lived: float, before: int) -> int:
    """Failures in a row, after a link that lived for so many seconds has ended."""
    return 0 if lived >= _ALIVE_FOR else before + 1


Failure = (OSError, aiohttp.ClientError, TimeoutError, Refused, FrameRefused, ValueError)
"""What an attempt may end with. ValueError: an address that is none."""


def explain(error: BaseException, endpoint: Endpoint, limits: Limits, *, tls: bool) -> tuple[LinkState, str]:
    """The state of the link after a failed attempt, and why in words."""
    where = f"{endpoint.address} port {endpoint.port}"
    for each in _chain(error):
        if isinstance(each, ssl.SSLError) and not isinstance(each, aiohttp.ClientError):
            return LinkState.DENIED, f"{where}: {_tls_reason(each)}"
    match error:
        case Refused():
            return LinkState.DENIED, f"{where}: {error.words}"
        case FrameRefused() | aiohttp.ClientResponseError() | aiohttp.ClientPayloadError():
            return LinkState.DENIED, f"{where}: what answers there is not vcl's mesh"
        case TimeoutError():
            return LinkState.UNREACHABLE, f"no answer from {where} within {limits.dial:g} s"
        case aiohttp.ClientConnectorDNSError():
            return LinkState.UNREACHABLE, f"the name {endpoint.address} cannot be resolved"
        case OSError() if error.errno == errno.ECONNREFUSED:
            return LinkState.REFUSED, f"the host of {where} lives, and nobody listens there"
        case aiohttp.ClientConnectorError() if error.os_error.errno == errno.ECONNREFUSED:
            return LinkState.REFUSED, f"the host of {where} lives, and nobody listens there"
        case aiohttp.ClientConnectorError():
            words = error.os_error.strerror or str(error.os_error)
            return LinkState.UNREACHABLE, f"{where}: {words}"
        case ValueError():
            return LinkState.UNREACHABLE, f"{endpoint.address!r} is not an address"
        case aiohttp.ServerDisconnectedError() if tls:
            # Whoever refuses a client's certificate just hangs up: asyncio does not send the alert.
            words = "it hung up once TLS was set up; perhaps it refuses our certificate, its log says more"
            return LinkState.DENIED, f"{where}: {words}"
        case _:
            return LinkState.CONNECTING, f"{where} closed the connection before it was a link"


def _tls_reason(error: ssl.SSLError) -> str:
    reason = (error.reason or "").upper()
    if "WRONG_VERSION_NUMBER" in reason or "HTTP_REQUEST" in reason:
        return "it does not speak TLS; mesh.tls must be the same on all nodes"
    if "ALERT" in reason:
        words = reason.replace("_", " ").lower()
        return f"it refuses our certificate or TLS ({words}); are both of the same cluster's CA?"
    return tls_words(error)


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    todo: list[BaseException | None] = [error]
    while todo:
        each = todo.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        todo += [each.__cause__, each.__context__, getattr(each, "os_error", None)]


async def _refuse_redirect(*_: Any) -> None:
    raise aiohttp.ClientPayloadError("a redirection")
