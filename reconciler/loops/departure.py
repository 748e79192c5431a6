"""This node's guests, when its host goes down in order: whose turn it is to be shut down.

Decides nothing itself: the intent of the node says that it goes down and by which policy,
planning/shutdown.py in which order. Invariants: the agent ends the guests and lets go of the claims as it
always does, only after proof; what was asked for one boot of the host means nothing in the next; and no VM
that is let go is claimed here again in this one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from reconciler.loops.agent_state import Departs
from reconciler.loops.intent_records import IntentRecords
from reconciler.loops.views import Views
from reconciler.loops.writer import Writer
from reconciler.planning.node_intents import asks_nothing, in_this_boot
from reconciler.planning.shutdown import StopTurn, Turn, stop_turns
from reconciler.ports.clock import Clock
from reconciler.resources import keys
from reconciler.resources.errors import InvalidInput, StoreError
from reconciler.resources.infrastructure import ShutdownPolicy
from reconciler.resources.kinds import Kind
from reconciler.resources.records import NodeIntent, NodeShutdown
from reconciler.resources.shutdowns import ShutdownOrder
from reconciler.resources.startorder import order_of

log = logging.getLogger(__name__)

LOOK = 1.0
"""Seconds between looks while guests are shut down: turns also come by time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DepartureContext:
    """`boot_id`: this boot's. `look_again()` has the agent look at every VM."""

    node: str
    boot_id: str
    clock: Clock
    views: Views
    writer: Writer
    look_again: Callable[[], None]


class Departure:
    """`run` for ever; `departs` at any time."""

    def __init__(self, context: DepartureContext) -> None:
        self._context = context
        self._records = IntentRecords(Kind.NODE, context.views, context.writer)
        self._changed = asyncio.Event()
        self._since: dict[tuple[str, ShutdownPolicy], float] = {}
        self._turns: tuple[tuple[int, int], Mapping[str, StopTurn]] = ((-1, 0), {})

    def departs(self, vm: str) -> Departs:
        """Whether the VM is run here no longer, or not yet again."""
        shutdown = self._stopping()
        if shutdown is None:
            return Departs()
        turn = self._turns_of(shutdown).get(vm)
        then = "" if shutdown.policy is ShutdownPolicy.FREEZE else "elsewhere, or "
        reason = f"node {self._context.node} goes down; it starts again {then}when that is back"
        if turn is None:
            return Departs(reason=reason)
        if turn.turn is Turn.WAIT:
            return Departs()
        return Departs(reason=reason, now=turn.turn is Turn.END)

    async def run(self) -> None:
        """Forget the shutdown of an earlier boot, and see to the turns of one in this boot."""
        key, told = keys.intent(Kind.NODE, self._context.node), ""
        unsubscribe = self._context.views.cache.subscribe(
            lambda changed: self._changed.set() if key in changed else None
        )
        try:
            while True:
                self._changed.clear()
                try:
                    await self._forget()
                except (StoreError, InvalidInput) as error:
                    log.warning("the end of an earlier shutdown is not recorded: %s; trying again", error)
                    await asyncio.sleep(LOOK)
                    continue
                shutdown = self._stopping()
                if shutdown is None:
                    if told:
                        told = ""
                        self._context.look_again()
                    await self._changed.wait()
                    continue
                if told != shutdown.id:
                    told = shutdown.id
                    log.warning("this host goes down: its guests are shut down (%s)", shutdown.policy)
                self._context.look_again()
                await asyncio.sleep(LOOK)
        finally:
            unsubscribe()

    async def _forget(self) -> None:
        """Raises StoreError, InvalidInput."""
        context = self._context
        while True:
            intent = self._records.read(context.node, NodeIntent)
            after = in_this_boot(intent, context.boot_id)
            if after == intent:
                return
            if await self._records.commit(context.node, None if asks_nothing(after) else after):
                log.info("this host is back: node %s takes VMs again", context.node)
                context.look_again()
                return
            await self._records.catch_up()

    def _stopping(self) -> NodeShutdown | None:
        """The shutdown of this boot in which guests are stopped where they are."""
        found = self._context.views.node_in_force(self._context.node)
        shutdown = found.shutdown if found.stops else None
        return shutdown if shutdown is not None and shutdown.boot_id == self._context.boot_id else None

    def _turns_of(self, shutdown: NodeShutdown) -> Mapping[str, StopTurn]:
        """Of the VMs that this node has; the same ones give the same for a tenth of a second."""
        context = self._context
        now = context.clock.monotonic()
        passed = now - self._since.setdefault((shutdown.id, shutdown.policy), now)
        known = (context.views.cache.revision, int(passed * 10))
        if self._turns[0] != known:
            mine = [name for name in self._claims() if self._is_mine(name)]
            specs = {name: context.views.vm(name) for name in mine}
            order = order_of(
                {name: spec.priority if spec is not None else 0 for name, spec in specs.items()},
                {name: spec.start_after for name, spec in specs.items() if spec is not None},
            )
            wanted = ShutdownOrder(id=shutdown.id, deadline=float(shutdown.timeout_seconds))
            self._turns = (known, stop_turns(order, (), wanted, passed))
        return self._turns[1]

    def _claims(self) -> list[str]:
        return [item.key.removeprefix(keys.CLAIMS) for item in self._context.views.cache.prefix(keys.CLAIMS)]

    def _is_mine(self, vm: str) -> bool:
        claim = self._context.views.claim(vm)
        return claim is not None and claim.node == self._context.node
