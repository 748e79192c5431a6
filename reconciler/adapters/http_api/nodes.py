"""POST nodes/NAME/VERB: what a person asks of a node, and their word that this boot of a host is over."""

from __future__ import annotations

from aiohttp import web

from reconciler.adapters.http_api import requests
from reconciler.adapters.http_api.errors import Handler, json_response
from reconciler.adapters.http_api.plans import plans_of
from reconciler.adapters.http_api.services import SERVICES
from reconciler.planning.confirming import Word
from reconciler.planning.node_intents import NodeVerb
from reconciler.resources.codec import encode
from reconciler.resources.errors import ConflictError
from reconciler.resources.kinds import Kind

LONGEST = 200
"""Characters of a name that a client gives itself."""


async def confirm_down(request: web.Request) -> web.StreamResponse:
    """POST nodes/NAME/confirm-down"""
    services, name = request.app[SERVICES], request.match_info["name"]
    data = await requests.body(request, allowed=("incident", "bootId", "by"))
    word = Word(node=name, incident=requests.text(data, "incident"), boot_id=requests.text(data, "bootId"))
    by = requests.text(data, "by")[:LONGEST]
    services.objects.get(Kind.NODE, name)
    if services.confirmations is None:
        raise ConflictError("this cluster is one node: nobody is fenced, and there is nothing to confirm")
    return json_response(encode(await services.confirmations.confirm_down(word, by)))


def node_verb_handler(verb: NodeVerb) -> Handler:
    """The handler of one verb; those that end a drain take `bringBack`."""
    allowed = ("bringBack",) if verb in (NodeVerb.UNCORDON, NodeVerb.MAINTENANCE_OFF) else ()

    async def handler(request: web.Request) -> web.StreamResponse:
        services, name = request.app[SERVICES], request.match_info["name"]
        data = await requests.body(request, allowed=allowed)
        await services.intents.apply_to_node(verb, name, bring_back=requests.boolean(data, "bringBack"))
        return web.Response(
            body=services.objects.get(Kind.NODE, name).json(), content_type="application/json"
        )

    return handler


async def drain_plan(request: web.Request) -> web.StreamResponse:
    """GET nodes/NAME/drain: what a drain would do."""
    found = await plans_of(request).drain(request.match_info["name"])
    stays = [{"vm": held.vm, "reason": held.reason} for held in found.held]
    return json_response({"moves": [encode(move) for move in found.moves], "stays": stays})
