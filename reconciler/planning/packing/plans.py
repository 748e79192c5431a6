"""The planner as others use it: views in, steps and reasons out, all by name.

    plan(nodes, vms, constraints, Policy(...)) -> Plan

Three operations, each on top of the one before: fill (VMs whose `node` is None get a place), repair (VMs that
must not stay are moved: broken Required constraints, over-full nodes, nodes that are `leaving`), balance (VMs
are moved where it is worth it). A VM that is `fixed` is never moved; one that `leaves` goes whenever another
node takes it. What is only supposed is a change of the values: for a node that is lost take it out of `nodes`
and set the `node` of its VMs to None; for a drain set its `refuses` and `leaving`.

Invariants: equal input gives equal plans; no step breaks a hard rule that was kept before it; with nothing to
place, nothing violated and balancing Manual there are no steps. docs/concepts/placement.md has the order of
goals and the formula of balance.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from reconciler.planning.demands import NamedConstraint, NodeView, VmDemand
from reconciler.planning.packing.balancing import Balancing, Mode, balance, uneven
from reconciler.planning.packing.losses import losses
from reconciler.planning.packing.ordering import Change, ordered
from reconciler.planning.packing.placing import place
from reconciler.planning.packing.problem import NOWHERE, Problem, build
from reconciler.planning.packing.refining import restore
from reconciler.planning.packing.repairing import bring_back, misplaced, repair, settle
from reconciler.planning.packing.reserving import reserve
from reconciler.planning.packing.room import LOOKS, MayMove
from reconciler.planning.packing.state import State
from reconciler.planning.packing.words import Because, Why, refusals, told


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What may be moved. `repair`: VMs that must not stay, and others to make room for them and for those
    that have no place. `looks`: how much is tried to make room, 100,000 take about 0.2 s."""

    repair: bool = True
    balancing: Balancing = field(default_factory=Balancing)
    looks: int = LOOKS


