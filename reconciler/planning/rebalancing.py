"""Which VMs are moved so that rules are kept and nodes are evenly used, and which of these moves comes now.

Invariants: only VMs that can be migrated live are moved; a turn begins when all of the turn before have
arrived, and while everything is well; a run never goes on with a plan that was made for another state of the
cluster: when a move fails, or a VM is not where the plan has it, the run ends. docs/decisions/0092.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from reconciler.planning.demands import NamedConstraint, NodeView
from reconciler.planning.eviction import Guest, Way, way_of
from reconciler.planning.packing.plans import Balancing, Kind, Mode, Policy, plan, refusals_of
from reconciler.resources.codec import encode
from reconciler.resources.migrations import ENDED, MigrationPhase, MigrationRecord
from reconciler.resources.rebalancing import (
    MoveState,
    RebalanceMove,
    RebalancePhase,
    RebalanceRecord,
    RebalanceScope,
)

MODES = {
    RebalanceScope.REPAIR: Mode.MANUAL,
    RebalanceScope.PARTIAL: Mode.PARTIAL,
    RebalanceScope.FULL: Mode.FULL,
}
NOT_LIVE = "it is moved by no live migration"


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """`moves` in their turns; `kept`: VMs that would be looked at if they could be migrated, and why they
    cannot; `uneven`: the measure of balance before and after (0: perfectly even)."""

    moves: tuple[RebalanceMove, ...]
    kept: Mapping[str, str]
    uneven: tuple[float, float]

    @property
    def index(self) -> str:
        """The same for the same moves."""
        text = json.dumps([encode(move) for move in self.moves], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def draft(
    nodes: Sequence[NodeView],
    guests: Sequence[Guest],
    uids: Mapping[str, str],
    constraints: Sequence[NamedConstraint],
    scope: RebalanceScope,
    rested: frozenset[str] = frozenset(),
) -> Draft:
    """The moves that are worth it now. `rested`: VMs that were moved a short while ago, and stay."""
    kept: dict[str, str] = {}
    demands = []
    for guest in guests:
        way, why = way_of(guest)
        demand = guest.demand
        if way is not Way.MIGRATE or guest.immovable or guest.paused or guest.leaving is not None:
            told = guest.immovable or why or ("it is paused" if guest.paused else NOT_LIVE)
            if demand.node is not None and not demand.fixed and demand.name in uids:
                kept[demand.name] = told
            demand = replace(demand, fixed=demand.fixed or told)
        demands.append(demand)
    policy = Policy(balancing=Balancing(mode=MODES[scope], held=rested))
    found = plan(nodes, demands, constraints, policy)
    if any(step.kind is Kind.EVICT for step in found.steps):
        return Draft(moves=(), kept=kept, uneven=found.uneven)  # whoever is stopped for another: the master's
    moves = [
        RebalanceMove(
            vm=step.vm,
            uid=uids.get(step.vm, ""),
            source=step.source,
            target=step.target,
            turn=step.turn + 1,
            reason=step.reason,
        )
        for step in found.steps
        if step.kind is Kind.MOVE and step.source is not None and step.target is not None
    ]
    if not changes(moves):
        moves = []
    return Draft(moves=tuple(moves), kept=kept, uneven=found.uneven)


def changes(moves: Sequence[RebalanceMove]) -> bool:
    """Whether any VM is elsewhere afterwards. A repair may move a VM for a preference that balance, which
    weighs less, then finds too dear, and take it back: a run of that would begin again for ever."""
    began = {move.vm: move.source for move in reversed(moves)}
    ends = {move.vm: move.target for move in moves}
    return any(began[vm] != ends[vm] for vm in ends)


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """What keeps moves from being begun. `fenced`: nodes that are being fenced; `absent`: nodes with VMs that
    are not heard, or not ready; `leaving`: nodes that are drained; `busy`: VMs that are on their way by
    migrations of somebody else."""

    power_on: bool = True
    fenced: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    leaving: tuple[str, ...] = ()
    busy: tuple[str, ...] = ()


def obstacle(weather: Weather) -> str:
    """Why no move begins now; empty when one may."""
    if not weather.power_on:
        return "the cluster's power is Off"
    for nodes, what in (
        (weather.fenced, "is fenced, or about to be"),
        (weather.absent, "is not ready"),
        (weather.leaving, "is being drained"),
    ):
        if nodes:
            return f"node {nodes[0]} {what}"
    if weather.busy:
        return f"{weather.busy[0]} is on its way to another node"
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a VM is: `node` owns it, or nobody; `still`: it runs there, and nothing of it is under way."""

    uid: str
    node: str
    still: bool


