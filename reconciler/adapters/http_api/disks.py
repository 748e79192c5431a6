"""virtualmachines/NAME/disks: who holds a VM's images, and shutting holders out."""

from __future__ import annotations

from aiohttp import web

from reconciler.adapters.http_api import requests
from reconciler.adapters.http_api.errors import BadRequest, json_response
from reconciler.adapters.http_api.services import SERVICES
from reconciler.loops.disk_locks import DiskLocks
from reconciler.resources.codec import encode
from reconciler.resources.errors import ConflictError
from reconciler.resources.kinds import Kind


async def show(request: web.Request) -> web.StreamResponse:
    """GET virtualmachines/NAME/disks"""
    found = await _locks(request).show(request.match_info["name"])
    return json_response({"items": [encode(disk) for disk in found]})


async def unlock(request: web.Request) -> web.StreamResponse:
    """POST virtualmachines/NAME/disks/DISK/unlock; `clients`: all that were shown to hold the image."""
    data = await requests.body(request, allowed=("clients",))
    clients = data.get("clients")
    if not isinstance(clients, list) or not clients or not all(isinstance(each, str) for each in clients):
        raise BadRequest("clients: must be a list of addresses, at least one")
    name, disk = request.match_info["name"], request.match_info["disk"]
    gone = await _locks(request).unlock(name, disk, clients)
    return json_response({"items": [encode(holder) for holder in gone]})


def _locks(request: web.Request) -> DiskLocks:
    services = request.app[SERVICES]
    services.objects.get(Kind.VIRTUAL_MACHINE, request.match_info["name"])
    if services.disks is None:
        raise ConflictError("this daemon has no storage pools", cure="ask another node")
    return services.disks
