"""Tells Ceph at once that a silent node's OSDs are down (the cluster's setting `fencing.markOsdsDown`).

On every node, master or not: in the stall that this ends nobody can be master. What may be done is decided
in planning/osds.py. Invariant: where the OSDs are was asked while Ceph was well; nothing here waits for the
store.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reconciler.loops.agent_state import RecordEvent
from reconciler.loops.membership import Membership
from reconciler.loops.views import Views
from reconciler.planning.judging import Judge
from reconciler.planning.liveness import Sight, heard
from reconciler.planning.migration import hosts_of
from reconciler.planning.osds import (
    MOST,
    Gone,
    OsdVerdict,
    Unharmed,
    definitely_dead,
    judge_osds,
    osds_of,
    too_often,
)
from reconciler.planning.timers import Timers
from reconciler.ports.clock import Clock
from reconciler.ports.fencer import Fencer
from reconciler.ports.osds import Osds
from reconciler.resources import keys
from reconciler.resources.errors import ConflictError, FenceFailed
from reconciler.resources.fencing import FenceMethod, FenceOrder, FenceRecord, FencingPolicy
from reconciler.resources.infrastructure import NodeSpec
from reconciler.resources.kinds import Kind
from reconciler.resources.records import Binding, Claim, EventType, Session

log = logging.getLogger(__name__)

LOCATE_EVERY, LOCATE_WITHIN = 15.0, 5.0
TELL_WITHIN = 20.0
"""Seconds for Ceph to take it: monitors of which one has died need up to 12 s."""
REST = 1.0
"""Seconds before a failed attempt is made again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OsdContext:
    """`fencers()`: all there are now; of them those that take power are used. `policy()`: the present
    setting."""

    node: str
    clock: Clock
    views: Views
    membership: Membership
    timers: Timers
    osds: Osds
    fencers: Callable[[], Sequence[Fencer]]
    policy: Callable[[], FencingPolicy]
    event: RecordEvent


