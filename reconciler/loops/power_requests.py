"""`cluster shutdown` and `cluster start`: what a person, or a UPS, asks of any node; and how it goes.

Invariants (SAFETY rule 20): a shutdown is on this node's disk, and on its way to the others, when it is
answered, whatever else does not work; a start is in the store first, and ends only the orders that it names.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from reconciler.loops.agent_state import RecordEvent
from reconciler.loops.power_down import PowerDown
from reconciler.loops.power_orders import OrderKeeper
from reconciler.loops.power_store import ORDERS, PowerStore
from reconciler.loops.views import Views
from reconciler.loops.writer import Writer, conflicts
from reconciler.planning.power_orders import started
from reconciler.planning.shutdown import Turn
from reconciler.ports.clock import Clock, Ids
from reconciler.resources import keys
from reconciler.resources.codec import encode
from reconciler.resources.errors import ConflictError, InvalidInput, StoreUnavailable
from reconciler.resources.infrastructure import Power
from reconciler.resources.kinds import Kind
from reconciler.resources.records import EventType, dump
from reconciler.resources.shutdowns import PowerOrders, PowerStart, PowerWord, ShutdownOrder

log = logging.getLogger(__name__)

ATTEMPTS = 8
LONGEST_DEADLINE = 86_400.0
PARALLEL = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class ShutdownRequest:
    """As ShutdownOrder. Seconds."""

    deadline: float = 300.0
    reason: str = ""
    power_off: bool = False
    ceph_flags: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerContext:
    """`words()`: the last heartbeat's of every other member, whether it is heard now or not; `heard()`: those
    that are."""

    node: str
    clock: Clock
    ids: Ids
    keeper: OrderKeeper
    down: PowerDown
    views: Views
    writer: Writer
    store: PowerStore
    event: RecordEvent
    words: Callable[[], Mapping[str, PowerWord]]
    heard: Callable[[], frozenset[str]]


class PowerDesk(Protocol):
    """Who takes both verbs: a node with its store, or a daemon that still waits for it."""

    async def shut_down(self, request: ShutdownRequest) -> ShutdownOrder:
        """Order it. Raises InvalidInput, and VclError when this node's disk refuses."""
        ...

    async def start(self, parallel: int = PARALLEL) -> PowerStart:
        """End every order that is known. Raises ConflictError, InvalidInput, StoreError."""
        ...

    def view(self) -> dict[str, Any]:
        """How it stands, as this node sees it."""
        ...


class PowerRequests:
    """Both verbs, and `view` of what is under way."""

    def __init__(self, context: PowerContext) -> None:
        self._context = context

    async def shut_down(self, request: ShutdownRequest) -> ShutdownOrder:
        """Order it. Raises InvalidInput, and VclError when this node's disk refuses."""
        context = self._context
        order = order_of_request(request, context.node, context.ids, context.clock)
        await context.keeper.learn(PowerOrders(orders=(order,)), given=True)
        words = f"ordered on {context.node}{f': {order.reason}' if order.reason else ''}"
        log.warning("the cluster is shut down, %s", words)
        context.event(EventType.WARNING, Kind.CLUSTER, "cluster", "Shutdown", words)
        return order

    async def start(self, parallel: int = PARALLEL) -> PowerStart:
        """End every order that is known, here and in the store. Raises ConflictError, InvalidInput,
        StoreError."""
        context = self._context
        if parallel < 1:
            raise InvalidInput("parallel must be at least 1")
        if context.views.cluster_spec().power is Power.OFF:
            raise ConflictError(
                "the Cluster's manifest says `power: Off`: nothing would start",
                cure="write `power: On` there, or remove the field",
            )
        for _ in range(ATTEMPTS):
            stored = context.store.stored()
            if stored is None:
                raise ConflictError("the store's records of shutdowns cannot be read: is this vcl too old?")
            await context.keeper.learn(stored)
            known = context.keeper.known
            if not known.orders:
                raise ConflictError("the cluster is not shut down, so there is nothing to start")
            start = PowerStart(
                id=context.ids.uuid(),
                ended=tuple(order.id for order in known.orders),
                parallel=parallel,
                ordered=context.clock.wall(),
            )
            if await self._end(started(known), start):
                await context.keeper.learn(PowerOrders(ended=start.ended))
                log.info("the cluster starts: VMs may run")
                context.event(EventType.NORMAL, Kind.CLUSTER, "cluster", "Start", f"asked on {context.node}")
                return start
        raise StoreUnavailable("other nodes kept changing the same records; try again")

    async def _end(self, after: PowerOrders, start: PowerStart) -> bool:
        context = self._context
        cache = context.views.cache
        compared = (*ORDERS, keys.POWER_START)
        result = await context.writer.commit(
            compares={key: cache.revision_of(key) for key in compared},
            puts={
                keys.POWER_ENDED: dump(PowerOrders(ended=after.ended)),
                keys.POWER_START: dump(start),
            },
            deletes=(keys.POWER_INTENT,) if context.views.exists(keys.POWER_INTENT) else (),
        )
        return not conflicts(result)

    def view(self) -> dict[str, Any]:
        """How it stands, as this node sees it."""
        context = self._context
        order = context.keeper.order
        start = context.views.record(keys.POWER_START, PowerStart)
        manifest = context.views.cluster_spec().power is Power.OFF
        found: dict[str, Any] = {
            "node": context.node,
            "power": "Off" if order is not None or manifest else "On",
            "stored": context.views.exists(keys.POWER_INTENT),
            "storeHealthy": context.views.cache.healthy,
        }
        if start is not None:
            found["start"] = encode(start)
        if order is not None:
            ids = {each.id for each in context.keeper.known.orders}
            words = context.words().items()
            told = {node for node, word in words if ids <= {each.id for each in word.known.orders}}
            found |= order_view(order, context.keeper, context.down) | {
                "told": sorted({context.node, *told}),
                "heard": sorted({context.node, *context.heard()}),
                "members": sorted({context.node, *context.words()}),
            }
        return found


def order_view(order: ShutdownOrder, keeper: OrderKeeper, down: PowerDown) -> dict[str, Any]:
    """How it stands with the order in force on this node, whoever else knows of it."""
    waits = {vm: turn.reason for vm, turn in sorted(down.turns.items()) if turn.turn is Turn.WAIT}
    return {
        "order": encode(order),
        "ids": sorted(each.id for each in keeper.known.orders),
        "looked": bool(down.word()[0]),
        "passed": round(keeper.passed, 1),
        "standing": {vm: list(nodes) for vm, nodes in down.standing.where.items()},
        "silent": list(down.standing.silent),
        "waits": waits,
        "host": down.host,
    }


def order_of_request(request: ShutdownRequest, node: str, ids: Ids, clock: Clock) -> ShutdownOrder:
    """The order that it makes. Raises InvalidInput."""
    if not 0 <= request.deadline <= LONGEST_DEADLINE:
        raise InvalidInput(f"the deadline must be from 0 to {LONGEST_DEADLINE:.0f} seconds")
    return ShutdownOrder(
        id=ids.uuid(),
        deadline=request.deadline,
        reason=request.reason,
        power_off=request.power_off,
        ceph_flags=request.ceph_flags,
        node=node,
        ordered=clock.wall(),
    )
