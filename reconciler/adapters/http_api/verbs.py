"""POST virtualmachines/NAME/VERB: what a person asks of a VM, recorded as an intent."""

from __future__ import annotations

from aiohttp import web

from reconciler.adapters.http_api import requests
from reconciler.adapters.http_api.errors import Handler
from reconciler.adapters.http_api.services import SERVICES
from reconciler.planning.intents import Verb
from reconciler.resources.kinds import Kind

_FORCIBLE = frozenset({Verb.STOP, Verb.RESTART})


def verb_handler(verb: Verb) -> Handler:
    """The handler of one verb; only stop and restart take `force`."""
    allowed = ("force",) if verb in _FORCIBLE else ()

    async def handler(request: web.Request) -> web.StreamResponse:
        services, name = request.app[SERVICES], request.match_info["name"]
        data = await requests.body(request, allowed=allowed)
        await services.intents.apply(verb, name, force=requests.boolean(data, "force"))
        view = services.objects.get(Kind.VIRTUAL_MACHINE, name)
        return web.Response(body=view.json(), content_type="application/json")

    return handler