class OsdWatch:
    """`run` for ever. `powered_off`: boot ids of hosts that were switched off here, and seen to be off."""

    def __init__(self, context: OsdContext) -> None:
        self.powered_off: set[str] = set()
        self._context = context
        self._known: Mapping[int, frozenset[str]] = {}
        self._located_at = float("-inf")
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._done: dict[tuple[str, str], float] = {}
        self._told: dict[str, deque[float]] = {}
        self._said: dict[str, str] = {}

    async def run(self) -> None:
        """Look as often as heartbeats come."""
        try:
            while True:
                self.step()
                await asyncio.sleep(self._context.timers.mesh_heartbeat)
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def step(self) -> None:
        """One look at every node; what follows runs beside."""
        if not self._context.policy().mark_osds_down:
            return
        now = self._context.clock.monotonic()
        if now - self._located_at >= LOCATE_EVERY and self._store_answers(now):
            self._located_at = now
            self._begin("", "locate", self._locate)
        for sight in self._context.membership.sights():
            if heard(sight, self._context.timers):
                self._forget(sight.name)
            else:
                self._consider(sight, now)

    def _consider(self, sight: Sight, now: float) -> None:
        node = sight.name
        verdict, osds = self._verdict(sight, now), self._osds_of(node)
        if not osds:
            return
        if isinstance(verdict, Unharmed):
            self._say(node, verdict.reason)
            return
        told = self._told.setdefault(node, deque(maxlen=MOST))
        if (node, "down") not in self._done and too_often(told, now):
            self._say(node, f"they were {MOST} times in ten minutes, and each time came up again")
            return
        if self._due(node, "down", now):
            self._begin(node, "down", lambda: self._tell(sight, osds, verdict, dead=False))
        if self._is_dead(sight) and self._due(node, "dead", now):
            self._begin(node, "dead", lambda: self._tell(sight, osds, verdict, dead=True))
        elif verdict.power and not self._is_dead(sight) and self._due(node, "off", now):
            self._begin(node, "off", lambda: self._switch_off(sight))

    async def _locate(self) -> None:
        try:
            self._known = await self._context.osds.locate(timeout=LOCATE_WITHIN)
        except FenceFailed as error:
            log.info("where Ceph's OSDs are is not known anew: %s", error)

    async def _tell(self, sight: Sight, osds: tuple[int, ...], verdict: Gone, *, dead: bool) -> None:
        node, clock = sight.name, self._context.clock
        words = ", ".join(f"osd.{osd}" for osd in osds)
        kind, what = ("dead", "definitely dead") if dead else ("down", "down")
        began = clock.monotonic()
        log.warning("node %s: telling Ceph that %s is %s: %s", node, words, what, verdict.reason)
        if not dead:
            self._told[node].append(began)
        try:
            await self._context.osds.mark_down(osds, dead=dead, timeout=TELL_WITHIN)
        except FenceFailed as error:
            log.warning(
                "node %s: Ceph was not told that %s is %s: %s; trying again", node, words, what, error
            )
            self._done[node, kind] = clock.monotonic() + REST
            return
        self._done[node, kind] = float("inf")
        message = f"{words} {what} ({clock.monotonic() - began:.1f} s): {verdict.reason}"
        log.info("node %s: OsdsMarkedDown: %s", node, message)
        self._context.event(EventType.WARNING, Kind.NODE, node, "OsdsMarkedDown", message)

    async def _switch_off(self, sight: Sight) -> None:
        """By the first fence agent that can; its `status` is the proof."""
        node, policy = sight.name, self._context.policy()
        order = self._order(sight)
        able = (f for f in self._context.fencers() if f.method is FenceMethod.AGENT and not f.unready(order))
        agent = next(able, None) if FenceMethod.AGENT in policy.methods else None
        if agent is None:
            self._done[node, "off"] = float("inf")
            return

        async def guard() -> None:
            again = next((s for s in self._context.membership.sights() if s.name == node), sight)
            verdict = self._verdict(again, self._context.clock.monotonic())
            if isinstance(verdict, Unharmed) or not verdict.power:
                raise ConflictError(f"{node} is not to be switched off any more")

        log.warning("node %s: switching it off by %s, since no intent can be written", node, agent.id)
        try:
            await agent.fence(order, guard, timeout=policy.time_out(agent.method))
        except (FenceFailed, ConflictError) as error:
            log.warning("node %s: not switched off: %s", node, error)
            self._done[node, "off"] = self._context.clock.monotonic() + REST
            return
        self._done[node, "off"] = float("inf")
        self.powered_off.add(order.boot_id)
        message = f"by {agent.id}, and it says that it is off: Ceph stalls, and no intent could be written"
        self._context.event(EventType.WARNING, Kind.NODE, node, "SwitchedOff", message)

    def _order(self, sight: Sight) -> FenceOrder:
        spec = self._context.views.spec(Kind.NODE, sight.name, NodeSpec)
        return FenceOrder(
            id=f"stall-{sight.name}",
            node=sight.name,
            incident=f"{sight.name} in a stall of Ceph",
            boot_id=_boot(sight),
            settings=dict(spec.fencing) if spec is not None else {},
        )

    def _verdict(self, sight: Sight, now: float) -> OsdVerdict:
        context = self._context
        renewed = context.membership.renewed_at
        judge = Judge(
            me=context.node,
            sights=context.membership.sights(),
            ran_for=context.membership.ran_for(),
            power_on=context.views.power_on(),
        )
        stalled = now - renewed if renewed is not None else 0.0
        return judge_osds(judge, sight, stalled, context.timers, owns=self._owns(sight.name))

    def _owns(self, node: str) -> bool:
        views = self._context.views
        bindings = (views.record(item.key, Binding) for item in views.cache.prefix(keys.BINDINGS))
        claims = (views.record(item.key, Claim) for item in views.cache.prefix(keys.CLAIMS))
        bound = any(found is not None and found.node == node for found in bindings)
        return bound or any(found is not None and node in hosts_of(found) for found in claims)

    def _osds_of(self, node: str) -> tuple[int, ...]:
        """By the addresses of its storage, and by that on the mesh: it may be the same network."""
        mine, others = set[str](), set[str]()
        for name, member in self._context.membership.members().items():
            session = self._context.views.record(keys.session(name), Session)
            found = session.addresses if session is not None else ()
            (mine if name == node else others).update((*found, member.address))
        return osds_of(mine, others, self._known)

    def _is_dead(self, sight: Sight) -> bool:
        record = self._context.views.record(keys.fence(sight.name), FenceRecord)
        boot = _boot(sight)
        if boot in self.powered_off:
            return True
        return record is not None and record.boot_id == boot and definitely_dead(record)

    def _store_answers(self, now: float) -> bool:
        renewed = self._context.membership.renewed_at
        return renewed is not None and now - renewed < 2 * self._context.timers.lease_renew

    def _due(self, node: str, what: str, now: float) -> bool:
        task = self._tasks.get((node, what))
        return (task is None or task.done()) and now >= self._done.get((node, what), float("-inf"))

    def _begin(self, node: str, what: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        before = self._tasks.get((node, what))
        if before is None or before.done():
            self._tasks[node, what] = asyncio.create_task(work(), name=f"osds {what} {node}")

    def _forget(self, node: str) -> None:
        """It is heard: whatever was done about its silence is over."""
        for key in [key for key in self._done if key[0] == node]:
            del self._done[key]
        self._said.pop(node, None)

    def _say(self, node: str, reason: str) -> None:
        bare = "".join(c for c in reason if not c.isdigit() and c != ".")
        if reason and self._said.get(node) != bare:
            log.info("node %s: its OSDs are not reported down: %s", node, reason)
            self._said[node] = bare


def _boot(sight: Sight) -> str:
    return sight.heartbeat.boot_id if sight.heartbeat is not None else ""
