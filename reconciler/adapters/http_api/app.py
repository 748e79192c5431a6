"""The routes of docs/api.md. Invariant: every handler has a deadline; streams have one for each write."""

from __future__ import annotations

import asyncio

from aiohttp import web

from reconciler.adapters.http_api import (
    adoptions,
    console,
    daemon,
    disks,
    events,
    guests,
    logs,
    manifests,
    migrations,
    nodes,
    objects,
    plans,
    power,
    rebalancing,
)
from reconciler.adapters.http_api.errors import Handler, errors_as_status, within
from reconciler.adapters.http_api.services import SERVICES, ApiServices, Limits
from reconciler.adapters.http_api.streams import STOPPING
from reconciler.adapters.http_api.verbs import verb_handler
from reconciler.planning.intents import Verb
from reconciler.planning.node_intents import NodeVerb
from reconciler.resources.errors import StoreUnavailable

ROOT = "/apis/vcl/v1"
SHUTDOWN = f"{ROOT}/power/shutdown"


def build_app(services: ApiServices) -> web.Application:
    """The application; needs a running event loop to be served."""
    app = web.Application(client_max_size=services.limits.body, middlewares=[errors_as_status, reads_only])
    app[SERVICES] = services
    app[STOPPING] = asyncio.Event()
    if services.power is not None:
        app[power.DESK] = services.power
        app.router.add_routes(power_routes(services.limits))
    app.on_shutdown.append(_end_streams)
    app.router.add_routes([*_daemon(services), *_manifests(services), *_machines(services)])
    app.router.add_routes(_objects(services))
    return app


@web.middleware
async def reads_only(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse every change while the node is frozen (SAFETY rule 3), but a shutdown: that starts nothing."""
    reason = request.app[SERVICES].read_only()
    if reason and request.method not in ("GET", "HEAD") and request.path != SHUTDOWN:
        raise StoreUnavailable(reason)
    return await handler(request)


async def _end_streams(app: web.Application) -> None:
    app[STOPPING].set()


def _listed(seconds: float, handler: Handler) -> Handler:
    """A list with its deadline, or a watch, which has none as a whole."""
    limited = within(seconds, handler)

    async def either(request: web.Request) -> web.StreamResponse:
        return await (handler if request.query.get("watch") else limited)(request)

    return either


def _get(path: str, handler: Handler) -> web.RouteDef:
    return web.get(path, handler, allow_head=False)


def _daemon(services: ApiServices) -> list[web.RouteDef]:
    read = services.limits.read
    return [
        _get("/version", within(read, daemon.version)),
        _get("/healthz", within(read, daemon.healthz)),
        _get("/readyz", within(read, daemon.readyz)),
        _get("/metrics", within(read, daemon.metrics)),
        _get(f"{ROOT}/status", within(read, daemon.status)),
        _get(f"{ROOT}/placement", within(read, daemon.placement)),
        _get(f"{ROOT}/events", _listed(read, events.list_or_watch)),
        _get(f"{ROOT}/logs", logs.read),
    ]


def power_routes(limits: Limits) -> list[web.RouteDef]:
    """Those of the power, which are there also before the store is."""
    return [
        _get(f"{ROOT}/power", within(limits.read, power.show)),
        web.post(SHUTDOWN, within(limits.change, power.shut_down)),
        web.post(f"{ROOT}/power/start", within(limits.change, power.start)),
    ]


def _manifests(services: ApiServices) -> list[web.RouteDef]:
    limits = services.limits
    return [
        web.post(f"{ROOT}/manifests", within(limits.apply, manifests.apply)),
        _get(f"{ROOT}/manifests", within(limits.read, manifests.list_files)),
        _get(f"{ROOT}/manifests/{{path:.+}}", within(limits.read, manifests.read_file)),
        web.post(f"{ROOT}/adopt", within(limits.apply, adoptions.adopt)),
        web.post(f"{ROOT}/confirm", within(limits.change, manifests.confirm)),
        web.post(f"{ROOT}/plan", within(limits.apply, plans.plan)),
        web.post(f"{ROOT}/capacity", within(limits.apply, plans.capacity)),
        _get(f"{ROOT}/rebalance", within(limits.read, rebalancing.show)),
        web.post(f"{ROOT}/rebalance", within(limits.apply, rebalancing.begin)),
        web.post(f"{ROOT}/rebalance/cancel", within(limits.change, rebalancing.cancel)),
    ]


def _machines(services: ApiServices) -> list[web.RouteDef]:
    vm, limits = f"{ROOT}/virtualmachines/{{name}}", services.limits
    return [
        *(web.post(f"{vm}/{verb}", within(limits.change, verb_handler(verb))) for verb in Verb),
        web.post(f"{vm}/migrate", within(limits.apply, migrations.migrate)),
        web.post(f"{vm}/migrate-cancel", within(limits.change, migrations.cancel)),
        _get(f"{vm}/disks", within(limits.apply, disks.show)),
        web.post(f"{vm}/disks/{{disk}}/unlock", within(limits.apply, disks.unlock)),
        _get(f"{vm}/console", console.console),
        _get(f"{vm}/console/tail", within(limits.read, guests.console_tail)),
        _get(f"{vm}/vnc", within(limits.read, guests.vnc)),
    ]


def _objects(services: ApiServices) -> list[web.RouteDef]:
    one, limits = f"{ROOT}/{{kind}}/{{name}}", services.limits
    node = f"{ROOT}/nodes/{{name}}"
    return [
        *(
            web.post(f"{node}/{verb}", within(limits.change, nodes.node_verb_handler(verb)))
            for verb in NodeVerb
        ),
        _get(f"{node}/drain", within(limits.apply, nodes.drain_plan)),
        web.post(f"{node}/confirm-down", within(limits.change, nodes.confirm_down)),
        _get(f"{ROOT}/{{kind}}", _listed(limits.read, objects.list_or_watch)),
        _get(one, _listed(limits.read, objects.get_or_watch)),
        web.delete(one, within(limits.apply, objects.delete)),
    ]