def advance(
    record: RebalanceRecord,
    places: Mapping[str, Place],
    migrations: Mapping[str, MigrationRecord],
    weather: Weather,
    now: str,
) -> tuple[RebalanceRecord, tuple[RebalanceMove, ...]]:
    """(the record as it is now, the moves to begin). `migrations`: by id."""
    moves: list[RebalanceMove] = []
    for move in record.moves:
        after, problem = _look(move, places.get(move.vm), migrations.get(move.migration))
        if problem:
            ended = replace(record, moves=(*moves, *record.moves[len(moves) :]))
            return _end(ended, RebalancePhase.FAILED, problem, now), ()
        moves.append(after)
    record = replace(record, moves=tuple(moves))
    left = [move for move in moves if move.state is not MoveState.DONE]
    if not left:
        return _end(record, RebalancePhase.SUCCEEDED, f"{len(moves)} moved", now), ()
    turn = min(move.turn for move in left)
    due = [move for move in left if move.turn == turn and move.state is MoveState.WAITING]
    if any(move.state is MoveState.MOVING for move in left):
        return replace(record, message=""), ()
    if why := obstacle(weather):
        return replace(record, message=f"it waits: {why}"), ()
    for move in due:
        place = places.get(move.vm)
        if place is None or (place.uid, place.node) != (move.uid, move.source):
            problem = f"{move.vm} does not run on {move.source} any more"
            return _end(record, RebalancePhase.FAILED, problem, now), ()
        if not place.still:
            return replace(record, message=f"it waits: {move.vm} is not at rest on {move.source}"), ()
    return replace(record, message=""), tuple(due)


def _look(
    move: RebalanceMove, place: Place | None, migration: MigrationRecord | None
) -> tuple[RebalanceMove, str]:
    """(the move as it is now, why the run ends)."""
    arrived = place is not None and (place.uid, place.node) == (move.uid, move.target)
    if move.state is MoveState.WAITING and arrived:
        return replace(move, state=MoveState.DONE), ""
    if move.state is not MoveState.MOVING or (migration is not None and migration.phase not in ENDED):
        return move, ""
    if arrived:
        return replace(move, state=MoveState.DONE), ""
    if migration is None or migration.phase is MigrationPhase.SUCCEEDED:
        return move, f"{move.vm} does not run on {move.target}"
    return move, f"{move.vm} was not moved to {move.target}: {migration.message or migration.phase}"


def outdated(
    nodes: Sequence[NodeView],
    guests: Sequence[Guest],
    constraints: Sequence[NamedConstraint],
    moves: Sequence[RebalanceMove],
) -> str:
    """Why these moves, which are made together, are not possible any more; empty when they are. VMs that
    were placed, and rules that were made, since the plan are not in it."""
    targets = {move.vm: move.target for move in moves}
    demands = [
        each.demand
        if each.leaving is not None
        else replace(each.demand, node=targets.get(each.demand.name, each.demand.node))
        for each in guests
    ]
    for move in moves:
        why = refusals_of(nodes, demands, constraints, move.vm).get(move.target)
        if why is not None:
            return f"node {move.target} does not take {move.vm} any more: {why.words}"
    return ""


def superseded(record: RebalanceRecord, why: str, now: str) -> RebalanceRecord:
    """The cluster is another one than the plan was made for."""
    return _end(record, RebalancePhase.FAILED, why, now)


def begun(record: RebalanceRecord, moves: Iterable[RebalanceMove], ids: Mapping[str, str]) -> RebalanceRecord:
    """With these moves under way; `ids`: by VM, the migration."""
    names = {move.vm for move in moves}
    return replace(
        record,
        moves=tuple(
            replace(move, state=MoveState.MOVING, migration=ids[move.vm]) if move.vm in names else move
            for move in record.moves
        ),
    )


def cancelled(record: RebalanceRecord, now: str) -> RebalanceRecord:
    """A person ends it: what is on its way arrives, nothing more begins."""
    return _end(record, RebalancePhase.CANCELLED, "cancelled; moves that had begun go on", now)


def _end(record: RebalanceRecord, phase: RebalancePhase, message: str, now: str) -> RebalanceRecord:
    return replace(record, phase=phase, message=message, finished=now)
