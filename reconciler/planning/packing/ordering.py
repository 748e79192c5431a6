"""From a placement to the steps that lead there, one after the other.

Invariant: no step breaks a hard rule that was kept before it: what it moves fits where it goes at that time,
room that a later step frees does not count. VMs that must share a node change it in one turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from reconciler.planning.packing.filling import holds, item_of, items_of
from reconciler.planning.packing.problem import NOWHERE
from reconciler.planning.packing.state import State


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """`turn`: changes of one turn are made together."""

    vm: int
    source: int
    target: int
    turn: int
    reason: str = ""


Because = Callable[[State, int, int], str]
"""Why a VM, which is nowhere, goes to a node."""


def ordered(state: State, goal: Sequence[int], first: Iterable[int], because: Because) -> list[Change]:
    """Bring the state to the goal, step by step, as far as steps lead there; the steps. `first`: who is
    stopped before all else."""
    found: list[Change] = []
    for vm in first:
        found.append(Change(vm=vm, source=state.remove(vm), target=NOWHERE, turn=len(found)))
    moving = [vm for vm, node in enumerate(goal) if node not in (NOWHERE, state.at[vm])]
    waiting = [item.vms for item in items_of(state.problem, moving)]
    while waiting:
        blocked = [vms for vms in waiting if not _to(state, vms, [goal[vm] for vm in vms], found, because)]
        if len(blocked) == len(waiting):
            one = next((vms for vms in blocked if _aside(state, vms, goal, found)), None)
            if one is None:
                break
        waiting = blocked
    return found


def _to(
    state: State, vms: Sequence[int], targets: Sequence[int], found: list[Change], because: Because
) -> bool:
    """Move them when they fit where they go; whether they did."""
    mark, sources = state.mark(), [state.at[vm] for vm in vms]
    reasons: list[str] = []
    skewed = [state.skewed(vm) for vm in vms] if sources[0] != NOWHERE else []
    for vm, source in zip(vms, sources, strict=True):
        if source != NOWHERE:
            state.remove(vm)
    for vm, target in zip(vms, targets, strict=True):
        if not state.fits(vm, target) and not _allowed(state, vm, target):
            state.undo(mark)
            return False
        reasons.append(because(state, vm, target))
        state.add(vm, target)
    if skewed and any(state.skewed(vm) > was for vm, was in zip(vms, skewed, strict=True)):
        state.undo(mark)
        return False
    turn = found[-1].turn + 1 if found else 0
    found += [
        Change(vm=vm, source=source, target=target, turn=turn, reason=reason)
        for vm, source, target, reason in zip(vms, sources, targets, reasons, strict=True)
    ]
    return True


def _allowed(state: State, vm: int, node: int) -> bool:
    """A node where it failed, as the last resort of a VM that is nowhere."""
    problem = state.problem
    return (
        problem.nodes[node].name in problem.vms[vm].failed
        and problem.at[vm] == NOWHERE
        and problem.open[node]
        and problem.needs_cpu[vm] <= state.free_cpu[node]
        and problem.needs_memory[vm] <= state.free_memory[node]
        and state.agrees(vm, node)
    )


def _aside(state: State, vms: Sequence[int], goal: Sequence[int], found: list[Change]) -> bool:
    """All wait for each other: one that runs goes somewhere else first, to make way; whether it did."""
    if state.at[vms[0]] == NOWHERE:
        return False
    item = item_of(state.problem, vms)
    here, there = state.at[vms[0]], goal[vms[0]]
    mark = state.mark()
    for vm in vms:
        state.remove(vm)
    nodes = [n for n in range(len(state.problem.nodes)) if n not in (here, there) and holds(state, item, n)]
    state.undo(mark)
    if any(change.vm == vms[0] for change in found):
        return False  # it was moved aside already
    return bool(nodes) and _to(state, vms, [nodes[0]] * len(vms), found, _makes_way)


def _makes_way(state: State, vm: int, node: int) -> str:
    return "for the time being, to make way"
