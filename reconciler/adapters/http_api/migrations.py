"""POST virtualmachines/NAME/migrate and migrate-cancel: asking for a live migration, and for its end."""

from __future__ import annotations

from aiohttp import web

from reconciler.adapters.http_api import requests
from reconciler.adapters.http_api.services import SERVICES
from reconciler.loops.migration_requests import MigrationRequests
from reconciler.resources.errors import ConflictError
from reconciler.resources.kinds import Kind


async def migrate(request: web.Request) -> web.StreamResponse:
    """POST virtualmachines/NAME/migrate"""
    data = await requests.body(request, allowed=("to",))
    to = requests.text(data, "to") if "to" in data else ""
    record = await _migrations(request).request(request.match_info["name"], to=to)
    return _shown(request, record.id)


async def cancel(request: web.Request) -> web.StreamResponse:
    """POST virtualmachines/NAME/migrate-cancel"""
    await requests.body(request, allowed=())
    record = await _migrations(request).cancel(request.match_info["name"])
    return _shown(request, record.id)


def _migrations(request: web.Request) -> MigrationRequests:
    found = request.app[SERVICES].migrations
    if found is None:
        raise ConflictError("this daemon migrates nothing")
    return found


def _shown(request: web.Request, name: str) -> web.StreamResponse:
    view = request.app[SERVICES].objects.get(Kind.MIGRATION, name)
    return web.Response(body=view.json(), content_type="application/json")
