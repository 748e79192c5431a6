"""The daemon about itself: version, health, metrics, status."""

from __future__ import annotations

from aiohttp import web

from reconciler.adapters.http_api.errors import json_response
from reconciler.adapters.http_api.services import SERVICES
from reconciler.adapters.metrics import object_samples, process_samples, render
from reconciler.ports.manifests import HeldDeletions


async def version(request: web.Request) -> web.StreamResponse:
    """GET /version"""
    return json_response(dict(request.app[SERVICES].version()))


async def healthz(request: web.Request) -> web.StreamResponse:
    """GET /healthz"""
    return _health(request.app[SERVICES].live())


async def readyz(request: web.Request) -> web.StreamResponse:
    """GET /readyz"""
    return _health(request.app[SERVICES].ready())


def _health(problems: tuple[str, ...]) -> web.Response:
    return web.Response(text="\n".join(problems) or "ok", status=503 if problems else 200)


async def metrics(request: web.Request) -> web.StreamResponse:
    """GET /metrics"""
    services = request.app[SERVICES]
    text = render([*process_samples(), *object_samples(services.objects), *services.metrics()])
    return web.Response(text=text, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})


async def status(request: web.Request) -> web.StreamResponse:
    """GET /apis/vcl/v1/status"""
    services = request.app[SERVICES]
    return json_response({**services.status(), "heldDeletions": _held(services.manifests.held())})


async def placement(request: web.Request) -> web.StreamResponse:
    """GET /apis/vcl/v1/placement"""
    return json_response(dict(await request.app[SERVICES].placement()))


def _held(held: HeldDeletions | None) -> dict[str, object] | None:
    if held is None:
        return None
    objects = [{"kind": kind, "name": name} for kind, name in held.objects]
    return {"id": held.id, "reason": held.reason, "objects": objects}
