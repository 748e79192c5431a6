"""GET power, POST power/shutdown and power/start: the whole cluster off, and on again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiohttp import web

from reconciler.adapters.http_api import requests
from reconciler.adapters.http_api.errors import BadRequest, json_response
from reconciler.loops.power_requests import PARALLEL, PowerDesk, ShutdownRequest
from reconciler.resources.codec import encode

DESK = web.AppKey("power", PowerDesk)
LONGEST_REASON = 500


async def show(request: web.Request) -> web.StreamResponse:
    """GET power"""
    return json_response(request.app[DESK].view())


async def shut_down(request: web.Request) -> web.StreamResponse:
    """POST power/shutdown"""
    data = await requests.body(request, allowed=("deadline", "reason", "powerOffHosts", "cephFlags"))
    wanted = ShutdownRequest(
        deadline=_seconds(data, ShutdownRequest().deadline),
        reason=requests.text(data, "reason")[:LONGEST_REASON] if "reason" in data else "",
        power_off=requests.boolean(data, "powerOffHosts"),
        ceph_flags=requests.boolean(data, "cephFlags"),
    )
    return json_response(encode(await request.app[DESK].shut_down(wanted)))


async def start(request: web.Request) -> web.StreamResponse:
    """POST power/start"""
    data = await requests.body(request, allowed=("parallel",))
    parallel = data.get("parallel", PARALLEL)
    if not isinstance(parallel, int) or isinstance(parallel, bool):
        raise BadRequest("parallel must be a whole number")
    return json_response(encode(await request.app[DESK].start(parallel)))


def _seconds(data: Mapping[str, Any], default: float) -> float:
    value = data.get("deadline", default)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise BadRequest("deadline must be a number of seconds")
    return float(value)
