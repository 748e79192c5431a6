"""Ends this node's guests after an order to shut down, past the agent and the store, which may not answer.

Decides nothing itself: planning/shutdown.py says whose turn it is. Invariants: only domains with this
cluster's and this node's marks are touched; a guest is ended the hard way only after the deadline; none is
resumed but one that `vcl pause` has suspended and that is at home here; and the host goes off only when all
guests of all hosts are seen to be gone, or time is up.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from reconciler.loops.agent_state import RecordEvent
from reconciler.loops.power_orders import OrderKeeper
from reconciler.planning.shutdown import Standing, StopTurn, Turn, host_waits, standing, stop_turns
from reconciler.ports.clock import Clock
from reconciler.ports.controller import Controller, ResourceController
from reconciler.ports.power import HostSwitch
from reconciler.resources.domains import DomainPhase, Observed, PauseReason
from reconciler.resources.errors import VclError
from reconciler.resources.kinds import Kind
from reconciler.resources.records import EventType
from reconciler.resources.shutdowns import PowerWord, ShutdownOrder
from reconciler.resources.startorder import Order, order_of

log = logging.getLogger(__name__)

LOOK = 0.5
CALL_SECONDS = 5.0
"""A hypervisor that hangs is asked again after so long."""
AGAIN = 10.0
"""Seconds after which a guest is asked again: one that still boots hears no power button."""
SWITCH_AGAIN = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Machines:
    """What is known of all VMs: priorities, whom each starts after, and which nodes have a claim to it."""

    priorities: Mapping[str, int] = field(default_factory=dict)
    start_after: Mapping[str, Sequence[str]] = field(default_factory=dict)
    hosts: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerDownContext:
    """`words()`: the last heartbeat's of every other node. `paused_by_vcl(vm)`: a person suspended it, and it
    is at home here. `unfinished()`: what else is done before the host goes off, in words. Without a `switch`
    the host stays on."""

    node: str
    cluster_uid: str
    clock: Clock
    keeper: OrderKeeper
    controllers: Mapping[str, Controller]
    machines: Callable[[], Machines]
    event: RecordEvent
    words: Callable[[], Mapping[str, PowerWord]] = dict
    paused_by_vcl: Callable[[str], bool] = lambda vm: False
    unfinished: Callable[[], str] = str
    switch: HostSwitch | None = None


class PowerDown:
    """`run` for ever. `turns`: of every VM that stands, as of the last look; `host`: what this host waits for
    before it goes off; `standing`: as known here."""

    def __init__(self, context: PowerDownContext) -> None:
        self.turns: Mapping[str, StopTurn] = {}
        self.standing = Standing(where={}, silent=())
        self.host = ""
        self.switched = asyncio.Event()
        """Whether the host was told to go off."""
        self._context = context
        self._here: frozenset[str] | None = None
        self._looked = ""
        self._asked: dict[str, float] = {}
        self._ended: set[str] = set()
        self._failing: dict[str, str] = {}
        self._order: tuple[object, Order] | None = None
        self._switched = float("-inf")
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Look twice a second while an order is in force."""
        undo = self._context.keeper.subscribe(self._wake.set)
        try:
            while True:
                self._wake.clear()
                await self.step()
                wait = LOOK if self._context.keeper.off() else None
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._wake.wait()
        finally:
            undo()

    def word(self) -> tuple[str, tuple[str, ...]]:
        """(the order under which this node last saw all of its guests, those that stood then)."""
        return (self._looked, tuple(sorted(self._here))) if self._here is not None else ("", ())

    def words_for(self, vm: str) -> str:
        """What the status of a VM says of the shutdown; empty without one."""
        order = self._context.keeper.order
        if order is None:
            return ""
        turn, why = self.turns.get(vm), f"the cluster is shut down{_because(order)}"
        if turn is None or turn.turn is Turn.GONE:
            return why
        if turn.turn is Turn.ASK:
            return f"{why}; asked to power off, {turn.left:.0f} s left"
        return f"{why}; {turn.reason}" if turn.reason else why

    async def step(self) -> None:
        """One look, and what follows from it."""
        context = self._context
        order = context.keeper.order
        if order is None:
            self._forget()
            return
        domains = await self._inventory()
        mine = {domain.name: domain for _, domain in domains or ()}
        self._here, self._looked = (frozenset(mine), order.id) if domains is not None else (None, "")
        machines = context.machines()
        self.standing = self._standing(order, machines)
        passed = context.keeper.passed
        sequence = self._sequence(order, machines, mine)
        gone = set(sequence.places) - set(self.standing.where)
        turns = stop_turns(sequence, gone, order, passed)
        self.turns = {vm: turn for vm, turn in turns.items() if turn.turn is not Turn.GONE}
        await asyncio.gather(
            *(self._act(lifecycle, domain, turns[domain.name], order) for lifecycle, domain in domains or ())
        )
        await self._switch_off(order, passed)

    def _forget(self) -> None:
        if self._looked:
            log.info("the shutdown is over: VMs may run")
        self.turns, self.standing, self.host = {}, Standing(where={}, silent=()), ""
        self._here, self._looked = None, ""
        self._asked.clear()
        self._ended.clear()
        self._failing.clear()

    async def _inventory(self) -> list[tuple[ResourceController, Observed]] | None:
        """This node's guests of this cluster; None when a controller does not say."""
        context = self._context
        found: list[tuple[ResourceController, Observed]] = []
        whole = True
        for name, controller in sorted(context.controllers.items()):
            try:
                async with asyncio.timeout(2 * CALL_SECONDS):
                    domains = await controller.lifecycle.inventory(timeout=CALL_SECONDS)
            except (VclError, TimeoutError) as error:
                self._failed(f"controller {name}", error)
                whole = False
                continue
            found += (
                (controller.lifecycle, domain)
                for domain in domains
                if domain.cluster_uid == context.cluster_uid and domain.node == context.node
            )
        return found if whole or found else None

    def _standing(self, order: ShutdownOrder, machines: Machines) -> Standing:
        context = self._context
        ids = {each.id for each in context.keeper.known.orders} | {order.id}
        looks: dict[str, Collection[str] | None] = {context.node: self._here}
        for node, word in context.words().items():
            if word.looked in ids:
                looks[node] = word.standing
        return standing(machines.hosts, looks)

    def _sequence(self, order: ShutdownOrder, machines: Machines, mine: Collection[str]) -> Order:
        """The waves; kept while the same VMs are there."""
        names = {*machines.priorities, *machines.hosts, *mine, *self.standing.where}
        known = (order.id, tuple(sorted(names)), tuple(sorted(machines.priorities.items())))
        if self._order is None or self._order[0] != known:
            priorities = {vm: machines.priorities.get(vm, 0) for vm in names}
            self._order = (known, order_of(priorities, machines.start_after))
        return self._order[1]

    async def _act(
        self, lifecycle: ResourceController, domain: Observed, turn: StopTurn, order: ShutdownOrder
    ) -> None:
        now = self._context.clock.monotonic()
        try:
            async with asyncio.timeout(2 * CALL_SECONDS):
                if turn.turn is Turn.END:
                    await self._end(lifecycle, domain, turn)
                elif turn.turn is Turn.ASK and now - self._asked.get(domain.name, float("-inf")) >= AGAIN:
                    await self._ask(lifecycle, domain, order)
        except (VclError, TimeoutError) as error:
            self._failed(f"vm {domain.name}", error)

    async def _ask(self, lifecycle: ResourceController, domain: Observed, order: ShutdownOrder) -> None:
        name, first = domain.name, domain.name not in self._asked
        if domain.phase is DomainPhase.PAUSED:
            user = domain.pause_reason is PauseReason.USER
            if not (user and self._context.paused_by_vcl(name)):
                return  # whoever paused it decides; the deadline ends it
            await lifecycle.set_paused(name, False, timeout=CALL_SECONDS)
        self._asked[name] = self._context.clock.monotonic()
        await lifecycle.shutdown(name, timeout=CALL_SECONDS)
        if first:
            self._event(name, "Stopping", f"asked to power off: the cluster is shut down{_because(order)}")

    async def _end(self, lifecycle: ResourceController, domain: Observed, turn: StopTurn) -> None:
        if domain.name not in self._ended:
            self._ended.add(domain.name)
            self._event(domain.name, "Killing", f"{turn.reason}; it is ended", EventType.WARNING)
        await lifecycle.destroy(domain.name, uid=domain.uid, timeout=CALL_SECONDS)

    async def _switch_off(self, order: ShutdownOrder, passed: float) -> None:
        context = self._context
        order = replace(order, power_off=context.keeper.goes_off)
        self.host = host_waits(order, self.standing.where, self.standing.silent, passed)
        if not self.host and host_waits(order, ("?",), (), passed):  # there is time
            self.host = context.unfinished()
        now = context.clock.monotonic()
        if self.host or context.switch is None or now - self._switched < SWITCH_AGAIN:
            return
        self._switched = now
        self.switched.set()
        log.warning("node %s: the host goes off%s", context.node, _because(order))
        try:
            await context.switch.off()
        except VclError as error:
            log.error("node %s: the host did not go off: %s; trying again", context.node, error)

    def _event(self, vm: str, reason: str, message: str, type: EventType = EventType.NORMAL) -> None:
        log.info("vm %s: %s: %s", vm, reason, message)
        self._context.event(type, Kind.VIRTUAL_MACHINE, vm, reason, message)

    def _failed(self, what: str, error: Exception) -> None:
        words = str(error) or "no answer in time"
        if self._failing.get(what) != words:
            log.warning("%s: %s; trying again", what, words)
        self._failing[what] = words


def _because(order: ShutdownOrder) -> str:
    return f" ({order.reason})" if order.reason else ""
