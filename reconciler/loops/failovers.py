"""The master's timelines of failovers: it copies the steps of each fencing, and stamps what it sees of the
VMs that were taken, as they start elsewhere.

Decides nothing, and nothing waits for it: a timeline that cannot be written holds up no fencing. Invariants:
every write compares the epoch and the record that it was made from; each time is of one steady clock.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from datetime import datetime

from reconciler.loops.agent_state import RecordEvent
from reconciler.loops.views import Views
from reconciler.loops.writer import Writer, conflicts
from reconciler.planning.desired import Wish, desired
from reconciler.planning.failover import (
    VmFacts,
    copied,
    followed,
    is_open,
    joined,
    observed,
    phase_of,
    up,
)
from reconciler.ports.clock import Clock
from reconciler.resources import keys
from reconciler.resources.errors import StoreError
from reconciler.resources.failover import FailoverPhase, FailoverRecord, VmStep
from reconciler.resources.fencing import FenceRecord, Silence
from reconciler.resources.kinds import Kind
from reconciler.resources.records import Binding, ClaimPhase, EventType, dump
from reconciler.resources.status import ConditionStatus, ConditionType, MasterStatus, Phase

log = logging.getLogger(__name__)

RELEVANT = (
    keys.FENCES,
    keys.FAILOVERS,
    keys.BINDINGS,
    keys.CLAIMS,
    f"{keys.NODE_STATUS}{Kind.VIRTUAL_MACHINE}/",
    f"{keys.MASTER_STATUS}{Kind.VIRTUAL_MACHINE}/",
    f"{keys.SPECS}{Kind.VIRTUAL_MACHINE}/",
    f"{keys.INTENTS}{Kind.VIRTUAL_MACHINE}/",
)
PAUSE = 0.25
"""Seconds between a look and its write: the fencing itself and the starts go first."""
RETRY = 1.0


class Stopwatch:
    """Seconds since the last sign of life of each node that is being fenced, by this node's steady clock.

    A master that came later and did not hear that sign itself has only the wall clocks, and says so.
    """

    def __init__(self, node: str, clock: Clock) -> None:
        self._node = node
        self._clock = clock
        self._zeros: dict[str, float] = {}

    def start(self, id: str, silence: Silence | None) -> None:
        """The first that is known here of a fencing; a later word changes nothing."""
        if silence is not None:
            self._zeros.setdefault(id, self._clock.monotonic() - silence.since)

    def read(self, id: str, began: str, silence: Silence | None) -> tuple[float, str]:
        """(seconds, by which clock). `began`, `silence`: as the first master recorded them."""
        zero = self._zeros.get(id)
        if zero is not None:
            return self._clock.monotonic() - zero, self._node
        before = silence.since if silence is not None else 0.0
        spent = datetime.fromisoformat(self._clock.wall()) - datetime.fromisoformat(began)
        return max(spent.total_seconds() + before, 0.0), f"{self._node}, wall clock"


class Failovers:
    """One mastership's. `run` until the epoch is another's."""

    def __init__(
        self, views: Views, writer: Writer, clock: Clock, stopwatch: Stopwatch, event: RecordEvent
    ) -> None:
        self._views = views
        self._writer = writer
        self._clock = clock
        self._stopwatch = stopwatch
        self._event = event
        self._changed = asyncio.Event()
        self._ahead: dict[str, FailoverRecord] = {}
        self._behind = asyncio.Event()

    async def run(self) -> None:
        """Follow the store: look at once at each change, and write a little later what was seen."""
        unsubscribe = self._views.cache.subscribe(self._note)
        try:
            async with asyncio.TaskGroup() as group:
                writing = group.create_task(self._write_behind())
                while self._writer.holds(keys.EPOCH):
                    self._changed.clear()
                    if self.look():
                        self._behind.set()
                    await self._changed.wait()
                writing.cancel()
        finally:
            unsubscribe()

    def _note(self, changed: frozenset[str]) -> None:
        if keys.EPOCH in changed or any(key.startswith(RELEVANT) for key in changed):
            self._changed.set()

    def look(self) -> bool:
        """Take down what is seen now, with its time; whether the store does not have it yet."""
        behind = False
        known: dict[str, FailoverRecord] = {}
        for item in self._views.cache.prefix(keys.FAILOVERS):
            stored = self._views.record(item.key, FailoverRecord)
            if stored is not None:
                known[item.key] = self._followed(joined(stored, self._ahead.get(item.key)))
                behind = behind or known[item.key] != stored
        self._ahead = known
        return behind

    async def _write_behind(self) -> None:
        while True:
            await self._behind.wait()
            await asyncio.sleep(PAUSE)
            self._behind.clear()
            try:
                await self.write()
            except StoreError as error:
                log.info("failovers: %s; trying again", error)
                await asyncio.sleep(RETRY)
                self._behind.set()

    async def write(self) -> None:
        """Have the store know what was seen. What was decided on an old state is done again at the next
        look. Raises StoreError."""
        for key, ahead in sorted(self._ahead.items()):
            stored = self._views.record(key, FailoverRecord)
            if stored is None or stored == ahead:
                continue
            result = await self._writer.commit(
                compares={key: self._views.cache.revision_of(key)},
                puts={key: dump(ahead)},
                guards=(keys.SCHEMA, keys.EPOCH),
            )
            if conflicts(result):
                self._changed.set()
            else:
                self._tell(stored, ahead)

    def _followed(self, failover: FailoverRecord) -> FailoverRecord:
        record = self._views.record(keys.fence(failover.node), FenceRecord)
        if record is not None and not failover.returned:
            failover = copied(failover, record)
        seconds, by = self._stopwatch.read(failover.id, failover.began, failover.silence)
        if not is_open(failover, seconds):
            return failover
        facts = {vm: self._facts(vm, failover.node) for vm in followed(failover, seconds)}
        return observed(failover, facts, seconds, by)

    def _facts(self, vm: str, gone: str) -> VmFacts:
        """`gone`: the node that was fenced; an old report of its own is none of its new run."""
        views, cache = self._views, self._views.cache
        record, spec = views.spec_record(Kind.VIRTUAL_MACHINE, vm), views.vm(vm)
        if record is None:
            return VmFacts(exists=False, note="it was deleted")
        claim, binding = views.claim(vm), views.binding(vm)
        mine = claim if claim is not None and claim.uid == record.metadata.uid else None
        if spec is not None:
            wanted = desired(record, spec, views.intent(vm), mine, power_on=views.power_on())
            if wanted.wish is not Wish.RUN:
                return VmFacts(wanted=False, note=wanted.reason)
        owner = mine.node if mine is not None else ""
        report = views.node_status(vm)
        right = (record.metadata.uid, owner or _bound(binding))
        status = report if report is not None and (report.uid, report.node) == right else None
        reported = cache.revision_of(keys.node_status(Kind.VIRTUAL_MACHINE, vm))
        old = owner == gone and reported < cache.revision_of(keys.claim(vm))
        running = status is not None and status.phase is Phase.RUNNING and not old
        answers = status is not None and any(
            c.type is ConditionType.AGENT_CONNECTED and c.status is ConditionStatus.TRUE
            for c in status.conditions
        )
        note = status.message if status is not None and not running else ""
        return VmFacts(
            bound=_bound(binding),
            owner=owner,
            started=mine is not None and mine.phase is ClaimPhase.RUNNING,
            running=running,
            guest=running and answers,
            note=note or ("" if owner or binding is not None else self._why_not_placed(vm)),
        )

    def _why_not_placed(self, vm: str) -> str:
        status = self._views.record(keys.master_status(Kind.VIRTUAL_MACHINE, vm), MasterStatus)
        return status.message if status is not None else ""

    def _tell(self, before: FailoverRecord, after: FailoverRecord) -> None:
        """An event for each VM that runs again, and one when all of them do."""
        old: Mapping[str, bool] = {vm.name: vm.reached(VmStep.RUNNING) is not None for vm in before.vms}
        for vm in after.vms:
            mark = vm.reached(VmStep.RUNNING)
            if mark is not None and not old.get(vm.name, False):
                words = f"runs on {mark.node} {mark.after:.1f} s after the last sign of life of {after.node} "
                self._event(
                    EventType.NORMAL, Kind.VIRTUAL_MACHINE, vm.name, "Recovered", f"{words}({after.incident})"
                )
        done = FailoverPhase.COMPLETED
        if phase_of(after) is done and phase_of(before) is not done:
            words = f"{after.incident}: {up(after)} of {len(after.vms)} VMs run elsewhere"
            words += f"; see `vcl describe failover {after.incident}`"
            self._event(EventType.NORMAL, Kind.NODE, after.node, "FailoverDone", words)


def _bound(binding: Binding | None) -> str:
    return binding.node if binding is not None else ""
