"""Moving what must not stay: from nodes that cannot have it or are over-full, out of broken constraints.

Invariant: a VM that breaks nothing stays where it is, unless room has to be made for one that does. The
fewest are chosen: of two that must not be together one goes, of an over-full node the fewest that suffice.
A VM keeps its place until another one is found for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Sequence

from reconciler.planning.packing.filling import Filler, Item, holds, items_of
from reconciler.planning.packing.problem import NOWHERE, Group, Problem
from reconciler.planning.packing.refining import refine
from reconciler.planning.packing.room import LOOKS, MayMove, Room
from reconciler.planning.packing.state import State
from reconciler.resources.placementconstraint import ConstraintType


def repair(
    state: State, may_move: MayMove, looks: int = LOOKS, *, kept: Container[int] = frozenset()
) -> None:
    """Remove the violations that can be removed, with few moves; what is nowhere stays so. `kept`: those that
    stay where this plan has put them."""
    stuck, at = settle(state, may_move), state.problem.at
    if stuck:
        room = Room(
            state, may_move=may_move, free=lambda vm: state.at[vm] != at[vm] and vm not in kept, looks=looks
        )
        stuck = [item for item in stuck if not _make_room(state, item, room)]

        def loose(vm: int) -> bool:
            return may_move(vm) or (at[vm] == NOWHERE and vm not in kept)

        _refine(state, stuck, loose, room.looks)
    bring_back(state)


def _refine(state: State, stuck: Sequence[Item], may_move: MayMove, looks: int) -> None:
    """Try more for these, which stay where they are if that is of no use: somebody else may be there now."""
    mark, before = state.mark(), len(misplaced(state, may_move))
    sources = {vm: state.remove(vm) for item in stuck for vm in item.vms}
    for item in refine(state, stuck, may_move, looks, swaps=False):
        _put_back(state, item, [sources[vm] for vm in item.vms])
    if len(misplaced(state, may_move)) >= before:
        state.undo(mark)


def settle(state: State, may_move: MayMove) -> list[Item]:
    """Move what must not stay to where it fits, and nothing else; what fits nowhere."""
    must = sorted(misplaced(state, may_move))
    filler = Filler(state) if must else None
    return [item for item in items_of(state.problem, must) if filler and not _move(state, item, filler)]


def _move(state: State, item: Item, filler: Filler) -> bool:
    """To its best node, or not at all when it is right where it is by now; whether it is."""
    sources = _take(state, item)
    if len(set(sources)) == 1 and holds(state, item, sources[0]):
        _put_back(state, item, sources)
        return True
    if filler.place(item) != NOWHERE:
        return True
    _put_back(state, item, sources)
    return False


def _make_room(state: State, item: Item, room: Room) -> bool:
    """Where others can go for it: which may be where it is."""
    sources = _take(state, item)
    made = room.make(item)
    if not made:
        _put_back(state, item, sources)
    return made


def _take(state: State, item: Item) -> list[int]:
    return [state.remove(vm) for vm in item.vms]


def _put_back(state: State, item: Item, nodes: Sequence[int]) -> None:
    """Where it runs, whatever rule it breaks there."""
    for vm, node in zip(item.vms, nodes, strict=True):
        state.add(vm, node)


def bring_back(state: State) -> None:
    """Who was moved, and could stay as it turned out, stays."""
    problem, changed = state.problem, True
    while changed:
        changed = False
        for vm, source in enumerate(problem.at):
            here = state.at[vm]
            if source == NOWHERE or here in (NOWHERE, source):
                continue
            state.remove(vm)
            back = state.fits(vm, source)
            state.add(vm, source if back else here)
            changed |= back


def misplaced(state: State, may_move: MayMove) -> set[int]:
    """The fewest VMs, about, that must leave their node for every rule to be kept, of those that may."""
    problem = state.problem
    leaving = [node for node, host in enumerate(problem.nodes) if host.leaving]
    found = {vm for node in leaving for vm in state.on[node]}
    found |= {
        vm
        for vm, node in enumerate(state.at)
        if node != NOWHERE and not problem.reachable[problem.kind[vm]][node]
    }
    found = {vm for vm in found if may_move(vm)}
    for index, group in enumerate(problem.groups):
        if not group.weight:
            found |= _breaking(state, group, found, may_move, index)
    for node in range(len(problem.nodes)):
        if state.free_cpu[node] < 0 or state.free_memory[node] < 0:
            found |= _too_many(state, node, found, may_move)
    return found


def _breaking(state: State, group: Group, gone: set[int], may_move: MayMove, index: int) -> set[int]:
    """Those of a group that must move for its rule to be kept."""
    if not _suspicious(state, group, index):
        return set()
    by_domain: dict[int, list[int]] = {}
    for vm in group.members:
        if state.at[vm] != NOWHERE and vm not in gone:
            by_domain.setdefault(group.domain[state.at[vm]], []).append(vm)
    homeless = set(by_domain.pop(NOWHERE, ())) if group.type is not ConstraintType.ANTI_AFFINITY else set()
    by_domain.pop(NOWHERE, None)
    match group.type:
        case ConstraintType.ANTI_AFFINITY:
            rivals = (_all_but_dearest(state.problem, some, may_move) for some in by_domain.values())
            found = {vm for some in rivals for vm in some}
        case ConstraintType.AFFINITY:
            found = homeless | _scattered(by_domain, may_move)
        case _:
            found = homeless | _uneven(state, group, by_domain, may_move)
    return {vm for vm in found if may_move(vm)}


def _suspicious(state: State, group: Group, index: int) -> bool:
    """Whether the counts allow that the rule is broken: most groups are passed over by them."""
    counts = state.counts[index].values()
    match group.type:
        case ConstraintType.ANTI_AFFINITY:
            return max(counts, default=0) > 1
        case ConstraintType.AFFINITY:
            return len(counts) > 1 or state.placed[index] > sum(counts)
        case _:
            skew = max(counts, default=0) - state.least(index)
            return skew > group.max_skew or state.placed[index] > sum(counts)


def _all_but_dearest(problem: Problem, vms: list[int], may_move: MayMove) -> list[int]:
    """All but the one that cannot be moved, or is hardest to place elsewhere."""
    ranked = sorted(vms, key=lambda vm: (may_move(vm), -problem.needs_memory[vm], -problem.needs_cpu[vm], vm))
    return ranked[1:]


def _scattered(by_domain: dict[int, list[int]], may_move: MayMove) -> set[int]:
    """All that are not where most are, or where one is that cannot be moved."""
    if len(by_domain) < 2:
        return set()

    def weight(domain: int) -> tuple[int, int, int]:
        some = by_domain[domain]
        return (sum(not may_move(vm) for vm in some), len(some), -domain)

    home = max(by_domain, key=weight)
    return {vm for domain, some in by_domain.items() if domain != home for vm in some}


def _uneven(state: State, group: Group, by_domain: dict[int, list[int]], may_move: MayMove) -> set[int]:
    """Of the fullest domains the smallest VMs, until moving them to the emptiest would keep the skew."""
    counts = Counter({domain: len(some) for domain, some in by_domain.items()})
    able = [domain for domain, eligible in enumerate(group.eligible) if eligible]
    found: set[int] = set()
    while counts and able:
        fullest = max(sorted(counts), key=lambda domain: counts[domain])
        emptiest = min(able, key=lambda domain: (counts[domain], domain))
        some = [vm for vm in by_domain.get(fullest, ()) if may_move(vm) and vm not in found]
        if counts[fullest] - counts[emptiest] <= group.max_skew or not some:
            break
        found.add(min(some, key=lambda vm: (state.problem.needs_memory[vm], vm)))
        counts[fullest] -= 1
        counts[emptiest] += 1
    return found


def _too_many(state: State, node: int, gone: Iterable[int], may_move: MayMove) -> set[int]:
    """Of an over-full node the fewest VMs that make it fit: one that suffices, the smallest such; else the
    largest, and again."""
    problem = state.problem
    leaving = [vm for vm in gone if state.at[vm] == node]
    cpu = -state.free_cpu[node] - sum(problem.needs_cpu[vm] for vm in leaving)
    memory = -state.free_memory[node] - sum(problem.needs_memory[vm] for vm in leaving)
    rest = sorted(vm for vm in state.on[node] - set(leaving) if may_move(vm))
    found: set[int] = set()
    while (cpu > 0 or memory > 0) and rest:
        vm = _one_too_many(problem, rest, node, cpu, memory)
        rest.remove(vm)
        found.add(vm)
        cpu -= problem.needs_cpu[vm]
        memory -= problem.needs_memory[vm]
    return found


def _one_too_many(problem: Problem, rest: list[int], node: int, cpu: int, memory: int) -> int:
    enough = [vm for vm in rest if problem.needs_cpu[vm] >= cpu and problem.needs_memory[vm] >= memory]
    if enough:
        return min(enough, key=lambda vm: (problem.vms[vm].priority, problem.needs_memory[vm], vm))
    total_cpu, total_memory = max(1, problem.cpu[node]), max(1, problem.memory[node])

    def helps(vm: int) -> float:
        return (
            min(problem.needs_cpu[vm], max(0, cpu)) / total_cpu
            + min(problem.needs_memory[vm], max(0, memory)) / total_memory
        )

    return max(rest, key=lambda vm: (helps(vm), -vm))
