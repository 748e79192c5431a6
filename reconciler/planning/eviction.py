"""Where the VMs of a node that is drained go, and those that went for it back: one step at a time.

Each VM goes as its `evictionStrategy` says: by live migration, or shut down in order and started elsewhere.
Invariants: a VM leaves only for a node that takes it now, so that it is away no longer than a restart takes;
no more than the node's `parallel` leave it, or come back, at the same time, the more important first; what
has to stay has a reason in words; no guest that a person has paused is shut down: its memory would be lost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from reconciler.planning.demands import NamedConstraint, NodeView, VmDemand
from reconciler.planning.packing.plans import Kind, Policy, Step, Why, plan, refusals_of, told
from reconciler.resources.virtualmachine import EvictionStrategy

LOOKS = 40_000
"""How much is tried to make room; the VMs of other nodes are never moved for it."""

STAYS = "its evictionStrategy is None: it stays until it is stopped"
PAUSED = "it is paused by `vcl pause`, and a shutdown would lose its memory: resume it, or stop it"
NEXT = "it waits for its turn"
OTHERS = "it is moved for no other VM"


class Way(StrEnum):
    """Restart: shut down where it is, started elsewhere. Migrate: moved while it runs."""

    RESTART = "Restart"
    MIGRATE = "Migrate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """A VM as evictions see it. `paused`: by a person. `immovable`: why it cannot be migrated, empty when it
    can; `failed`: how that was tried in vain in this drain. `leaving`: the node that still has it, while it
    is on its way to the node of its demand; `note`: how that goes."""

    demand: VmDemand
    strategy: EvictionStrategy
    paused: bool = False
    immovable: str = ""
    leaving: str | None = None
    note: str = ""
    failed: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """To be begun now."""

    vm: str
    source: str
    target: str
    way: Way
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A VM that should leave `node`, or come back to it, and does not (yet)."""

    vm: str
    node: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Evictions:
    """`moves` in the order in which they matter, `held` by name."""

    moves: tuple[Move, ...] = ()
    held: tuple[Held, ...] = ()


def way_of(guest: Guest) -> tuple[Way | None, str]:
    """How it leaves its node, or None and why it does not."""
    match guest.strategy:
        case EvictionStrategy.NONE:
            return None, STAYS
        case EvictionStrategy.LIVE_MIGRATE:
            return (
                (None, f"it cannot be migrated: {guest.immovable}") if guest.immovable else (Way.MIGRATE, "")
            )
        case EvictionStrategy.LIVE_MIGRATE_IF_POSSIBLE if not (guest.immovable or guest.failed):
            return Way.MIGRATE, ""
        case _:
            return (None, PAUSED) if guest.paused else (Way.RESTART, "")


def plan_evictions(
    nodes: Sequence[NodeView], guests: Sequence[Guest], constraints: Sequence[NamedConstraint]
) -> Evictions:
    """What to begin now, and what waits for what."""
    found: list[Evictions] = []
    if any(node.leaving for node in nodes):
        found.append(_leave(nodes, guests, constraints))
    if any(node.recalls for node in nodes):
        found.append(_come_back(nodes, guests, constraints))
    return Evictions(
        moves=tuple(move for each in found for move in each.moves),
        held=tuple(sorted((held for each in found for held in each.held), key=lambda held: held.vm)),
    )


def _leave(
    nodes: Sequence[NodeView], guests: Sequence[Guest], constraints: Sequence[NamedConstraint]
) -> Evictions:
    leaving = {node.name for node in nodes if node.leaving}
    there = {g.demand.name: g for g in guests if g.demand.node in leaving and _settled(g)}
    ways = {name: way_of(guest) for name, guest in there.items()}
    held = [_held(there[name], why) for name, (way, why) in ways.items() if way is None]
    going = {name: way for name, (way, _) in ways.items() if way is not None}
    demands = [
        guest.demand
        if guest.demand.name in going
        else replace(guest.demand, fixed=guest.demand.fixed or OTHERS)
        for guest in guests
        if guest.demand.node is not None
    ]
    found = plan(nodes, demands, constraints, Policy(looks=LOOKS))
    steps = [step for step in found.steps if step.kind is Kind.MOVE and step.vm in going]
    turns = _Turns(nodes, {demand.name: demand for demand in demands}, constraints)
    begun = turns.begun(steps, _under_way(guests))
    moves = [
        Move(
            vm=step.vm,
            source=step.source or "",
            target=step.target or "",
            way=going[step.vm],
            reason=f"{step.source} is drained",
        )
        for step in begun
    ]
    later = {step.vm for step in steps} - {step.vm for step in begun}
    held += [_held(there[vm], NEXT) for vm in sorted(later)]
    held += [_held(there[vm], _nowhere(why)) for vm, why in found.stays.items() if vm in going]
    return Evictions(moves=tuple(moves), held=tuple(held))


