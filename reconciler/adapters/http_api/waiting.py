"""What the API says while the daemon waits for its store: why, instead of a socket that is not there."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from reconciler.adapters.http_api.errors import errors_as_status
from reconciler.resources.errors import StoreUnavailable


def waiting_app(reason: Callable[[], str]) -> web.Application:
    """An application that answers everything with 503 and `reason`, but for /healthz: the daemon is alive."""

    async def refuse(request: web.Request) -> web.StreamResponse:
        raise StoreUnavailable(
            f"vcld waits for its store: {reason() or 'not answered yet'}",
            cure="guests run on meanwhile; look at `ceph status`",
        )

    async def alive(request: web.Request) -> web.StreamResponse:
        return web.Response(text="ok")

    app = web.Application(middlewares=[errors_as_status])
    app.router.add_get("/healthz", alive)
    app.router.add_route("*", "/{path:.*}", refuse)
    return app
