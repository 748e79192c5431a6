"""The master's rebalancing: carries out the run that is recorded, move after move, and begins one by itself
where the Cluster's `balance` says so.

Decides nothing: planning/rebalancing.py does. Invariant: a move is recorded in the same transaction that asks
for its live migration, compared with the VM's claim, so that a master that takes over knows what was begun.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from reconciler.loops.agent_state import RecordEvent
from reconciler.loops.migration_requests import Ask, new_migration
from reconciler.loops.views import Views
from reconciler.loops.writer import Writer, conflicts
from reconciler.planning.desired import Wish
from reconciler.planning.master import VmRecords, guests_of
from reconciler.planning.placement import NamedConstraint, NodeView
from reconciler.planning.rebalancing import (
    Draft,
    Place,
    Weather,
    advance,
    begun,
    draft,
    obstacle,
    outdated,
    superseded,
)
from reconciler.ports.clock import Clock
from reconciler.resources import keys
from reconciler.resources.infrastructure import BalanceMode
from reconciler.resources.kinds import Kind
from reconciler.resources.migrations import ENDED, MigrationPhase, MigrationRecord
from reconciler.resources.rebalancing import (
    MoveState,
    RebalanceMove,
    RebalancePhase,
    RebalanceRecord,
    RebalanceScope,
)
from reconciler.resources.records import ClaimPhase, EventType, dump

log = logging.getLogger(__name__)

SCOPES = {BalanceMode.PARTIAL: RebalanceScope.PARTIAL, BalanceMode.FULL: RebalanceScope.FULL}
BY_ITSELF = "the Cluster's `balance`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What a pass of the master has read."""

    vms: Sequence[VmRecords]
    nodes: Sequence[NodeView]
    constraints: Sequence[NamedConstraint]


@dataclass(frozen=True, slots=True, kw_only=True)
class RebalancerContext:
    """`absent(node)`: why a node takes no work because of what is heard of it, or nothing."""

    clock: Clock
    views: Views
    writer: Writer
    event: RecordEvent
    absent: Callable[[str], str]


