"""GET of events, and their watch."""

from __future__ import annotations

from aiohttp import web

from reconciler.adapters.http_api import requests, streams
from reconciler.adapters.http_api.errors import BadRequest, json_response
from reconciler.adapters.http_api.services import SERVICES
from reconciler.loops.event_log import EventFilter, EventWatch
from reconciler.loops.object_views import dump_json
from reconciler.resources.codec import encode
from reconciler.resources.kinds import API_VERSION, find_kind


async def list_or_watch(request: web.Request) -> web.StreamResponse:
    """GET events"""
    log, wanted = request.app[SERVICES].events, _filter(request)
    if requests.flag(request, "watch"):
        watch = log.watch(wanted, requests.revision(request))
        try:
            return await streams.stream(request, "Event", _lines(watch))
        finally:
            watch.close()
    metadata = {"resourceVersion": str(log.revision)}
    items = [encode(event) for event in log.list(wanted)]
    return json_response(
        {"apiVersion": API_VERSION, "kind": "EventList", "metadata": metadata, "items": items}
    )


def _filter(request: web.Request) -> EventFilter:
    kind, name = request.query.get("kind"), request.query.get("name")
    info = find_kind(kind) if kind else None
    if kind and info is None:
        raise BadRequest(f"kind={kind[:60]!r} is not a kind")
    return EventFilter(kind=info.kind.value if info else None, name=name or None)


def _lines(watch: EventWatch) -> streams.Lines:
    async def next_lines(timeout: float) -> tuple[list[streams.Line], int]:
        batch = await watch.next(timeout)
        return [(type, dump_json(encode(event))) for type, event in batch.events], batch.revision

    return next_lines
