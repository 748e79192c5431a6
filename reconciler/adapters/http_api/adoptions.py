"""POST adopt: existing domains become VMs; what runs on this node goes on running."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from reconciler.adapters.http_api import requests
from reconciler.adapters.http_api.errors import BadRequest, json_response
from reconciler.adapters.http_api.services import SERVICES
from reconciler.loops.adoption import Wanted
from reconciler.resources.codec import encode
from reconciler.resources.errors import ConflictError


async def adopt(request: web.Request) -> web.StreamResponse:
    """POST adopt"""
    services = request.app[SERVICES]
    data = await requests.body(request, allowed=("domains", "dryRun"))
    domains = data.get("domains")
    if not isinstance(domains, list) or not domains:
        raise BadRequest("domains: must be a list of at least one domain")
    wanted = tuple(_wanted(entry, f"domains[{number}]") for number, entry in enumerate(domains))
    if services.adoptions is None:
        raise ConflictError("this daemon runs no domains", cure="ask another node")
    results = await services.adoptions.adopt(wanted, dry_run=requests.boolean(data, "dryRun"))
    return json_response({"results": [encode(result) for result in results]})


def _wanted(entry: Any, where: str) -> Wanted:
    if not isinstance(entry, dict):
        raise BadRequest(f"{where}: must be an object with name, content, domain, uuid and running")
    return Wanted(
        source=requests.text(entry, "name", f"{where}."),
        content=requests.content(entry, "content", f"{where}."),
        domain=requests.text(entry, "domain", f"{where}."),
        uuid=_uuid(entry.get("uuid"), where),
        running=requests.boolean(entry, "running"),
    )


def _uuid(value: Any, where: str) -> str:
    """A UUID as libvirt prints it, or nothing."""
    if value in (None, ""):
        return ""
    from uuid import UUID

    try:
        return str(UUID(str(value)))
    except ValueError as error:
        raise BadRequest(f"{where}.uuid: {str(value)[:60]!r} is no UUID") from error