class Rebalancer:
    """Of one mastership; `step` in each pass."""

    def __init__(self, context: RebalancerContext) -> None:
        self._context = context
        self._steady_since = context.clock.monotonic()
        self._signature: object = None

    async def step(self, situation: Situation) -> None:
        """Go on with the run that is recorded, or begin one. Raises StoreError."""
        views = self._context.views
        record = views.record(keys.REBALANCE, RebalanceRecord)
        scope = SCOPES.get(views.cluster_spec().balance.mode)
        running = record is not None and record.phase is RebalancePhase.RUNNING
        if not running and scope is None:
            self._signature = None
            return
        places, weather = _places(situation.vms), self._weather(situation, record)
        self._note(situation, weather, places)
        if record is not None and running:
            await self._go_on(record, situation, weather, places)
        elif scope is not None and (record is not None or not views.exists(keys.REBALANCE)):
            await self._perhaps_begin(situation, weather, scope)

    async def _go_on(
        self,
        record: RebalanceRecord,
        situation: Situation,
        weather: Weather,
        places: Mapping[str, Place],
    ) -> None:
        now = self._context.clock.wall()
        after, moves = advance(record, places, self._migrations(record), weather, now)
        rules = situation.constraints
        if moves and (why := outdated(situation.nodes, guests_of(situation.vms), rules, moves)):
            after, moves = superseded(after, why, now), ()
        if moves:
            await self._begin(after, moves)
        elif after != record and await self._write({keys.REBALANCE: dump(after)}, {}):
            self._tell(record, after)

    async def _begin(self, record: RebalanceRecord, moves: Sequence[RebalanceMove]) -> None:
        context, cache = self._context, self._context.views.cache
        puts: dict[str, bytes] = {}
        compares: dict[str, int] = {}
        ids: dict[str, str] = {}
        for move in moves:
            claim, spec = context.views.claim(move.vm), context.views.vm(move.vm)
            if claim is None or spec is None or claim.node != move.source:
                return  # the next pass sees what became of it
            key, seed = keys.claim(move.vm), f"{record.id}/{move.turn}/{claim.uid}"
            ask = Ask(vm=move.vm, target=move.target, reason=f"rebalancing: {move.reason}", seed=seed)
            asked = new_migration(context.views, ask, spec, claim, context.clock.wall())
            puts[keys.migration(asked.id)] = dump(asked)
            compares |= {keys.migration(asked.id): 0, key: cache.revision_of(key)}
            ids[move.vm] = asked.id
        puts[keys.REBALANCE] = dump(begun(record, moves, ids))
        if await self._write(puts, compares):
            for move in moves:
                log.info("rebalancing: vm %s goes from %s to %s", move.vm, move.source, move.target)

    async def _perhaps_begin(self, situation: Situation, weather: Weather, scope: RebalanceScope) -> None:
        """By itself, when nothing has changed for the hold-down."""
        context = self._context
        policy = context.views.cluster_spec().balance
        now = context.clock.monotonic()
        if obstacle(weather) or now - self._steady_since < policy.hold_down_seconds:
            return
        self._steady_since = now  # whatever comes of it, it is not looked at again at once
        rested = self._rested(policy.rest_seconds)
        found = await asyncio.to_thread(draft_of, situation, scope, rested)
        if not found.moves:
            return
        wall = context.clock.wall()
        record = RebalanceRecord(
            id=f"auto-{wall}", scope=scope, by=BY_ITSELF, started=wall, moves=found.moves
        )
        if await self._write({keys.REBALANCE: dump(record)}, {}):
            self._tell(None, record)

    def _rested(self, seconds: int) -> frozenset[str]:
        """The VMs that were migrated a short while ago, for whatever reason, as far as it is on record."""
        views, wall = self._context.views, datetime.fromisoformat(self._context.clock.wall())
        found = set()
        for item in views.cache.prefix(keys.MIGRATIONS):
            record = views.record(item.key, MigrationRecord)
            if record is None or record.phase is not MigrationPhase.SUCCEEDED or not record.finished:
                continue
            if (wall - datetime.fromisoformat(record.finished)).total_seconds() < seconds:
                found.add(record.vm)
        return frozenset(found)

    async def _write(self, puts: Mapping[str, bytes], compares: Mapping[str, int]) -> bool:
        cache = self._context.views.cache
        result = await self._context.writer.commit(
            compares={**compares, keys.REBALANCE: cache.revision_of(keys.REBALANCE)},
            puts=puts,
            guards=(keys.SCHEMA, keys.EPOCH),
        )
        if lost := conflicts(result):
            log.info("rebalancing: decided on an old state (%s)", ", ".join(lost[:3]))
        return not lost

    def _tell(self, before: RebalanceRecord | None, after: RebalanceRecord) -> None:
        if before is None:
            words = f"{len(after.moves)} moves, asked for by {after.by}"
            log.info("rebalancing begins: %s", words)
            self._context.event(EventType.NORMAL, Kind.CLUSTER, "cluster", "Rebalancing", words)
        elif after.phase is not before.phase:
            good = after.phase is RebalancePhase.SUCCEEDED
            log.info("rebalancing: %s: %s", after.phase, after.message)
            kind = EventType.NORMAL if good else EventType.WARNING
            self._context.event(kind, Kind.CLUSTER, "cluster", f"Rebalance{after.phase}", after.message)

    def _weather(self, situation: Situation, record: RebalanceRecord | None) -> Weather:
        views = self._context.views
        homes = {r.claim.node for r in situation.vms if r.claim is not None and r.claim.node}
        if record is not None and record.phase is RebalancePhase.RUNNING:
            homes |= {move.target for move in record.moves if move.state is not MoveState.DONE}
        ours = {move.migration for move in record.moves} if record is not None else set()
        busy = [
            r.metadata.name for r in situation.vms if r.migration is not None and r.migration.id not in ours
        ]
        return Weather(
            power_on=views.power_on(),
            fenced=tuple(item.key.removeprefix(keys.FENCES) for item in views.cache.prefix(keys.FENCES)),
            absent=tuple(sorted(node for node in homes if self._context.absent(node))),
            leaving=tuple(node.name for node in situation.nodes if node.leaving),
            busy=tuple(busy),
        )

    def _note(self, situation: Situation, weather: Weather, places: Mapping[str, Place]) -> None:
        """The hold-down begins anew whenever a node, or where a VM is, has changed."""
        signature = (
            weather,
            self._context.views.cluster_spec().balance,
            tuple((n.name, n.refuses, n.cpu, n.memory) for n in situation.nodes),
            tuple(sorted(places.items(), key=lambda item: item[0])),
        )
        if signature != self._signature:
            self._signature, self._steady_since = signature, self._context.clock.monotonic()

    def _migrations(self, record: RebalanceRecord) -> Mapping[str, MigrationRecord]:
        views = self._context.views
        found = {
            move.migration: views.record(keys.migration(move.migration), MigrationRecord)
            for move in record.moves
            if move.migration
        }
        return {id: each for id, each in found.items() if each is not None}


def draft_of(situation: Situation, scope: RebalanceScope, rested: frozenset[str] = frozenset()) -> Draft:
    """The moves that are worth it; takes a while in a large cluster."""
    vms = situation.vms
    uids = {records.metadata.name: records.metadata.uid for records in vms}
    return draft(situation.nodes, guests_of(vms), uids, situation.constraints, scope, rested)


def _places(vms: Sequence[VmRecords]) -> dict[str, Place]:
    found = {}
    for records in vms:
        claim = records.claim
        if claim is None or not claim.node:
            continue
        migrates = records.migration is not None and records.migration.phase not in ENDED
        still = (
            records.desired.wish is Wish.RUN
            and claim.phase is ClaimPhase.RUNNING
            and claim.migration is None
            and not migrates
        )
        found[records.metadata.name] = Place(uid=claim.uid, node=claim.node, still=still)
    return found
