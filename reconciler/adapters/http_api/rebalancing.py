"""GET and POST rebalance, POST rebalance/cancel: VMs moved to where they are better off."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from reconciler.adapters.http_api import requests
from reconciler.adapters.http_api.errors import BadRequest, json_response
from reconciler.adapters.http_api.services import SERVICES
from reconciler.loops.rebalance_requests import RebalanceRequests
from reconciler.resources.codec import encode
from reconciler.resources.errors import ConflictError
from reconciler.resources.rebalancing import RebalanceScope


async def show(request: web.Request) -> web.StreamResponse:
    """GET rebalance"""
    record = _rebalancing(request).record()
    return json_response(encode(record) if record is not None else {})


async def begin(request: web.Request) -> web.StreamResponse:
    """POST rebalance"""
    data = await requests.body(request, allowed=("scope", "dryRun", "index"))
    scope = _scope(data)
    if requests.boolean(data, "dryRun"):
        found = await _rebalancing(request).draft(scope)
        shown = {
            "moves": encode(found.moves),
            "kept": dict(found.kept),
            "uneven": list(found.uneven),
            "index": found.index,
        }
        return json_response(shown)
    index = requests.text(data, "index") if "index" in data else ""
    return json_response(encode(await _rebalancing(request).begin(scope, index)))


async def cancel(request: web.Request) -> web.StreamResponse:
    """POST rebalance/cancel"""
    await requests.body(request, allowed=())
    return json_response(encode(await _rebalancing(request).cancel()))


def _scope(data: dict[str, Any]) -> RebalanceScope:
    text = requests.text(data, "scope") if "scope" in data else RebalanceScope.FULL.value
    try:
        return RebalanceScope(text)
    except ValueError as error:
        known = ", ".join(RebalanceScope)
        raise BadRequest(f"scope {text[:40]!r} is not understood", cure=f"it is one of {known}") from error


def _rebalancing(request: web.Request) -> RebalanceRequests:
    found = request.app[SERVICES].rebalancing
    if found is None:
        raise ConflictError("this daemon moves nothing")
    return found
