"""POST nodes/NAME/VERB: what a person asks of a node, and their word that this boot of a host is over."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from reconciler.adapters.http_api import requests
from reconciler.adapters.http_api.errors import BadRequest, Handler, json_response
from reconciler.adapters.http_api.plans import plans_of
from reconciler.adapters.http_api.services import SERVICES
from reconciler.planning.confirming import Word
from reconciler.planning.node_intents import NodeVerb
from reconciler.resources.codec import encode
from reconciler.resources.errors import ConflictError
from reconciler.resources.infrastructure import ShutdownPolicy
from reconciler.resources.kinds import Kind

LONGEST_TIMEOUT = 86_400
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
    """The handler of one verb; those that end a drain take `bringBack`, a shutdown how it goes."""
    allowed: tuple[str, ...] = ()
    if verb in (NodeVerb.UNCORDON, NodeVerb.MAINTENANCE_OFF):
        allowed = ("bringBack",)
    elif verb is NodeVerb.SHUTDOWN:
        allowed = ("policy", "timeoutSeconds")

    async def handler(request: web.Request) -> web.StreamResponse:
        services, name = request.app[SERVICES], request.match_info["name"]
        data = await requests.body(request, allowed=allowed)
        await services.intents.apply_to_node(
            verb,
            name,
            bring_back=requests.boolean(data, "bringBack"),
            policy=_policy(data),
            timeout_seconds=_timeout(data),
        )
        return web.Response(
            body=services.objects.get(Kind.NODE, name).json(), content_type="application/json"
        )

    return handler


def _policy(data: dict[str, Any]) -> ShutdownPolicy | None:
    if "policy" not in data:
        return None
    said = requests.text(data, "policy")
    if said not in set(ShutdownPolicy):
        allowed = ", ".join(ShutdownPolicy)
        raise BadRequest(f"policy: {said[:40]!r} is not understood", cure=f"write one of {allowed}")
    return ShutdownPolicy(said)


def _timeout(data: dict[str, Any]) -> int | None:
    value = data.get("timeoutSeconds")
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= LONGEST_TIMEOUT:
        raise BadRequest(f"timeoutSeconds: must be a whole number from 0 to {LONGEST_TIMEOUT}")
    return value


async def drain_plan(request: web.Request) -> web.StreamResponse:
    """GET nodes/NAME/drain: what a drain would do."""
    found = await plans_of(request).drain(request.match_info["name"])
    stays = [{"vm": held.vm, "reason": held.reason} for held in found.held]
    return json_response({"moves": [encode(move) for move in found.moves], "stays": stays})
