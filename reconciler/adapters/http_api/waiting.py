"""What the API says while the daemon waits for its store: why, instead of a socket that is not there."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from reconciler.adapters.http_api.app import power_routes
from reconciler.adapters.http_api.errors import errors_as_status
from reconciler.adapters.http_api.power import DESK
from reconciler.adapters.http_api.services import Limits
from reconciler.loops.power_requests import PowerDesk
from reconciler.resources.errors import StoreUnavailable


def waiting_app(reason: Callable[[], str], desk: PowerDesk | None = None) -> web.Application:
    """An application that answers everything with 503 and `reason`, but for /healthz, since the daemon is
    alive, and for a shutdown, which must not wait for a store."""

    async def refuse(request: web.Request) -> web.StreamResponse:
        raise StoreUnavailable(
            f"vcld waits for its store: {reason() or 'not answered yet'}",
            cure="guests run on meanwhile; look at `ceph status`",
        )

    async def alive(request: web.Request) -> web.StreamResponse:
        return web.Response(text="ok")

    app = web.Application(middlewares=[errors_as_status])
    app.router.add_get("/healthz", alive)
    if desk is not None:
        app[DESK] = desk
        app.router.add_routes(power_routes(Limits()))
    app.router.add_route("*", "/{path:.*}", refuse)
    return app
