"""Pauses or ends this node's guests when it has lost contact, past the agent, whose workers may wait for the
store that does not answer.

Invariants: while the hold has a reason the agent changes nothing; guests are resumed by the agent only, after
it has read their claims afresh; only domains of this cluster and node are paused, and only those are ended
whose claim, as last read, names this node as the owner or as a host of a live migration (SAFETY rule 9). Only
`Rejoin` says that nothing is left, while `Hold.ending`, and unsaid before the agent may start anything.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from reconciler.loops.agent_state import RecordEvent
from reconciler.loops.membership import Membership
from reconciler.loops.views import Views
from reconciler.planning.isolation import Contact, Decision, Measure, decide_isolation
from reconciler.planning.liveness import heard
from reconciler.planning.timers import Timers
from reconciler.ports.clock import Clock
from reconciler.ports.controller import Controller, Isolator, ResourceController
from reconciler.resources.domains import DomainPhase, Observed
from reconciler.resources.errors import VclError
from reconciler.resources.kinds import Kind
from reconciler.resources.records import Claim, EventType

log = logging.getLogger(__name__)

LOOK = 0.25
CALL_SECONDS = 5.0
"""A hypervisor that hangs is asked again after so long; nothing that it did not say is believed."""


@dataclass(slots=True)
class Hold:
    """`reason`: why the agent must not change anything now; empty when it may. `ending`: guests are ended."""

    reason: str = ""
    ending: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class IsolationContext:
    """`unsay_empty()`: this node says no more that nothing is left on it. `look_again()`: the agent looks at
    every VM. `shut_out()`: the storage's blocklist, which was looked at, has this host."""

    node: str
    cluster_uid: str
    session: int
    clock: Clock
    views: Views
    membership: Membership
    timers: Timers
    controllers: Mapping[str, Controller]
    hold: Hold
    event: RecordEvent
    unsay_empty: Callable[[], None]
    look_again: Callable[[], None]
    shut_out: Callable[[], bool] = lambda: False


class Isolation:
    """`run` for ever."""

    def __init__(self, context: IsolationContext) -> None:
        self._context = context
        self._measure = Measure.NOTHING
        self._held_since = 0.0
        self._contrast_since: float | None = None
        self._failing: dict[str, str] = {}

    @property
    def held(self) -> str:
        """Why this node's guests are kept paused, or are ended; empty while they may run."""
        return self._context.hold.reason

    @property
    def ending(self) -> bool:
        """Whether they are ended."""
        return self._context.hold.ending

    async def run(self) -> None:
        """Look four times a second."""
        while True:
            await self.step()
            await asyncio.sleep(LOOK)

    async def step(self) -> None:
        """One look, and what follows from it."""
        contact = self._contact()
        decision = decide_isolation(self._measure, contact, self._context.timers)
        self._tell(decision)
        self._measure = decision.measure
        match decision.measure:
            case Measure.NOTHING:
                return
            case Measure.RESUME:
                self._release()
            case Measure.PAUSE:
                self._context.hold.reason = decision.reason
                await self._every(self._pause)
            case Measure.DESTROY:
                self._context.hold.reason = decision.reason
                self._context.hold.ending = True
                await self._every(self._destroy)

    def _contact(self) -> Contact:
        context, now = self._context, self._context.clock.monotonic()
        membership = context.membership
        sights = membership.sights()
        others = [sight for sight in sights if sight.name != context.node]
        renewed = membership.renewed_at
        silence = now - renewed if renewed is not None else float("inf")
        reached = any(
            heard(sight, context.timers) and sight.heartbeat is not None and sight.heartbeat.health.store
            for sight in others
        )
        if not reached or silence <= context.timers.isolation:
            self._contrast_since = None
        elif self._contrast_since is None:
            self._contrast_since = now
        since = self._contrast_since
        return Contact(
            nodes=len(sights),
            mesh_silence=min((s.heard for s in others if s.heard is not None), default=float("inf")),
            store_silence=silence,
            contrast=now - since if since is not None else 0.0,
            ran_for=membership.ran_for(),
            shut_out=context.shut_out(),
        )

    def _tell(self, decision: Decision) -> None:
        if decision.measure is self._measure or decision.measure is Measure.NOTHING:
            return
        words = {
            Measure.PAUSE: ("Isolated", "its guests are paused"),
            Measure.RESUME: ("ContactBack", "each guest goes on when its claim still stands"),
            Measure.DESTROY: ("CutOff", "its guests are ended"),
        }
        reason, follows = words[decision.measure]
        context, bad = self._context, decision.measure is not Measure.RESUME
        now, said = context.clock.monotonic(), decision.reason
        if not bad:
            said = f"{said}, after {now - self._held_since:.1f} s"
        elif not context.hold.reason:
            self._held_since = now
        log.warning("node %s: %s; %s", context.node, said, follows)
        kind = EventType.WARNING if bad else EventType.NORMAL
        context.event(kind, Kind.NODE, context.node, reason, f"{said}; {follows}")

    def _release(self) -> None:
        """First it is not empty any more, then the agent may make it so."""
        context = self._context
        context.hold.ending = False
        context.unsay_empty()
        context.hold.reason = ""
        self._failing.clear()
        context.look_again()

    async def _every(self, act: Callable[[ResourceController, Observed], Awaitable[None]]) -> None:
        """Do it to all of this node's guests at once; what fails is tried again at the next look."""
        for name, controller in sorted(self._context.controllers.items()):
            try:
                domains = await controller.lifecycle.inventory(timeout=CALL_SECONDS)
            except VclError as error:
                self._failed(f"controller {name}", error)
                continue
            mine = [domain for domain in domains if self._owned(domain)]
            await asyncio.gather(*(self._try(act, controller.lifecycle, domain) for domain in mine))

    def _owned(self, domain: Observed) -> bool:
        context = self._context
        return domain.cluster_uid == context.cluster_uid and domain.node == context.node

    async def _try(
        self,
        act: Callable[[ResourceController, Observed], Awaitable[None]],
        lifecycle: ResourceController,
        domain: Observed,
    ) -> None:
        try:
            await act(lifecycle, domain)
        except VclError as error:
            self._failed(f"vm {domain.name}", error)

    def _failed(self, what: str, error: VclError) -> None:
        if self._failing.get(what) != error.message:
            log.warning("%s: %s; trying again", what, error)
        self._failing[what] = error.message

    async def _pause(self, lifecycle: ResourceController, domain: Observed) -> None:
        if domain.phase is not DomainPhase.RUNNING or not isinstance(lifecycle, Isolator):
            return
        await lifecycle.isolate(domain.name, timeout=CALL_SECONDS)
        self._event(domain, "Isolated", f"paused: {self._context.hold.reason}")

    async def _destroy(self, lifecycle: ResourceController, domain: Observed) -> None:
        claim = self._context.views.claim(domain.name)
        if claim is None or claim.uid != domain.uid or not _holds(claim, self._context.node):
            return
        await lifecycle.destroy(domain.name, uid=domain.uid, timeout=CALL_SECONDS)
        self._event(domain, "Destroyed", self._context.hold.reason)

    def _event(self, domain: Observed, reason: str, message: str) -> None:
        log.warning("vm %s: %s: %s", domain.name, reason, message)
        self._context.event(EventType.WARNING, Kind.VIRTUAL_MACHINE, domain.name, reason, message)


def _holds(claim: Claim, node: str) -> bool:
    """Whether the node owns it, or is one of its two hosts: the copy of a target has never run."""
    moving = claim.migration
    return claim.node == node or (moving is not None and node in (moving.source, moving.target))