class _Turns:
    """Which of a plan's steps are begun. The plan's order is one in which they are possible; out of it a step
    is begun only when its target takes it as things are. VMs that must share a node go together."""

    def __init__(
        self,
        nodes: Sequence[NodeView],
        demands: dict[str, VmDemand],
        constraints: Sequence[NamedConstraint],
    ) -> None:
        self._nodes = nodes
        self._parallel = {node.name: node.parallel for node in nodes}
        self._demands = demands
        self._constraints = constraints

    def begun(self, steps: Sequence[Step], under_way: Counter[str]) -> list[Step]:
        """The important first."""
        turns: dict[int, list[Step]] = {}
        for step in steps:
            turns.setdefault(step.turn, []).append(step)

        def rank(turn: int) -> tuple[int, int]:
            return (-max(self._demands[step.vm].priority for step in turns[turn]), turn)

        found: list[Step] = []
        left = set(turns)
        for turn in sorted(turns, key=rank):
            some = turns[turn]
            full = any(under_way[step.source or ""] >= self._parallel[step.source or ""] for step in some)
            if full or (turn > min(left) and not self._possible(some)):
                continue
            left.remove(turn)
            found += some
            for step in some:
                under_way[step.source or ""] += 1
                self._demands[step.vm] = replace(self._demands[step.vm], node=step.target)
        return found

    def _possible(self, some: Sequence[Step]) -> bool:
        if len(some) > 1:
            return True
        (step,) = some
        refused = refusals_of(self._nodes, self._demands.values(), self._constraints, step.vm)
        return step.target not in refused


def _come_back(
    nodes: Sequence[NodeView], guests: Sequence[Guest], constraints: Sequence[NamedConstraint]
) -> Evictions:
    """To nodes that take VMs again; what finds no room there stays where it is."""
    demands = {guest.demand.name: guest.demand for guest in guests}
    coming = Counter(g.demand.node for g in guests if g.leaving is not None and g.demand.node)
    moves: list[Move] = []
    held: list[Held] = []
    wanted = {vm: node for node in nodes if not node.refuses for vm in node.recalls}
    ranked = sorted(guests, key=lambda guest: (-guest.demand.priority, guest.demand.name))
    for guest in (guest for guest in ranked if guest.demand.name in wanted and _settled(guest)):
        name, source, node = guest.demand.name, guest.demand.node, wanted[guest.demand.name]
        home = node.name
        if source is None or source == home:
            continue
        way, why = way_of(guest)
        if way is None or coming[home] >= node.parallel:
            held.append(Held(vm=name, node=home, reason=why or NEXT))
            continue
        refused = refusals_of(nodes, demands.values(), constraints, name)
        if home in refused:
            held.append(Held(vm=name, node=home, reason=f"it cannot go back: {refused[home].words}"))
            continue
        coming[home] += 1
        demands[name] = replace(guest.demand, node=home)
        reason = f"it left {home} for a drain"
        moves.append(Move(vm=name, source=source, target=home, way=way, reason=reason))
    return Evictions(moves=tuple(moves), held=tuple(held))


def _settled(guest: Guest) -> bool:
    """Whether it is where it counts, and nobody stops it."""
    return guest.leaving is None and not guest.demand.going and not guest.demand.fixed


def _under_way(guests: Iterable[Guest]) -> Counter[str]:
    """How many are leaving each node."""
    return Counter(guest.leaving for guest in guests if guest.leaving is not None)


def _held(guest: Guest, reason: str) -> Held:
    return Held(vm=guest.demand.name, node=guest.demand.node or "", reason=reason)


def _nowhere(why: Mapping[str, Why]) -> str:
    return f"no other node takes it: {told(why)}" if why else "there is no other node"
