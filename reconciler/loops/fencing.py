"""The master's fencing: drives each node's, step by step, and settles its return.

No decisions here: planning/fencing.py says what the next step is. Invariant: each step is recorded before
the next is taken, under the epoch that is held: the next master goes on where this one ends (SAFETY 12, 15).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TypeVar, assert_never

from reconciler.loops.agent_state import RecordEvent
from reconciler.loops.failovers import Failovers, Stopwatch
from reconciler.loops.fencing_facts import FactReader, FencingInput
from reconciler.loops.fencing_writes import FencingWrites
from reconciler.loops.views import Views
from reconciler.loops.writer import Writer
from reconciler.planning.backoff import delay
from reconciler.planning.fencing import (
    BreakLocks,
    Clear,
    Done,
    Fence,
    FenceFacts,
    FenceStep,
    Finish,
    Intend,
    Lift,
    Release,
    Settle,
    Wait,
    next_step,
    still_missing,
)
from reconciler.planning.fencing_record import (
    Stamp,
    failed,
    fenced,
    finished,
    intent_record,
    lifted,
    settled,
    unlocked,
    unsettled,
)
from reconciler.planning.judging import Watched
from reconciler.ports.clock import Clock, Ids
from reconciler.ports.fencer import Fencer, Guard
from reconciler.resources import keys
from reconciler.resources.errors import ConflictError, FenceFailed, StoreError
from reconciler.resources.fencing import FenceMethod, FenceRecord
from reconciler.resources.kinds import Kind
from reconciler.resources.records import Epoch, EventType, Session

log = logging.getLogger(__name__)

T = TypeVar("T")

LOOK = 0.5
"""Seconds between looks at nodes that nothing was heard about."""
REST = 2.0
"""Seconds before a fencer that gave a proof that does not count is asked again."""
BATCH = 20
"""VMs that are released in one transaction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FencingContext:
    """What the loop needs; `epoch` is the one held. `reached`: told of each step before it is taken, as
    `fencing:Settle`; tests stop the process there."""

    epoch: Epoch
    clock: Clock
    ids: Ids
    views: Views
    writer: Writer
    event: RecordEvent
    input: FencingInput
    reached: Callable[[str], None] = lambda point: None


