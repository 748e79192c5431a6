"""Looking at a guest: its screen's address, and what its console printed."""

from __future__ import annotations

from aiohttp import web

from reconciler.adapters.http_api import requests
from reconciler.adapters.http_api.errors import json_response
from reconciler.adapters.http_api.services import SERVICES, ApiServices
from reconciler.ports.controller import Console
from reconciler.resources.errors import ConflictError
from reconciler.resources.kinds import Kind
from reconciler.resources.status import Phase

FIRST_VNC_PORT = 5900
CALL_SECONDS = 5.0

_ON = frozenset({Phase.RUNNING, Phase.PAUSED, Phase.STOPPING, Phase.MIGRATING})


def require_console(services: ApiServices, name: str) -> Console:
    """The console of a VM. Raises NotFound (no such VM) and ConflictError (it has none here)."""
    services.objects.get(Kind.VIRTUAL_MACHINE, name)
    console = services.console_for(name)
    if console is None:
        raise ConflictError(
            f"the console of virtualmachine '{name}' cannot be reached from this node",
            cure=f"`vcl get vm {name}` shows whether and where it runs",
        )
    return console


def require_running(services: ApiServices, name: str) -> None:
    """Raises NotFound, and ConflictError for a VM that is not running."""
    status = services.objects.get(Kind.VIRTUAL_MACHINE, name).object["status"]
    if status.get("phase") in _ON:
        return
    why = f": {status['message']}" if status.get("message") else ""
    raise ConflictError(
        f"virtualmachine '{name}' is {status.get('phase')}{why}",
        cure=f"`vcl start {name}` starts it, `vcl describe vm {name}` says more",
    )


async def vnc(request: web.Request) -> web.StreamResponse:
    """GET .../vnc"""
    services, name = request.app[SERVICES], request.match_info["name"]
    require_running(services, name)
    guest = services.guest_for(name)
    info = await guest.info(name, timeout=CALL_SECONDS) if guest else None
    host, port = _address(info.vnc if info else None)
    if port is None:
        raise ConflictError(
            f"virtualmachine '{name}' has no VNC screen that this node knows of",
            cure=f"`vcl console {name}` shows its serial console",
        )
    return json_response({"host": host, "port": port, "display": f":{port - FIRST_VNC_PORT}"})


def _address(address: str | None) -> tuple[str, int | None]:
    """Host and port of `HOST:PORT`; an IPv6 host may be in brackets."""
    host, _, port = (address or "").rpartition(":")
    return (host.strip("[]"), int(port)) if host and port.isdigit() else ("", None)


async def console_tail(request: web.Request) -> web.StreamResponse:
    """GET .../console/tail"""
    services, name = request.app[SERVICES], request.match_info["name"]
    limit = requests.number(request, "bytes", default=4096, largest=services.limits.tail) or 0
    console = require_console(services, name)
    data = await console.tail(name, limit, timeout=CALL_SECONDS) if limit else b""
    return web.Response(body=data, content_type="text/plain", charset="utf-8")
