"""GET of objects, lists, tables and watches; DELETE."""

from __future__ import annotations

from aiohttp import web

from reconciler.adapters.http_api import requests, streams
from reconciler.adapters.http_api.services import SERVICES
from reconciler.loops.object_views import ObjectView, dump_json
from reconciler.loops.watches import ObjectWatch
from reconciler.resources.errors import ConflictError, Expired
from reconciler.resources.kinds import API_VERSION, Kind, info_for


async def list_or_watch(request: web.Request) -> web.StreamResponse:
    """GET KINDS"""
    services, kind = request.app[SERVICES], requests.kind_of(request)
    if requests.flag(request, "watch"):
        return await _watch(request, kind, None)
    found = services.objects.list(kind, requests.selector(request))
    if requests.as_table(request):
        body = services.objects.table(kind, found.views, found.revision)
    else:
        body = _list(kind, found.views, found.revision)
    return _json(body)


async def get_or_watch(request: web.Request) -> web.StreamResponse:
    """GET KINDS/NAME"""
    services, kind = request.app[SERVICES], requests.kind_of(request)
    name = request.match_info["name"]
    if requests.flag(request, "watch"):
        return await _watch(request, kind, name)
    view = services.objects.get(kind, name)
    if requests.as_table(request):
        return _json(services.objects.table(kind, (view,), services.objects.revision))
    return _json(view.json())


async def delete(request: web.Request) -> web.StreamResponse:
    """DELETE KINDS/NAME"""
    services, kind = request.app[SERVICES], requests.kind_of(request)
    name = request.match_info["name"]
    before = services.objects.get(kind, name)
    written = before.object["status"].get("source") is not None
    members = services.members if kind is Kind.NODE else None
    if members is not None and (not written or members.removable(name)):
        await members.forget(name)
    elif not written:
        raise ConflictError(
            f"{info_for(kind).singular} '{name}' comes from no manifest, so none can be removed",
            cure="it exists because a node reports it, and goes with that node",
        )
    if written:
        await services.manifests.delete(kind.value, name, purge=requests.flag(request, "purge"))
    return _json((services.objects.find(kind, name) or before).json())


def _json(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/json")


def _list(kind: Kind, views: tuple[ObjectView, ...], revision: int) -> bytes:
    head = dump_json(
        {
            "apiVersion": API_VERSION,
            "kind": f"{kind.value}List",
            "metadata": {"resourceVersion": str(revision)},
            "items": [],
        }
    )
    return head.removesuffix(b"]}") + b",".join(view.json() for view in views) + b"]}"


async def _watch(request: web.Request, kind: Kind, name: str | None) -> web.StreamResponse:
    objects = request.app[SERVICES].objects
    wanted, since, table = requests.selector(request), requests.revision(request), requests.as_table(request)
    try:
        watch = objects.watch(kind, name=name, selector=wanted, since=since)
    except Expired as error:
        return await streams.expired(request, error)
    try:
        return await streams.stream(request, kind.value, _lines(request, watch, table))
    finally:
        watch.close()


def _lines(request: web.Request, watch: ObjectWatch, table: bool) -> streams.Lines:
    objects = request.app[SERVICES].objects

    async def next_lines(timeout: float) -> tuple[list[streams.Line], int]:
        batch = await watch.next(timeout)
        if not table:
            return [(event.type, event.view.json()) for event in batch.events], batch.revision
        shown: list[streams.Line] = [
            (event.type, objects.table(watch.kind, (event.view,), batch.revision)) for event in batch.events
        ]
        return shown, batch.revision

    return next_lines
