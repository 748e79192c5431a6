"""All that one node has to do with shutting the cluster down and starting it again, put together.

No decisions here: what each part needs is named. A subscription to the keeper, which outlives the session, is
undone when the session's loops end.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from reconciler.loops.agent_state import RecordEvent
from reconciler.loops.membership import Membership
from reconciler.loops.power_down import Machines, PowerDown, PowerDownContext
from reconciler.loops.power_flags import FlagsContext, PowerFlags
from reconciler.loops.power_orders import OrderKeeper
from reconciler.loops.power_requests import PowerContext, PowerRequests
from reconciler.loops.power_store import PowerStore
from reconciler.loops.supervisor import Life
from reconciler.loops.views import Views
from reconciler.loops.writer import Writer
from reconciler.planning.liveness import Sight, heard
from reconciler.planning.migration import hosts_of
from reconciler.planning.timers import Timers
from reconciler.ports.clock import Clock, Ids
from reconciler.ports.controller import Controller
from reconciler.ports.power import CephFlags, HostSwitch
from reconciler.resources import keys
from reconciler.resources.kinds import Kind
from reconciler.resources.shutdowns import PowerWord


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePowerContext:
    """Without `flags` there is no Ceph to tell; without a `switch` the host stays on."""

    node: str
    cluster_uid: str
    clock: Clock
    ids: Ids
    keeper: OrderKeeper
    controllers: Mapping[str, Controller]
    views: Views
    writer: Writer
    event: RecordEvent
    timers: Timers
    switch: HostSwitch | None = None
    flags: CephFlags | None = None


class NodePower:
    """`attach` it to the membership before anything runs."""

    def __init__(self, context: NodePowerContext) -> None:
        self._context = context
        self._membership: Membership | None = None
        self.changed: Callable[[], None] = _nothing
        """Told when an order has come, or has ended."""
        self.store = PowerStore(context.keeper, context.views, context.writer)
        self.flags: PowerFlags | None = None
        if context.flags is not None:
            self.flags = PowerFlags(
                FlagsContext(
                    keeper=context.keeper,
                    views=context.views,
                    writer=context.writer,
                    ceph=context.flags,
                    mine=self._first_here,
                )
            )
        self.down = PowerDown(
            PowerDownContext(
                node=context.node,
                cluster_uid=context.cluster_uid,
                clock=context.clock,
                keeper=context.keeper,
                controllers=context.controllers,
                machines=self._machines,
                event=context.event,
                words=self.words,
                paused_by_vcl=self._paused_by_vcl,
                unfinished=self._unfinished,
                switch=context.switch,
            )
        )
        self.requests = PowerRequests(
            PowerContext(
                node=context.node,
                clock=context.clock,
                ids=context.ids,
                keeper=context.keeper,
                down=self.down,
                views=context.views,
                writer=context.writer,
                store=self.store,
                event=context.event,
                words=self.words,
                heard=self._heard,
            )
        )

    def attach(self, membership: Membership) -> None:
        """By which orders are told to the others, and heard of."""
        self._membership = membership

    def loops(self, *, frozen: bool) -> Mapping[str, Life]:
        """What is to run. A frozen node's guests are ended too; it writes nothing."""
        found: dict[str, Life] = {"shutdown": self._run_down, "orders": self._context.keeper.run}
        if not frozen:
            found["orders in the store"] = self.store.run
            if self.flags is not None:
                found["flags of Ceph"] = self.flags.run
        return found

    def word(self) -> PowerWord:
        """What the next heartbeat says."""
        keeper = self._context.keeper
        looked, standing = self.down.word()
        return PowerWord(
            known=keeper.known,
            ages=keeper.ages(),
            under_way=keeper.under_way,
            looked=looked,
            standing=standing,
        )

    def hear(self, word: PowerWord) -> None:
        """What a heartbeat says."""
        self._context.keeper.hear(word)

    def words(self) -> Mapping[str, PowerWord]:
        """The last word of every other member; an empty one of a member that was never heard."""
        beats = {sight.name: sight.heartbeat for sight in self._sights()}
        return {
            name: beat.power if beat is not None else PowerWord()
            for name, beat in beats.items()
            if name != self._context.node
        }

    async def _run_down(self) -> None:
        """Also tell the others at once what is new."""
        membership = self._membership
        keeper = self._context.keeper
        beat = membership.beat if membership is not None else _nothing
        with _subscribed(keeper, beat), _subscribed(keeper, self.changed):
            await self.down.run()

    def _sights(self) -> tuple[Sight, ...]:
        return self._membership.sights() if self._membership is not None else ()

    def _heard(self) -> frozenset[str]:
        return frozenset(sight.name for sight in self._sights() if heard(sight, self._context.timers))

    def _first_here(self) -> bool:
        """Whether this node is the first in the hierarchy of those that it hears."""
        there = self._heard() | {self._context.node}
        return next((s.name for s in self._sights() if s.name in there), "") == self._context.node

    def _machines(self) -> Machines:
        views = self._context.views
        specs = views.specs(Kind.VIRTUAL_MACHINE)
        return Machines(
            priorities={vm: spec.priority for vm, spec in specs.items()},
            start_after={vm: spec.start_after for vm, spec in specs.items() if spec.start_after},
            hosts=self._hosts(),
        )

    def _hosts(self) -> dict[str, tuple[str, ...]]:
        """By VM that somebody owns."""
        views = self._context.views
        names = (item.key.removeprefix(keys.CLAIMS) for item in views.cache.prefix(keys.CLAIMS))
        owned = {vm: views.claim(vm) for vm in names}
        return {vm: hosts_of(claim) for vm, claim in owned.items() if claim is not None and claim.node}

    def _paused_by_vcl(self, vm: str) -> bool:
        claim = self._context.views.claim(vm)
        at_home = claim is not None and claim.node == self._context.node and claim.migration is None
        return at_home and claim is not None and claim.paused

    def _unfinished(self) -> str:
        """An emptied claim needs no proof of the next boot; worth a wait only while the store answers."""
        views, node = self._context.views, self._context.node
        if not views.cache.healthy:
            return ""
        mine = [vm for vm, hosts in self._hosts().items() if node in hosts]
        if mine:
            return f"the store still names this node as the owner of {', '.join(sorted(mine)[:4])}"
        if not views.exists(keys.POWER_INTENT):
            return "the shutdown is not in the store yet"
        return self.flags.unfinished() if self.flags is not None else ""


def _nothing() -> None:
    """Nobody else is there to be told."""


@contextlib.contextmanager
def _subscribed(keeper: OrderKeeper, listener: Callable[[], None]) -> Iterator[None]:
    undo = keeper.subscribe(listener)
    try:
        yield
    finally:
        undo()
