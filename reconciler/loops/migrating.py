"""The master's part in live migrations: it opens, follows, ends and settles them, one transaction a step.

Every decision is `next_step` (planning/migration.py) from what the store has, so a master that takes over
goes on. Invariants (SAFETY rules 4 and 17): every write compares the epoch and the record; what a step rests
on is compared too - the claim, what both hosts have said, their sessions; the claim, the binding, the images'
keys and the record's end are one transaction.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from reconciler.loops.agent_state import RecordEvent
from reconciler.loops.placement_input import read_nodes, read_vm
from reconciler.loops.placement_writes import placed_status
from reconciler.loops.views import Views
from reconciler.loops.writer import Writer, conflicts
from reconciler.planning.desired import Wish
from reconciler.planning.migration import (
    AT_LEAST,
    Abort,
    End,
    Facts,
    Go,
    Hold,
    Open,
    Refuse,
    Settle,
    Step,
    Wait,
    longest,
    next_step,
    opened,
)
from reconciler.planning.migration_turns import (
    KEPT,
    in_order,
    source_words,
    target_problem,
    turn_of,
)
from reconciler.ports.clock import Clock
from reconciler.resources import keys
from reconciler.resources.errors import StoreError
from reconciler.resources.kinds import Kind
from reconciler.resources.migrations import (
    ENDED,
    CancelRecord,
    MigrationPhase,
    MigrationRecord,
    MigrationSide,
)
from reconciler.resources.records import Binding, Claim, DiskClaim, Epoch, EventType, Session, dump

log = logging.getLogger(__name__)

LOOK = 1.0
"""Seconds between looks while a migration is open: time itself may be what changes."""

_RELEVANT = (
    keys.MIGRATIONS,
    keys.MIGRATING,
    keys.CANCELS,
    keys.CLAIMS,
    keys.FENCES,
    keys.SESSIONS,
    keys.POWER_INTENT,
    f"{keys.SPECS}{Kind.VIRTUAL_MACHINE}/",
    f"{keys.INTENTS}{Kind.VIRTUAL_MACHINE}/",
    f"{keys.SPECS}{Kind.CLUSTER}/",
    f"{keys.INTENTS}{Kind.NODE}/",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationsContext:
    """What the master needs; `absent(node)`: why a node takes no work because of what is heard of it.
    `reached(point)`: told of each step before it is written."""

    epoch: Epoch
    clock: Clock
    views: Views
    writer: Writer
    event: RecordEvent
    absent: Callable[[str], str] = lambda node: ""
    reached: Callable[[str], None] = lambda point: None


class Migrations:
    """Of one mastership. `run()` ends when it is cancelled, or the epoch is another's."""

    def __init__(self, context: MigrationsContext) -> None:
        self._context = context
        self._changed = asyncio.Event()
        self._since: dict[tuple[str, MigrationPhase], float] = {}
        self._waits: dict[str, tuple[str, float]] = {}
        """What each waits for, and since when it has (monotonic)."""

    async def run(self) -> None:
        """Look whenever something changes, and each second while one is open."""
        unsubscribe = self._context.views.cache.subscribe(self._note)
        try:
            while self._context.writer.holds(keys.EPOCH):
                self._changed.clear()
                try:
                    left = await self.step()
                except StoreError as error:
                    log.warning("migrations: %s; trying again", error)
                    left = True
                except Exception:
                    # A bug here must not end the mastership, on which failovers depend: it is logged whole.
                    log.exception("migrations: unexpected error; trying again")
                    left = True
                await self._wait(LOOK if left else None)
        finally:
            unsubscribe()

    def _note(self, changed: frozenset[str]) -> None:
        if any(key.startswith(_RELEVANT) for key in changed):
            self._changed.set()

    async def _wait(self, seconds: float | None) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return

    async def step(self) -> bool:
        """One look at each; whether any is not ended. Raises StoreError."""
        records = self._records()
        going = [record for record in records if record.phase not in ENDED]
        if not going:
            return False
        specs = {record.vm: self._context.views.vm(record.vm) for record in going}
        priorities = {vm: spec.priority for vm, spec in specs.items() if spec is not None}
        for listed in in_order(going, priorities):
            # Read again: what is written rests on what is there, and the step before this one has waited.
            record = self._context.views.record(keys.migration(listed.id), MigrationRecord)
            facts = self._facts(record) if record is not None else None
            if facts is not None:
                await self._do(facts, next_step(facts))
        left = {record.id for record in going}
        self._since = {key: at for key, at in self._since.items() if key[0] in left}
        self._waits = {id: said for id, said in self._waits.items() if id in left}
        return True

    def _records(self) -> list[MigrationRecord]:
        views = self._context.views
        found = (views.record(item.key, MigrationRecord) for item in views.cache.prefix(keys.MIGRATIONS))
        return [record for record in found if record is not None]

    # -- what it knows ---------------------------------------------------------------------------------

    def _facts(self, record: MigrationRecord) -> Facts | None:
        """None when something of it cannot be read: then nothing is done about it."""
        views, both = self._context.views, (record.source, record.target)
        claim = views.claim(record.vm)
        if claim is None and views.exists(keys.claim(record.vm)):
            log.error("migration %s: the claim of %s cannot be read; nothing is done", record.id, record.vm)
            return None
        sides, sessions = {}, {}
        for node in both:
            side = views.record(keys.migrating(record.id, node), MigrationSide)
            session = views.record(keys.session(node), Session)
            if side is not None:
                sides[node] = side
            if session is not None:
                sessions[node] = session.session
        pending = record.phase is MigrationPhase.PENDING
        return Facts(
            record=record,
            claim=claim,
            sides=sides,
            sessions=sessions,
            obstacle=self._obstacle(record) if pending else "",
            turn=self._turn(record) if pending else "",
            overdue=self._overdue(record),
            leaving=self._leaving(record),
        )

    def _obstacle(self, record: MigrationRecord) -> str:
        """Why it cannot begin at all. That a fence of either host is recorded is one."""
        views = self._context.views
        for node in (record.source, record.target):
            if views.exists(keys.fence(node)):
                return f"node {node} is being fenced"
        away = self._context.absent(record.source)
        if away:
            return source_words(record, away)
        there = target_problem(record, read_nodes(views, self._context.absent))
        if there:
            return there
        vm = read_vm(views, record.vm, power_on=views.power_on(), now=self._context.clock.wall())
        return vm.cannot_migrate if vm is not None else "its spec cannot be read"

    def _turn(self, record: MigrationRecord) -> str:
        views = self._context.views
        binding = views.binding(record.vm)
        if binding is None or binding.node != record.source or binding.uid != record.uid:
            return (
                f"it is bound to {binding.node if binding is not None else 'no node'}, and goes there first"
            )
        claim = views.claim(record.vm)
        if claim is not None and claim.plugging is not None:
            way = "detached" if claim.plugging.away else "attached"
            return f"its disk '{claim.plugging.disk}' is being {way}"
        return turn_of(record, self._records(), views.cluster_spec().migration)

    def _overdue(self, record: MigrationRecord) -> bool:
        """By this master's own clock, from when it first saw the phase."""
        if record.phase not in (MigrationPhase.OPEN, MigrationPhase.RUNNING):
            return False
        now = self._context.clock.monotonic()
        since = self._since.setdefault((record.id, record.phase), now)
        return now - since > (longest(record) if record.phase is MigrationPhase.RUNNING else AT_LEAST)

    def _leaving(self, record: MigrationRecord) -> str:
        """Why it is not wanted any more, or nothing."""
        views = self._context.views
        asked = views.record(keys.cancel(record.id), CancelRecord)
        if asked is not None:
            return asked.reason
        spec = views.spec_record(Kind.VIRTUAL_MACHINE, record.vm)
        if spec is None or spec.metadata.uid != record.uid:
            return "it was deleted"
        vm = read_vm(views, record.vm, power_on=views.power_on(), now=self._context.clock.wall())
        if vm is not None and vm.desired.wish is not Wish.RUN:
            return f"it is to stop: {vm.desired.reason}"
        drained = views.node_in_force(record.source).drain
        if record.phase is MigrationPhase.PENDING and record.drain and record.drain != drained:
            return f"node {record.source} is not drained any more"
        return ""

    # -- what it does ----------------------------------------------------------------------------------

    async def _do(self, facts: Facts, step: Step) -> None:
        record = facts.record
        if not isinstance(step, Wait):
            self._context.reached(f"migration:{type(step).__name__}")
        match step:
            case Wait(reason=reason):
                await self._explain(record, reason)
            case Refuse(reason=reason):
                await self._end(record, reason, cancelled=bool(facts.leaving))
            case Open():
                await self._open(facts)
            case Go(phase=phase):
                going = replace(record, phase=phase, message="")
                if await self._save(going, self._sides(record)):
                    log.info("vm %s: migration to %s: %s", record.vm, record.target, phase)
            case Hold():
                words = f"it took longer than {record.limit:.0f} s: it is held until its memory is over"
                if await self._save(replace(record, hold=True, message=words), {}):
                    self._say(record, "Migrating", words)
            case Abort(reason=reason):
                if await self._save(replace(record, abort=reason, message=reason), {}):
                    log.warning("vm %s: its migration is ended early: %s", record.vm, reason)
            case End(nodes=nodes):
                ends = tuple(sorted({*record.ends, *nodes}))
                await self._save(replace(record, ends=ends), self._sides(record))
            case Settle():
                await self._settle(facts, step)

    async def _explain(self, record: MigrationRecord, reason: str) -> None:
        """What lasts is told. What is over in a moment is not: a write of the record costs the hosts one."""
        now = self._context.clock.monotonic()
        before, since = self._waits.get(record.id, ("", now))
        if before != reason:
            self._waits[record.id] = (reason, now)
        elif now - since >= LOOK and reason != record.message:
            await self._save(replace(record, message=reason), {})

    def _sides(self, record: MigrationRecord) -> dict[str, int]:
        """What both hosts have said, as it was decided on."""
        revision = self._context.views.cache.revision_of
        both = (keys.migrating(record.id, node) for node in (record.source, record.target))
        claim = keys.claim(record.vm)
        return {claim: revision(claim), **{key: revision(key) for key in both}}

    async def _save(self, record: MigrationRecord, compares: Mapping[str, int]) -> bool:
        return await self._write(record, compares, {})

    async def _open(self, facts: Facts) -> None:
        record, revision = facts.record, self._context.views.cache.revision_of
        both = (record.source, record.target)
        decided = (keys.claim(record.vm), keys.binding(record.vm), *map(keys.session, both))
        compares = {key: revision(key) for key in decided}
        compares |= {keys.POWER_INTENT: 0, **{keys.fence(node): 0 for node in both}}
        puts = {keys.claim(record.vm): dump(opened(facts))}
        begun = replace(record, phase=MigrationPhase.OPEN, message="", began=self._context.clock.wall())
        if await self._write(begun, compares, puts):
            self._say(record, "Migrating", f"from {record.source} to {record.target}: {record.reason}")

    async def _settle(self, facts: Facts, step: Settle) -> None:
        record, claim, cache = facts.record, step.claim, self._context.views.cache
        compares, puts, deletes = self._sides(record), {keys.claim(record.vm): dump(claim)}, list[str]()
        if claim.node:
            compares[keys.session(claim.node)] = cache.revision_of(keys.session(claim.node))
            puts.update(self._bound(record, claim, compares))
        before = facts.claim.disks if facts.claim is not None else ()
        for key in map(keys.disk, before):
            holder = self._context.views.record(key, DiskClaim)
            if holder is None or holder.vm != record.vm:
                continue
            compares[key] = cache.revision_of(key)
            if not claim.node:
                deletes.append(key)
            elif holder.node != claim.node:
                puts[key] = dump(replace(holder, node=claim.node))
        ended = self._ended(record, step.phase, step.message)
        if not await self._write(ended, compares, puts, deletes):
            return
        self._told(ended)
        await self._tidy()

    def _bound(self, record: MigrationRecord, claim: Claim, compares: dict[str, int]) -> dict[str, bytes]:
        """The binding follows the claim, and so does what people are told of where it is placed."""
        views, key = self._context.views, keys.binding(record.vm)
        binding = views.record(key, Binding)
        compares[key] = views.cache.revision_of(key)
        if binding is not None and (binding.node, binding.uid) == (claim.node, claim.uid):
            return {}
        now = self._context.clock.wall()
        reason = record.reason if claim.node == record.target else "its live migration ended here"
        bound = Binding(
            node=claim.node, uid=claim.uid, epoch=self._context.epoch.epoch, bound=now, reason=reason
        )
        return {key: dump(bound), **placed_status(views, record.vm, claim.node, True, reason, now)}

    async def _end(self, record: MigrationRecord, reason: str, *, cancelled: bool) -> None:
        phase = MigrationPhase.CANCELLED if cancelled else MigrationPhase.FAILED
        ended = self._ended(record, phase, reason)
        if await self._save(ended, {}):
            self._told(ended)
            await self._tidy()

    def _ended(self, record: MigrationRecord, phase: MigrationPhase, message: str) -> MigrationRecord:
        return replace(record, phase=phase, message=message, finished=self._context.clock.wall())

    def _told(self, record: MigrationRecord) -> None:
        well = record.phase is MigrationPhase.SUCCEEDED
        words = {MigrationPhase.SUCCEEDED: "Migrated", MigrationPhase.CANCELLED: "MigrationCancelled"}
        reason = words.get(record.phase, "MigrationFailed")
        self._say(record, reason, record.message, EventType.NORMAL if well else EventType.WARNING)

    async def _tidy(self) -> None:
        """Forget the oldest that have ended, with all that was said of them."""
        views = self._context.views
        ended = sorted((r for r in self._records() if r.phase in ENDED), key=lambda r: (r.finished, r.id))
        for record in ended[: max(0, len(ended) - KEPT)]:
            prefix = keys.migrating(record.id, "")
            said = [item.key for item in views.cache.prefix(prefix)]
            cancel = [keys.cancel(record.id)] if views.exists(keys.cancel(record.id)) else []
            key = keys.migration(record.id)
            await self._commit({key: views.cache.revision_of(key)}, {}, [key, *said, *cancel])

    async def _write(
        self,
        record: MigrationRecord,
        compares: Mapping[str, int],
        puts: Mapping[str, bytes],
        deletes: Sequence[str] = (),
    ) -> bool:
        """With the record, which is compared as it was read for the decision."""
        key = keys.migration(record.id)
        same = {key: self._context.views.cache.revision_of(key), **compares}
        return await self._commit(same, {key: dump(record), **puts}, deletes)

    async def _commit(
        self, compares: Mapping[str, int], puts: Mapping[str, bytes], deletes: Sequence[str]
    ) -> bool:
        result = await self._context.writer.commit(
            compares=compares, puts=puts, deletes=deletes, guards=(keys.SCHEMA, keys.EPOCH)
        )
        lost = conflicts(result)
        if lost:
            log.debug("migrations: decided on an old state (%s); looking again", ", ".join(lost[:3]))
            self._changed.set()
        return not lost

    def _say(
        self, record: MigrationRecord, reason: str, message: str, type: EventType = EventType.NORMAL
    ) -> None:
        log.info("vm %s: %s: %s", record.vm, reason, message)
        self._context.event(type, Kind.VIRTUAL_MACHINE, record.vm, reason, message)