class Fencing:
    """One mastership's. `run` until the epoch is another's."""

    def __init__(self, context: FencingContext) -> None:
        self._context = context
        self._reader = FactReader(context.input)
        self._writes = FencingWrites(context.views, context.writer, context.epoch)
        self._not_before: dict[tuple[str, str], float] = {}
        self._driven: dict[str, asyncio.Task[None]] = {}
        self._told: dict[str, str] = {}
        self._changed = asyncio.Event()
        self._stopwatch = Stopwatch(context.input.node, context.clock)
        self._failovers = Failovers(
            context.views, context.writer, context.clock, self._stopwatch, context.event
        )

    async def run(self) -> None:
        """Look at every node, each on its own: one that hangs keeps no other waiting."""
        unsubscribe = self._context.views.cache.subscribe(self._note)
        timelines = asyncio.create_task(self._failovers.run(), name="failovers")
        try:
            while self._context.writer.holds(keys.EPOCH):
                if timelines.done() and self._context.writer.holds(keys.EPOCH):
                    log.error("the timelines of failovers stopped; going on", exc_info=timelines.exception())
                    timelines = asyncio.create_task(self._failovers.run(), name="failovers")
                self._changed.clear()
                self._look()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK):
                        await self._changed.wait()
        finally:
            unsubscribe()
            tasks = (timelines, *self._driven.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _note(self, changed: frozenset[str]) -> None:
        if any(key.startswith((keys.FENCES, keys.CONFIRMS, keys.RETURNS)) for key in changed):
            self._changed.set()
        confirmed = {key.removeprefix(keys.CONFIRMS) for key in changed if key.startswith(keys.CONFIRMS)}
        for node, id in list(self._not_before):
            if node in confirmed and id in self._by_hand():
                del self._not_before[node, id]  # a person does not wait for the pause after the last look

    def _by_hand(self) -> frozenset[str]:
        fencers = self._context.input.fencers()
        return frozenset(fencer.id for fencer in fencers if fencer.method is FenceMethod.MANUAL)

    def _fencer(self, id: str) -> Fencer:
        """The one that a step was decided with. Raises ConflictError when it went away since."""
        for fencer in self._context.input.fencers():
            if fencer.id == id:
                return fencer
        raise ConflictError(f"there is no fencer {id} any more")

    def _look(self) -> None:
        for node in self._reader.nodes():
            task = self._driven.get(node)
            if task is not None and not task.done():
                continue
            if task is not None and not task.cancelled() and (error := task.exception()) is not None:
                log.error("fencing of %s failed; going on", node, exc_info=error)
            self._driven[node] = asyncio.create_task(self._drive(node), name=f"fence {node}")

    async def _drive(self, node: str) -> None:
        """Step after step, until there is nothing to do at the moment."""
        try:
            while await self.step(node):
                pass
        except ConflictError as error:
            log.info("fencing of %s: %s; looking again", node, error.message)
        except StoreError as error:
            log.warning("fencing of %s: %s; looking again", node, error)

    async def step(self, node: str) -> bool:
        """One step; whether there may be another at once. Raises ConflictError, StoreError."""
        facts = self._reader.facts(node, self._resting(node))
        if facts is None:
            log.error("the record of %s's fencing cannot be read; nothing is done about it", node)
            return False
        if facts.record is not None:
            self._stopwatch.start(facts.record.id, facts.silence)
        step = next_step(facts)
        match step:
            case Done():
                self._tell(facts)
                return False
            case Wait():
                await self._wait(facts, step)
                return False
            case _:
                await self._do(facts, step)
                return True

    async def _do(self, facts: FenceFacts, step: FenceStep) -> None:
        record = facts.record
        self._context.reached(f"fencing:{type(step).__name__}")
        if isinstance(step, Intend):
            await self._intend(facts, step)
            return
        assert record is not None
        match step:
            case Fence():
                await self._fence(record, step)
            case Settle():
                await self._settle(record, step)
            case BreakLocks():
                await self._break_locks(record, step)
            case Release(vms=vms):
                await self._release(record, vms)
            case Finish():
                done = finished(record, self._stamp(record))
                await self._writes.save(done)
                self._say(record, "Fenced", f"{record.incident}: nothing of it is left to take")
            case Lift():
                await self._lift(record, step)
            case Clear():
                await self._writes.clear(record, self._stamp(record))
                self._say(record, "ReturnSettled", f"{record.incident}: the node takes work again")
            case _:
                assert_never(step)

    async def _intend(self, facts: FenceFacts, step: Intend) -> None:
        context = self._context
        before = facts.session or Session(session=0, boot_id="", machine_id="", started="")
        session = replace(before, session=before.session + 1)
        fsids = [fencer.fsid for fencer in facts.fencers if fencer.fsid and not fencer.unready]
        id, silence = context.ids.uuid(), facts.silence
        self._stopwatch.start(id, silence)
        stamp = replace(self._stamp(), after=silence.since if silence else None, by=context.input.node)
        record = replace(intent_record(step, facts.node, id, session, fsids, stamp), silence=silence)
        await self._writes.intend(record, session)
        self._say(record, "FencingBegun", f"{record.incident}: {step.reason}", EventType.WARNING)

    async def _fence(self, record: FenceRecord, step: Fence) -> None:
        fencer = self._fencer(step.fencer)
        timeout = self._context.input.policy().time_out(fencer.method)
        began = self._context.clock.monotonic()
        proof = await self._attempt(
            record, fencer, lambda: fencer.fence(step.order, self._guard(record), timeout=timeout), timeout
        )
        if proof is None:
            return
        self._rest(record, fencer, REST if not fencer.fsid else 0.0)
        done = fenced(record, fencer.id, step.order, proof, self._stamp(record, began))
        await self._writes.save(done)
        self._say(record, "ProofFound", f"{record.incident}: {_last(done)}")

    async def _settle(self, record: FenceRecord, step: Settle) -> None:
        fencer, proof = self._fencer(step.fencer), record.on(step.fsid)
        assert proof is not None
        timeout = self._context.input.policy().time_out(fencer.method)
        began = self._context.clock.monotonic()
        done = await self._attempt(
            unsettled(record, step.fsid),
            fencer,
            lambda: _true(fencer.settle(step.order, proof, timeout=timeout)),
            timeout,
        )
        if done is not None:
            await self._writes.save(settled(record, fencer.id, step.fsid, self._stamp(record, began)))
            self._say(
                record, "FenceSettled", f"{record.incident}: Ceph cluster {step.fsid} has taken it over"
            )

    async def _break_locks(self, record: FenceRecord, step: BreakLocks) -> None:
        fencer = self._fencer(step.fencer)
        timeout = self._context.input.policy().time_out(fencer.method)
        began = self._context.clock.monotonic()
        broken = await self._attempt(
            record,
            fencer,
            lambda: fencer.break_locks(step.order, self._guard(record), timeout=timeout),
            timeout,
        )
        if broken is not None:
            done = unlocked(record, fencer.id, step.fsid, broken, self._stamp(record, began))
            await self._writes.save(done)
            self._say(record, "LocksBroken", f"{record.incident}: {_last(done)}")

    async def _release(self, record: FenceRecord, vms: tuple[str, ...]) -> None:
        chosen = vms[:BATCH]
        taken = await self._writes.release(record, chosen, self._stamp(record))
        log.info("fencing of %s: took %s from it", record.node, ", ".join(taken) or "no running VM")
        for vm in taken:
            message = f"taken from {record.node}, which was fenced ({record.incident}): {record.reason}"
            self._context.event(EventType.WARNING, Kind.VIRTUAL_MACHINE, vm, "FailedOver", message)

    async def _lift(self, record: FenceRecord, step: Lift) -> None:
        fencer = self._fencer(step.fencer)
        timeout = self._context.input.policy().time_out(fencer.method)
        began = self._context.clock.monotonic()
        guard = self._guard(record)
        done = await self._attempt(
            record,
            fencer,
            lambda: _true(fencer.lift(step.order, guard, clients=step.clients, timeout=timeout)),
            timeout,
        )
        if done is not None:
            stamp = self._stamp(record, began)
            after = lifted(record, fencer.id, step.fsid, stamp, clients=step.clients)
            await self._writes.save(after)
            self._say(record, "LetIn", f"{record.incident}: {_last(after)}")

    async def _attempt(
        self, record: FenceRecord, fencer: Fencer, call: Callable[[], Awaitable[T]], timeout: float
    ) -> T | None:
        """Its result, or None after a failure, which is recorded on `record`. A fencer that keeps to no
        time-out is not waited for either."""
        try:
            async with asyncio.timeout(timeout + 5.0):
                return await call()
        except (FenceFailed, TimeoutError) as error:
            why = str(error) or f"it did not answer within {timeout:g} s"
        before = record.attempt(fencer.id)
        done = failed(record, fencer.id, why, self._stamp(record))
        self._rest(record, fencer, delay(done.attempt(fencer.id).failures, self._context.ids.jitter()))
        await self._writes.save(done)
        if (before.error, before.failures == 0) != (done.attempt(fencer.id).error, False):
            message = f"{record.incident}: {fencer.id}: {why}; it is tried again"
            self._say(record, "FencingFailed", message, EventType.WARNING)
        return None

    async def _wait(self, facts: FenceFacts, step: Wait) -> None:
        """What is missing is recorded, for whoever asks why a VM does not start elsewhere."""
        record = facts.record
        assert record is not None
        missing = () if record.released and not facts.claims else still_missing(facts, record)
        if missing != record.missing:
            await self._writes.save(replace(record, missing=missing))
        self._explain(facts.node, "; ".join(step.reasons), lambda words: log.info("%s", words))

    def _tell(self, facts: FenceFacts) -> None:
        """People are told of a node that is suspicious and not fenced."""
        if isinstance(facts.verdict, Watched):
            self._explain(
                facts.node,
                facts.verdict.reason,
                lambda words: self._context.event(
                    EventType.WARNING, Kind.NODE, facts.node, "NotFenced", words
                ),
            )
        else:
            self._told.pop(facts.node, None)

    def _explain(self, node: str, words: str, say: Callable[[str], None]) -> None:
        """Once for each change of mind; the seconds in it do not count as one."""
        bare = "".join(c for c in words if not c.isdigit() and c != ".")
        if words and self._told.get(node) != bare:
            say(words)
        self._told[node] = bare

    def _guard(self, record: FenceRecord) -> Guard:
        async def guard() -> None:
            try:
                await self._writes.still(record)
            except StoreError as error:
                raise FenceFailed(f"whether this is still to be done is not known: {error}") from error

        return guard

    def _resting(self, node: str) -> frozenset[str]:
        now = self._context.clock.monotonic()
        return frozenset(f for (n, f), until in self._not_before.items() if n == node and until > now)

    def _rest(self, record: FenceRecord, fencer: Fencer, seconds: float) -> None:
        self._not_before[record.node, fencer.id] = self._context.clock.monotonic() + seconds

    def _stamp(self, record: FenceRecord | None = None, began: float | None = None) -> Stamp:
        """Now; `began`: when the step did, by the monotonic clock."""
        clock = self._context.clock
        seconds = clock.monotonic() - began if began is not None else 0.0
        stamp = Stamp(at=clock.wall(), epoch=self._context.epoch.epoch, seconds=seconds)
        if record is None:
            return stamp
        after, by = self._stopwatch.read(record.id, record.began, record.silence)
        return replace(stamp, after=after, by=by)

    def _say(
        self, record: FenceRecord, reason: str, message: str, type: EventType = EventType.NORMAL
    ) -> None:
        log.info("node %s: %s: %s", record.node, reason, message)
        self._context.event(type, Kind.NODE, record.node, reason, message)


async def _true(call: Awaitable[None]) -> bool:
    await call
    return True


def _last(record: FenceRecord) -> str:
    step = record.steps[-1]
    return f"{step.detail} ({step.seconds:.1f} s)"
