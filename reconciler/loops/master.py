"""The master: binds VMs to nodes and says why not, ends bindings, finishes deletions.

Invariants: every write compares the epoch (and schema), so a master that was replaced while it slept cannot
write; of a VM whose records changed after they were read for the plan nothing is written; each write compares
them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from reconciler.loops.agent_state import RecordEvent
from reconciler.loops.migrating import Migrations, MigrationsContext
from reconciler.loops.migration_requests import Ask, new_migration
from reconciler.loops.placement_input import migrations_by_vm, read_nodes, read_vm
from reconciler.loops.placement_writes import placed_status
from reconciler.loops.rebalancing import Rebalancer, RebalancerContext, Situation
from reconciler.loops.views import Views
from reconciler.loops.writer import Writer, conflicts
from reconciler.planning.drains import drain_status
from reconciler.planning.eviction import Evictions, Guest, Held, Move, Way
from reconciler.planning.master import (
    Bind,
    Finalise,
    MasterPlan,
    NotPlaced,
    Stay,
    Unbind,
    VmRecords,
    guests_of,
    plan_master,
)
from reconciler.planning.placement import NamedConstraint, NodeView
from reconciler.planning.start_turns import all_started, in_turn
from reconciler.ports.clock import Clock
from reconciler.resources import keys
from reconciler.resources.errors import StoreError
from reconciler.resources.kinds import Kind
from reconciler.resources.migrations import MigrationRecord
from reconciler.resources.records import Binding, Epoch, EventType, Tombstone, dump
from reconciler.resources.shutdowns import PowerStart
from reconciler.resources.status import NodeMasterStatus

log = logging.getLogger(__name__)

RESYNC = 30.0
SETTLE = 0.02
"""Seconds to gather changes before a pass: a burst of a thousand files is one or a few passes."""

_RELEVANT = (
    keys.SPECS,
    keys.INTENTS,
    keys.BINDINGS,
    keys.CLAIMS,
    f"{keys.NODE_STATUS}{Kind.NODE}/",
    keys.EPOCH,
    keys.FENCES,
    keys.FAILURES,
    keys.MIGRATIONS,
    keys.REBALANCE,
)
_OF_ONE_VM = (
    f"{keys.SPECS}{Kind.VIRTUAL_MACHINE}/",
    f"{keys.INTENTS}{Kind.VIRTUAL_MACHINE}/",
    keys.BINDINGS,
    keys.CLAIMS,
    keys.FAILURES,
)
_BATCH = 50
MIGRATE_AGAIN = 60.0
"""Seconds from one request for a VM's migration to the next, when the first came to nothing."""
LARGE = 500
"""VMs from which on a plan is made on a thread: it takes longer than heartbeats and leases may wait for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MasterContext:
    """What the master needs; `epoch` is the one it holds; `absent(node)`: why a node takes no work because of
    what is heard of it, or nothing; `plan` decides, of LARGE clusters on a thread. `reached(point)`: told of
    each step of a migration before it is written."""

    node: str
    epoch: Epoch
    clock: Clock
    views: Views
    writer: Writer
    event: RecordEvent
    absent: Callable[[str], str] = lambda node: ""
    reached: Callable[[str], None] = lambda point: None
    plan: Callable[[list[VmRecords], list[NodeView], list[NamedConstraint]], MasterPlan] = plan_master


class Master:
    """One mastership. `run()` ends when the epoch is another's."""

    def __init__(self, context: MasterContext) -> None:
        self._context = context
        self._changed = asyncio.Event()
        self._migrations = Migrations(
            MigrationsContext(
                epoch=context.epoch,
                clock=context.clock,
                views=context.views,
                writer=context.writer,
                event=context.event,
                absent=context.absent,
                reached=context.reached,
            )
        )
        self._rebalancer = Rebalancer(
            RebalancerContext(
                clock=context.clock,
                views=context.views,
                writer=context.writer,
                event=context.event,
                absent=context.absent,
            )
        )
        self._records: dict[str, VmRecords] = {}
        self._dirty: set[str] | None = None
        self._outdated: set[str] = set()
        """The VMs whose records changed since they were read for the plan at hand."""
        self._pass_seconds = 0.0
        self._resting: dict[tuple[str, str], float] = {}
        """VMs whose migration was asked for, from where, and until when it is not again (monotonic)."""
        self._asked = 0

    async def run(self) -> None:
        """Pass after pass, and live migrations beside them, until the epoch is lost."""
        async with asyncio.TaskGroup() as group:
            migrations = group.create_task(self._migrations.run())
            await self._plan_on()
            migrations.cancel()

    async def _plan_on(self) -> None:
        unsubscribe = self._context.views.cache.subscribe(self._note)
        try:
            while self._context.writer.holds(keys.EPOCH):
                self._changed.clear()
                try:
                    await self.step()
                except StoreError as error:
                    log.warning("master: %s; trying again", error)
                    await asyncio.sleep(1.0)
                    continue
                await self._wait()
            log.warning("master: epoch %d is over; this node writes no more", self._context.epoch.epoch)
        finally:
            unsubscribe()

    def look_again(self) -> None:
        """Something outside of the store changed: plan again, for all VMs."""
        self._dirty = None
        self._changed.set()

    def _note(self, changed: frozenset[str]) -> None:
        for key in changed:
            if not key.startswith(_RELEVANT):
                continue
            self._changed.set()
            vm = self._vm_of(key)
            if not vm:
                self._dirty = None
                continue
            self._outdated.add(vm)
            if self._dirty is not None:
                self._dirty.add(vm)

    def _vm_of(self, key: str) -> str:
        """The one VM that a change of this key concerns; empty when it may be any."""
        if key.startswith(keys.MIGRATIONS):
            record = self._context.views.record(key, MigrationRecord)
            return record.vm if record is not None else ""
        prefix = next((p for p in _OF_ONE_VM if key.startswith(p)), None)
        return key.removeprefix(prefix).partition("/")[0] if prefix is not None else ""

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(RESYNC):
                await self._changed.wait()
        except TimeoutError:
            self._dirty = None
            return
        await asyncio.sleep(max(SETTLE, 2.0 * self._pass_seconds))

    async def step(self) -> MasterPlan:
        """One pass: plan, then write what it says. Raises StoreError."""
        began = self._context.clock.monotonic()
        self._read_changed()
        nodes = read_nodes(self._context.views, self._context.absent)
        constraints = self._constraints()
        plan = await self._in_turn(await self._plan(list(self._records.values()), nodes, constraints))
        self._pass_seconds = self._context.clock.monotonic() - began
        for final in plan.finals:
            await self._finalise(final)
        for unbind in plan.unbinds:
            await self._unbind(unbind)
        for start in range(0, len(plan.binds), _BATCH):
            await self._bind(plan.binds[start : start + _BATCH])
        for start in range(0, len(plan.not_placed), _BATCH):
            await self._tell(plan.not_placed[start : start + _BATCH])
        await self._tell_stays(plan.stays)
        await self._evict(plan, [node.name for node in nodes])
        await self._rebalance(nodes, constraints)
        return plan

    async def _rebalance(self, nodes: list[NodeView], constraints: list[NamedConstraint]) -> None:
        situation = Situation(vms=list(self._records.values()), nodes=nodes, constraints=constraints)
        try:
            await self._rebalancer.step(situation)
        except StoreError:
            raise
        except Exception:
            # A bug here is no reason to give up mastership: VMs are placed all the same.
            log.exception("rebalancing: unexpected error")

    async def _in_turn(self, plan: MasterPlan) -> MasterPlan:
        """What may start now, of what is to start; nothing moves while the cluster is shut down."""
        context, vms, now = self._context, list(self._records.values()), self._context.clock.wall()
        if not context.views.power_on():
            return replace(plan, evictions=Evictions())
        start = context.views.record(keys.POWER_START, PowerStart)
        if start is None or start.finished:
            return in_turn(plan, vms, parallel=0, now=now)
        if all_started(plan, vms, now):
            await self._started(replace(start, finished=now))
        return in_turn(plan, vms, parallel=start.parallel, now=now)

    async def _started(self, start: PowerStart) -> None:
        key, words = keys.POWER_START, "all VMs that can run do"
        if await self._write({key: self._context.views.cache.revision_of(key)}, {key: dump(start)}):
            log.info("the start of the cluster has ended: %s", words)
            self._context.event(EventType.NORMAL, Kind.CLUSTER, "cluster", "Started", words)

    async def _evict(self, plan: MasterPlan, nodes: list[str]) -> None:
        """Begin the moves, and record how far each drain is."""
        evictions = self._without_resting(plan.evictions)
        restarts = [move for move in evictions.moves if move.way is Way.RESTART]
        await self._bind(tuple(Bind(vm=m.vm, node=m.target, reason=m.reason) for m in restarts))
        for move in evictions.moves:
            if move.way is Way.MIGRATE:
                await self._migrate(move)
        views, now = self._context.views, self._context.clock.wall()
        guests: list[Guest] | None = None
        for name in nodes:
            key, asked = keys.master_status(Kind.NODE, name), views.node_in_force(name)
            before = views.record(key, NodeMasterStatus)
            if not asked.drain and (before is None or (before.finished and not before.away)):
                continue
            guests = guests_of(list(self._records.values())) if guests is None else guests
            after = drain_status(name, before, asked, guests, evictions, now)
            if after is not None and after != before and await self._write({}, {key: dump(after)}):
                self._tell_drain(name, before, after)

    def _without_resting(self, evictions: Evictions) -> Evictions:
        """What was asked for a moment ago and is not under way has failed: it is left alone for a while."""
        now = self._context.clock.monotonic()
        self._resting = {move: until for move, until in self._resting.items() if until > now}
        resting = [m for m in evictions.moves if m.way is Way.MIGRATE and (m.vm, m.source) in self._resting]
        held = [Held(vm=m.vm, node=m.source, reason="its migration is tried again soon") for m in resting]
        return Evictions(
            moves=tuple(move for move in evictions.moves if move not in resting),
            held=tuple(sorted((*evictions.held, *held), key=lambda each: each.vm)),
        )

    async def _migrate(self, move: Move) -> None:
        """Ask for the VM's live migration, as a person would."""
        context, cache = self._context, self._context.views.cache
        claim, spec = context.views.claim(move.vm), context.views.vm(move.vm)
        if claim is None or spec is None or claim.node != move.source or not self._stands(move.vm):
            return
        drain = context.views.node_in_force(move.source).drain or ""
        at = cache.revision_of(keys.claim(move.vm))
        # One for each run of the VM on the node and each try: two masters cannot ask twice.
        seed = f"{claim.uid}/{at}/{drain}/{self._asked}"
        self._asked += 1
        ask = Ask(vm=move.vm, target=move.target, reason=move.reason, seed=seed, drain=drain)
        record = new_migration(context.views, ask, spec, claim, context.clock.wall())
        key = keys.migration(record.id)
        if await self._write({key: 0, keys.claim(move.vm): at}, {key: dump(record)}):
            self._resting[move.vm, move.source] = context.clock.monotonic() + MIGRATE_AGAIN
            log.info("vm %s: to be migrated to %s: %s", move.vm, move.target, move.reason)

    def _tell_drain(self, name: str, before: NodeMasterStatus | None, after: NodeMasterStatus) -> None:
        event = partial(self._context.event, EventType.NORMAL, Kind.NODE, name)
        if before is None or before.started != after.started:
            log.info("node %s: its VMs are moved away", name)
            event("Draining", "its VMs are moved away")
        if after.finished and (before is None or before.finished != after.finished):
            words = "the drain was cancelled; VMs that are left stay" if after.cancelled else "no VM is left"
            log.info("node %s: %s", name, words)
            event("DrainCancelled" if after.cancelled else "Drained", words)

    async def _plan(
        self, vms: list[VmRecords], nodes: list[NodeView], constraints: list[NamedConstraint]
    ) -> MasterPlan:
        if len(vms) < LARGE:
            return self._context.plan(vms, nodes, constraints)
        return await asyncio.to_thread(self._context.plan, vms, nodes, constraints)

    def _stands(self, vm: str) -> bool:
        """Whether the VM's records are those that the plan was made from; if not, the next plan decides."""
        return vm not in self._outdated

    def _read_changed(self) -> None:
        """Bring the VMs' records up to date: all of them after a change that concerns all."""
        views = self._context.views
        self._outdated.clear()
        dirty, self._dirty = self._dirty, set()
        if dirty is None:
            self._records.clear()
            dirty = set(views.names(Kind.VIRTUAL_MACHINE))
        power, now, migrations = views.power_on(), self._context.clock.wall(), migrations_by_vm(views)
        for name in dirty:
            records = read_vm(views, name, power_on=power, now=now, migrations=migrations)
            if records is None:
                self._records.pop(name, None)
            else:
                self._records[name] = records

    def _constraints(self) -> list[NamedConstraint]:
        specs = self._context.views.specs(Kind.PLACEMENT_CONSTRAINT)
        return [NamedConstraint(name=name, spec=spec) for name, spec in sorted(specs.items())]

    async def _bind(self, binds: tuple[Bind, ...]) -> None:
        context, cache = self._context, self._context.views.cache
        compares: dict[str, int] = {}
        puts: dict[str, bytes] = {}
        written: list[Bind] = []
        for bind in binds:
            record = context.views.spec_record(Kind.VIRTUAL_MACHINE, bind.vm)
            if record is None or not self._stands(bind.vm):
                continue
            spec, binding = keys.spec(Kind.VIRTUAL_MACHINE, bind.vm), keys.binding(bind.vm)
            if context.views.exists(binding):
                # It moves: only from a node that has not claimed it again meanwhile.
                compares[keys.claim(bind.vm)] = cache.revision_of(keys.claim(bind.vm))
            compares[spec] = cache.revision_of(spec)
            compares[binding] = cache.revision_of(binding)
            puts[binding] = dump(
                Binding(
                    node=bind.node,
                    uid=record.metadata.uid,
                    epoch=context.epoch.epoch,
                    bound=context.clock.wall(),
                    reason=bind.reason,
                )
            )
            puts.update(self._status(bind.vm, bind.node, True, bind.reason))
            written.append(bind)
        if written and await self._write(compares, puts):
            for bind in written:
                log.info("vm %s: bound to %s: %s", bind.vm, bind.node, bind.reason)
                self._event(bind.vm, "Placed", f"on {bind.node}: {bind.reason}")

    async def _unbind(self, unbind: Unbind) -> None:
        if not self._stands(unbind.vm):
            return
        cache = self._context.views.cache
        binding, claim = keys.binding(unbind.vm), keys.claim(unbind.vm)
        compares = {binding: cache.revision_of(binding), claim: cache.revision_of(claim)}
        if await self._write(compares, {}, deletes=(binding,)):
            log.info("vm %s: unbound: %s", unbind.vm, unbind.reason)

    async def _tell(self, reasons: tuple[NotPlaced, ...]) -> None:
        puts: dict[str, bytes] = {}
        for item in reasons:
            puts.update(self._status(item.vm, None, False, item.reason))
        if puts and await self._write({}, puts):
            for item in reasons:
                if keys.master_status(Kind.VIRTUAL_MACHINE, item.vm) in puts:
                    if item.in_turn:
                        log.info("vm %s: %s", item.vm, item.reason)
                        continue
                    log.info("vm %s: not placed: %s", item.vm, item.reason)
                    self._event(item.vm, "Unschedulable", item.reason, EventType.WARNING)

    async def _tell_stays(self, stays: tuple[Stay, ...]) -> None:
        puts: dict[str, bytes] = {}
        for item in stays:
            puts.update(self._status(item.vm, item.node, True, item.reason))
        if puts and await self._write({}, puts):
            for item in stays:
                if keys.master_status(Kind.VIRTUAL_MACHINE, item.vm) in puts:
                    log.info("vm %s: %s", item.vm, item.reason)

    async def _finalise(self, final: Finalise) -> None:
        """The VM's last transaction: nothing of it stays but the tombstone."""
        context, cache = self._context, self._context.views.cache
        kind, name = Kind.VIRTUAL_MACHINE, final.vm
        record = context.views.spec_record(kind, name)
        if record is None or not self._stands(name):
            return
        spec, claim = keys.spec(kind, name), keys.claim(name)
        mine = (
            spec,
            claim,
            keys.binding(name),
            keys.intent(kind, name),
            keys.pin(name),
            keys.node_status(kind, name),
            keys.master_status(kind, name),
            *(item.key for item in cache.prefix(keys.failures(name))),
        )
        tombstone = dump(Tombstone(uid=record.metadata.uid, deleted=context.clock.wall()))
        done = await self._write(
            {spec: cache.revision_of(spec), claim: cache.revision_of(claim)},
            {keys.tombstone(kind, name): tombstone},
            deletes=tuple(key for key in mine if cache.get(key) is not None),
        )
        if done:
            log.info("vm %s: deleted", name)
            self._event(name, "Deleted", "stopped and forgotten")

    async def _write(
        self, compares: Mapping[str, int], puts: Mapping[str, bytes], deletes: tuple[str, ...] = ()
    ) -> bool:
        result = await self._context.writer.commit(
            compares=compares, puts=puts, deletes=deletes, guards=(keys.SCHEMA, keys.EPOCH)
        )
        lost = conflicts(result)
        if lost:
            log.info("master: decided on an old state (%s); planning again", ", ".join(lost[:3]))
            self._changed.set()
        return not lost

    def _event(self, vm: str, reason: str, message: str, type: EventType = EventType.NORMAL) -> None:
        self._context.event(type, Kind.VIRTUAL_MACHINE, vm, reason, message)

    def _status(self, vm: str, node: str | None, placed: bool, message: str) -> dict[str, bytes]:
        context = self._context
        return placed_status(context.views, vm, node, placed, message, context.clock.wall())