class Kind(StrEnum):
    """Place: it was nowhere. Move: it runs, and goes elsewhere. Evict: it is stopped for a VM of higher
    priority, and has no other place."""

    PLACE = "Place"
    MOVE = "Move"
    EVICT = "Evict"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """`source`, `target`: names of nodes, None: nowhere. Steps are in the order in which they are possible;
    those of one `turn` are taken together. `awaits`: VMs that are stopped for this one."""

    kind: Kind
    vm: str
    source: str | None
    target: str | None
    turn: int
    reason: str
    awaits: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`refused`: for each VM that has no place, each node and why not. `stays`: the same for VMs that must
    not stay where they are, and that no other node takes. `uneven`: the measure of balance before and after
    (0: perfectly even)."""

    steps: tuple[Step, ...]
    refused: Mapping[str, Mapping[str, Why]]
    stays: Mapping[str, Mapping[str, Why]]
    uneven: tuple[float, float]

    @property
    def where(self) -> dict[str, str | None]:
        """The last node of each VM that has a step."""
        return {step.vm: step.target for step in self.steps}


def plan(
    nodes: Iterable[NodeView],
    vms: Iterable[VmDemand],
    constraints: Iterable[NamedConstraint],
    policy: Policy | None = None,
) -> Plan:
    """What is to be done. VMs whose node is not among `nodes` count as being there, and are left alone."""
    return solve(build(nodes, vms, constraints), policy or Policy())


def solve(problem: Problem, policy: Policy) -> Plan:
    """The plan for a problem."""
    real = State(problem)
    state, stopped, before = real.copy(), list[int](), uneven(real)
    leaves = frozenset(vm for vm, demand in enumerate(problem.vms) if demand.leaves)
    fixed = frozenset(vm for vm, demand in enumerate(problem.vms) if demand.fixed or demand.going)

    def may_move(vm: int) -> bool:
        return policy.repair and vm not in fixed and not _unknown(problem, vm)

    def must_move(vm: int) -> bool:
        return vm in leaves or may_move(vm)

    asked = [vm for vm, node in enumerate(problem.at) if node == NOWHERE]
    if asked:
        settle(state, must_move)
        stopped = place(state, asked, may_move, policy.looks)
        if any(state.at[vm] == NOWHERE for vm in asked) and _changed(problem, state, stopped):
            # Perhaps they all had a place if nothing else had moved before.
            other = real.copy()
            theirs = place(other, asked, may_move, policy.looks)
            if _waiting(other, asked, theirs) < _waiting(state, asked, stopped):
                state, stopped = other, theirs
    # Who had somebody stopped for it stays there: or that was for nothing.
    won = frozenset(vm for vm in asked if stopped)
    repair(state, lambda vm: must_move(vm) and vm not in won, policy.looks, kept=won)
    if policy.repair:
        bring_back(state)
        if not stopped:
            restore(state, lambda vm: may_move(vm) or problem.at[vm] == NOWHERE, policy.looks)
    if not stopped:
        reserve(state, [vm for vm in asked if state.at[vm] != NOWHERE and not problem.vms[vm].fixed])
    evicted = [vm for vm in stopped if state.at[vm] == NOWHERE]
    asked_or_moved = len(asked) + sum(a != b for a, b in zip(problem.at, state.at, strict=True))
    because = Because(asked_or_moved)
    changes = ordered(real, state.at, evicted, because.why)
    changes += balance(real, may_move, policy.balancing, len(changes))
    return Plan(
        steps=_steps(real, changes, stopped),
        refused=_refused(real, [vm for vm in asked if real.at[vm] == NOWHERE] + evicted),
        stays=_stays(real, must_move),
        uneven=(before, uneven(real)),
    )


def refusals_of(
    nodes: Iterable[NodeView], vms: Iterable[VmDemand], constraints: Iterable[NamedConstraint], vm: str
) -> Mapping[str, Why]:
    """For each node that would not take this VM as things are, why not; its own place counts as free."""
    state = State(build(nodes, vms, constraints))
    for index, demand in enumerate(state.problem.vms):
        if demand.name == vm:
            if state.at[index] != NOWHERE:
                state.remove(index)
            return refusals(state, index)
    return {}


def losses_of(
    nodes: Iterable[NodeView], vms: Iterable[VmDemand], constraints: Iterable[NamedConstraint]
) -> Mapping[str, tuple[str, ...]]:
    """For each node that has VMs: those that would find no place if it were lost."""
    problem = build(nodes, vms, constraints)
    return {
        problem.nodes[node].name: tuple(problem.vms[vm].name for vm in left)
        for node, left in losses(State(problem))
    }


def _changed(problem: Problem, state: State, stopped: list[int]) -> bool:
    """Whether any VM that runs was moved."""
    return any(
        was != NOWHERE and was != now and vm not in stopped
        for vm, (was, now) in enumerate(zip(problem.at, state.at, strict=True))
    )


def _waiting(state: State, asked: list[int], stopped: list[int]) -> list[int]:
    """Of two of these the smaller is better: how many have no place, by priority, the highest first."""
    vms, left = state.problem.vms, [vm for vm in {*asked, *stopped} if state.at[vm] == NOWHERE]
    ranks = sorted({demand.priority for demand in vms}, reverse=True)
    return [sum(vms[vm].priority == rank for vm in left) for rank in ranks]


def _unknown(problem: Problem, vm: int) -> bool:
    """Whether nothing is known of the node that it is on."""
    node = problem.at[vm]
    return node != NOWHERE and not problem.cpu[node] and not problem.memory[node]


def _steps(state: State, changes: list[Change], stopped: list[int]) -> tuple[Step, ...]:
    problem = state.problem
    gone: dict[int, list[int]] = {problem.at[vm]: [] for vm in stopped}
    for vm in stopped:
        gone[problem.at[vm]].append(vm)
    steps = []
    for change in changes:
        demand = problem.vms[change.vm]
        awaits = [
            problem.vms[vm].name
            for vm in gone.get(change.target, ())
            if demand.preemption and problem.vms[vm].priority < demand.priority
        ]
        if change.target == NOWHERE:
            kind, reason = Kind.EVICT, "its room is needed by a VM of higher priority"
        else:
            kind = Kind.PLACE if change.source == NOWHERE else Kind.MOVE
            reason = change.reason
        steps.append(
            Step(
                kind=kind,
                vm=demand.name,
                source=None if change.source == NOWHERE else problem.nodes[change.source].name,
                target=None if change.target == NOWHERE else problem.nodes[change.target].name,
                turn=change.turn,
                reason=reason,
                awaits=tuple(awaits),
            )
        )
    return tuple(steps)


def _refused(state: State, vms: list[int]) -> dict[str, Mapping[str, Why]]:
    return {state.problem.vms[vm].name: refusals(state, vm) for vm in sorted(vms)}


def _stays(state: State, may_move: MayMove) -> dict[str, Mapping[str, Why]]:
    found: dict[str, Mapping[str, Why]] = {}
    for vm in sorted(misplaced(state, may_move)):
        mark = state.mark()
        here = state.remove(vm)
        why = refusals(state, vm)
        if state.problem.nodes[here].name not in state.problem.vms[vm].failed:
            why.pop(state.problem.nodes[here].name, None)
        found[state.problem.vms[vm].name] = why
        state.undo(mark)
    return found


__all__ = [
    "Balancing",
    "Kind",
    "Mode",
    "Plan",
    "Policy",
    "Step",
    "Why",
    "losses_of",
    "plan",
    "refusals_of",
    "solve",
    "told",
]
