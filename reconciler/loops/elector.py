"""Takes, keeps and gives up mastership as planning/election decides, and runs the master's loop meanwhile.

Invariant: the lease says which epoch this node is about to hold *before* the epoch is in the store, so that
nobody who sees the epoch and then reads the leases takes a new master for one that has given up.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Coroutine
from dataclasses import dataclass, replace
from typing import Any

from reconciler.loops.membership import Membership
from reconciler.loops.views import Views
from reconciler.loops.writer import Writer, conflicts
from reconciler.planning.election import (
    Campaign,
    ElectionView,
    Hold,
    Idle,
    StepDown,
    elect,
    unfitness,
    vacancy,
)
from reconciler.planning.timers import Timers
from reconciler.ports.clock import Clock
from reconciler.resources import keys
from reconciler.resources.errors import StoreError
from reconciler.resources.records import Epoch, dump
from reconciler.resources.transactions import Committed

log = logging.getLogger(__name__)

RunMaster = Callable[[Epoch], Coroutine[Any, Any, None]]
RETRY = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ElectorContext:
    """`problems`: why this node cannot be master, besides the majority (asked at each look; quick).
    `run_master`: the master's work, cancelled when mastership ends. `elected`: told of each change, in words.
    `switched_off`: boot ids of hosts that a fence agent has switched off, and seen to be off.
    """

    node: str
    clock: Clock
    views: Views
    writer: Writer
    membership: Membership
    timers: Timers
    problems: Callable[[], tuple[str, ...]]
    run_master: RunMaster
    elected: Callable[[str, str], None]
    switched_off: Callable[[], Collection[str]] = tuple


class Elector:
    """`run` for ever. `epoch` is the one held, None for none; `reason` says why not."""

    def __init__(self, context: ElectorContext) -> None:
        self.epoch: Epoch | None = None
        self.reason = "not decided yet"
        self._context = context
        self._master: asyncio.Task[None] | None = None
        self._epoch_known: Epoch | None = None
        self._epoch_known_at = float("-inf")
        self._vacant_since: float | None = None
        self._behind: tuple[int, float] | None = None
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Look at every heartbeat's interval, and as soon as the epoch or a peer's mind changes."""
        changed = self._changed
        unsubscribe = self._context.views.cache.subscribe(
            lambda found: changed.set() if keys.EPOCH in found else None
        )
        deafen = self._context.membership.subscribe(changed.set)
        try:
            while True:
                changed.clear()
                await self.step()
                await self._pause(changed)
        finally:
            unsubscribe()
            deafen()
            await self.end()

    async def step(self) -> None:
        """One look, and what follows from it."""
        view = self._view()
        self._bear(view)  # what follows may wait for the store, and the others shall know why meanwhile
        decision = elect(view, self._context.timers)
        match decision:
            case Idle(reason=reason):
                self._say(reason)
            case Hold():
                if self._master is not None and self._master.done():
                    await self._step_down(StepDown(reason=self._why_ended()))
            case StepDown():
                await self._step_down(decision)
            case Campaign(reason=reason):
                await self._campaign(reason)
        self._bear(view)

    def _view(self) -> ElectionView:
        context, now = self._context, self._context.clock.monotonic()
        membership = context.membership
        epoch = context.views.epoch()
        if epoch != self._epoch_known:
            self._epoch_known, self._epoch_known_at = epoch, now
        read_at, renewed_at = membership.leases_read_at, membership.renewed_at
        sights, boots = membership.sights(), context.switched_off()
        off = (s.name for s in sights if s.heartbeat is not None and s.heartbeat.boot_id in boots)
        view = ElectionView(
            me=context.node,
            sights=sights,
            epoch=epoch,
            holding=self.epoch.epoch if self.epoch is not None else None,
            renewed=now - renewed_at if renewed_at is not None else None,
            problems=self._problems(now),
            leases_current=read_at is not None and read_at > self._epoch_known_at,
            off=frozenset(off),
        )
        if not vacancy(view, context.timers):
            self._vacant_since = None
        elif self._vacant_since is None:
            self._vacant_since = now
        vacant_for = now - self._vacant_since if self._vacant_since is not None else 0.0
        return replace(view, vacant_for=vacant_for)

    def _problems(self, now: float) -> tuple[str, ...]:
        found = list(self._context.problems())
        cache = self._context.views.cache
        if not cache.healthy:
            found.append("the store does not answer")
        elif self._is_behind(now):
            found.append("the copy of the store is behind that of other nodes")
        return tuple(found)

    def _is_behind(self, now: float) -> bool:
        """Whether another node has shown a revision, for as long as its silence would count, that is not
        here yet."""
        cache = self._context.views.cache
        heartbeats = (sight.heartbeat for sight in self._context.membership.sights())
        newest = max((beat.revision for beat in heartbeats if beat is not None), default=0)
        if self._behind is not None and cache.revision >= self._behind[0]:
            self._behind = None
        if self._behind is None and newest > cache.revision:
            self._behind = (newest, now)
        return self._behind is not None and now - self._behind[1] > self._context.timers.mesh_silent

    def _bear(self, view: ElectionView) -> None:
        """What the others shall hear of this node."""
        bearing = self._context.membership.bearing
        unfit = unfitness(view, self._context.timers)
        bearing.eligible, bearing.reason = not unfit, unfit
        epoch = self._context.views.epoch()
        vacant = vacancy(view, self._context.timers) if self.epoch is None else ""
        bearing.master = epoch.holder if epoch is not None and not vacant else ""

    async def _campaign(self, reason: str) -> None:
        context = self._context
        before, revision = context.views.epoch(), context.views.cache.revision_of(keys.EPOCH)
        number = before.epoch + 1 if before is not None else 1
        bearing = context.membership.bearing
        bearing.mastering, bearing.successor = number, None
        try:
            await context.membership.renew()
            won = await self._take(Epoch(epoch=number, holder=context.node), revision)
        except StoreError as error:
            bearing.mastering = None
            self._say(f"epoch {number} was not taken: {error}")
            return
        if not won:
            bearing.mastering = None
            self._say(f"another node was faster with epoch {number}")
            return
        self._vacant_since = None
        self._say(f"master with epoch {number}: {reason}")
        context.elected("BecameMaster", f"epoch {number}: {reason}")
        assert self.epoch is not None
        self._master = asyncio.create_task(context.run_master(self.epoch), name="master")
        self._master.add_done_callback(lambda _: self._changed.set())

    async def _take(self, epoch: Epoch, revision: int) -> bool:
        """`revision` is of the epoch that this one follows: read with it, and not after waiting for anything,
        or two nodes could take the same number."""
        writer = self._context.writer
        result = await writer.commit(
            compares={keys.EPOCH: revision},
            puts={keys.EPOCH: dump(epoch)},
            guards=(keys.SCHEMA, keys.session(self._context.node)),
        )
        if conflicts(result):
            return False
        assert isinstance(result, Committed)
        writer.guard(keys.EPOCH, result.revision)
        self.epoch = epoch
        return True

    async def _step_down(self, decision: StepDown) -> None:
        context = self._context
        held = self.epoch.epoch if self.epoch is not None else 0
        await self._end_master()
        self.epoch = None
        bearing = context.membership.bearing
        bearing.mastering, bearing.successor = None, decision.successor
        self._say(f"epoch {held} is over: {decision.reason}")
        context.elected("GaveUpMastership", f"epoch {held}: {decision.reason}")
        with contextlib.suppress(StoreError):
            await context.membership.renew()

    async def end(self) -> None:
        """Be master no more, without telling anybody: the daemon ends."""
        await self._end_master()
        self.epoch = None

    async def _end_master(self) -> None:
        task, self._master = self._master, None
        if task is None:
            return
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled() and task.exception() is not None:
            log.error("the master's loop failed", exc_info=task.exception())

    def _why_ended(self) -> str:
        task = self._master
        error = task.exception() if task is not None and task.done() and not task.cancelled() else None
        return f"the master's loop failed: {error}" if error is not None else "the master's loop ended"

    async def _pause(self, changed: asyncio.Event) -> None:
        """Until the next look: an interval, or sooner when something changed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._context.timers.mesh_heartbeat):
                await changed.wait()

    def _say(self, reason: str) -> None:
        """One line for each change of mind; the seconds in it do not count as one."""
        if _without_numbers(reason) != _without_numbers(self.reason):
            log.info("node %s: %s", self._context.node, reason)
        self.reason = reason


def _without_numbers(text: str) -> str:
    return "".join(character for character in text if not character.isdigit() and character != ".")
