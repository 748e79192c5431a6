"""N+1: of placements that are as good otherwise, one in which any single node may be lost.

Invariants: no Preferred constraint is kept less for it, and no hard rule is broken; after each move fewer VMs
would find no place after a loss than before it. What is tried is bounded by a count, so that equal input
gives equal plans: in a cluster that is too large for it, nothing is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from reconciler.planning.packing.filling import Filler, items_of, wishes
from reconciler.planning.packing.losses import losses
from reconciler.planning.packing.problem import NOWHERE
from reconciler.planning.packing.state import State

NODES = 32
"""Beyond so many nodes one is a small part, and room for its VMs is nearly always there."""
WORK = 20_000
"""VMs that are placed in all the losses that are looked at."""


def shortage(state: State) -> int:
    """How many VMs would find no place, summed over the losses of each single node."""
    return sum(len(left) for _, left in losses(state))


def looks_of(state: State) -> int:
    """How many placements may be looked at; 0: the cluster is too large."""
    running = sum(len(vms) for vms in state.on)
    return WORK // running if running and len(state.problem.nodes) <= NODES else 0


def reserve(state: State, fresh: Sequence[int]) -> None:
    """Put VMs that have just got a place elsewhere, while fewer would be without one after a loss then."""
    looks = looks_of(state) if fresh else 0
    short = shortage(state) if looks else 0
    if not short:
        return
    short = _packed(state, fresh, short)
    for _ in better(state, fresh, short, looks):
        pass


def better(state: State, vms: Sequence[int], short: int, looks: int) -> Iterator[tuple[int, int, int]]:
    """The best move of one of these VMs, again and again, each carried out: VM, source, target. Each leaves
    fewer than `short` and than before without a place; it ends when none does, or `looks` are used up."""
    while short and looks > 0:
        best: tuple[int, int, int] | None = None
        for vm, target in _candidates(state, vms):
            if looks <= 0:
                break
            looks -= 1
            mark, source = state.mark(), state.remove(vm)
            state.add(vm, target)
            now = shortage(state)
            state.undo(mark)
            if now < (best[0] if best else short):
                best = (now, vm, target)
            if not now:
                break
        if best is None:
            return
        short, vm, target = best
        source = state.remove(vm)
        state.add(vm, target)
        yield vm, source, target


def _candidates(state: State, vms: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Moves that no rule forbids and that keep as many wishes, the large VMs first."""
    problem = state.problem
    for vm in sorted(vms, key=lambda vm: (-problem.needs_memory[vm], -problem.needs_cpu[vm], vm)):
        if state.at[vm] == NOWHERE:
            continue
        for target in range(len(problem.nodes)):
            if target != state.at[vm] and _fine(state, vm, target):
                yield vm, target


def _fine(state: State, vm: int, target: int) -> bool:
    mark, skewed = state.mark(), state.skewed(vm)
    source = state.remove(vm)
    fine = state.fits(vm, target) and wishes(state, [vm], target) >= wishes(state, [vm], source)
    if fine:
        state.add(vm, target)
        fine = state.skewed(vm) <= skewed
    state.undo(mark)
    return fine


def _packed(state: State, fresh: Sequence[int], short: int) -> int:
    """All of them close together, if that is better: room is left in one piece then."""
    mark, kept = state.mark(), _kept(state, fresh)
    for vm in fresh:
        state.remove(vm)
    left = Filler(state, pack=True).fill(items_of(state.problem, fresh))
    now = short if left or _kept(state, fresh) < kept else shortage(state)
    if now < short:
        return now
    state.undo(mark)
    return short


def _kept(state: State, vms: Sequence[int]) -> int:
    """The wishes that these VMs have and that are kept, by weight."""
    found = 0
    for vm in vms:
        if state.problem.rules_of[vm] or state.problem.wishes_of[vm]:
            mark, node = state.mark(), state.remove(vm)
            found += wishes(state, [vm], node)
            state.undo(mark)
    return found
