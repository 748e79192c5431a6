"""Placing what has no place, rank by rank of priority: where it fits, else by making room.

Invariants: of two VMs the one of higher priority never waits for the other; what runs is moved only when
`may_move` allows it, and stopped only for a VM with `preemption` and a higher priority.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heapify, heappop, heappush

from reconciler.planning.packing.evicting import evict
from reconciler.planning.packing.filling import Filler, Item, item_of, items_of
from reconciler.planning.packing.problem import NOWHERE, unreachable
from reconciler.planning.packing.refining import refine
from reconciler.planning.packing.room import MayMove, Room
from reconciler.planning.packing.state import State

SEARCHED = 300_000
"""Beyond so many items times nodes, the largest are left out without a search for which."""

FEW = 50
"""Of so many items one may be left, and then only that one is looked after, in a large problem."""


def place(state: State, vms: Sequence[int], may_move: MayMove, looks: int) -> list[int]:
    """Place these VMs, which have no place, as far as there is room. Those that run and were stopped for it,
    and found no other place. `looks`: how much may be tried when not all fit at once."""
    problem = state.problem
    settled = {vm for vm, node in enumerate(state.at) if node != NOWHERE}
    won: set[int] = set()

    def free(vm: int) -> bool:
        return vm not in settled and vm not in won

    def movable(vm: int) -> bool:
        return vm not in won and may_move(vm)  # it was for this place that somebody was stopped

    def loose(vm: int) -> bool:
        return free(vm) or (vm in settled and may_move(vm))

    room = Room(state, may_move=movable, free=free, looks=looks)
    waiting: dict[int, list[int]] = {}
    for vm in vms:
        waiting.setdefault(problem.vms[vm].priority, []).append(vm)
    ranks = [-priority for priority in waiting]
    heapify(ranks)
    stopped: list[int] = []
    while ranks:
        priority = -heappop(ranks)
        left = _rank(state, items_of(problem, waiting[priority]), room, loose)
        for vm in [vm for vm in left if problem.vms[vm].preemption]:
            victims = evict(state, vm)
            stopped += victims
            won |= {vm} if victims else set()
            for victim in victims:
                rank = problem.vms[victim].priority
                if rank not in waiting:
                    waiting[rank] = []
                    heappush(ranks, -rank)
                waiting[rank].append(victim)
    return [vm for vm in stopped if state.at[vm] != problem.at[vm]]


def _rank(state: State, items: list[Item], room: Room, loose: MayMove) -> list[int]:
    """Place VMs of one priority; those that are left."""
    mark = state.mark()
    left = Filler(state).fill(items)
    if left and len(items) * len(state.problem.nodes) > SEARCHED and len(left) * FEW < len(items):
        left = [item for item in sorted(left, key=_size) if not room.make(item)]
    elif left:
        state.undo(mark)
        left = _best_of(state, items, room)
    left = refine(state, left, loose, room.looks)
    singles = [vm for item in sorted(left, key=_size) for vm in item.vms]
    if any(len(item.vms) > 1 for item in left):
        # Together they are too large for any node: as many as fit on one.
        alone = [item_of(state.problem, (vm,)) for vm in singles]
        # Where there is room as it is, it needs no search, of which little may be left.
        alone = [item for item in alone if Filler(state).place(item) == NOWHERE and not room.make(item)]
        singles = [vm for item in alone for vm in item.vms]
    return [vm for vm in singles if not _where_it_failed(state, vm)]


Way = Callable[[State, list[Item]], list[Item]]
"""Places as many as it can; who is left."""


def _best_of(state: State, items: list[Item], room: Room) -> list[Item]:
    """Not all fit at once: the way that leaves the fewest, then moves the fewest; who is left."""
    ways: list[Way] = [_spread, _packed]
    if len(items) * len(state.problem.nodes) > SEARCHED:
        ways.append(_smallest_first)
    else:
        ways += [_without_the_largest(weight) for weight in (_WEIGHTS if room.thorough else _WEIGHTS[:1])]
    mark = state.mark()
    best: tuple[tuple[int, int], list[int], list[Item]] | None = None
    for way in ways:
        room.refill(1 / len(ways))
        left = [item for item in sorted(way(state, items), key=_size) if not room.make(item)]
        cost = (_vms(left), room.moved())
        if best is None or cost < best[0]:
            best = (cost, list(state.at), left)
        state.undo(mark)
        if not any(best[0]):
            break
    assert best is not None
    _become(state, best[1])
    return best[2]


def _become(state: State, at: Sequence[int]) -> None:
    """Put every VM where it was then."""
    changed = [vm for vm, node in enumerate(at) if node != state.at[vm]]
    for vm in changed:
        if state.at[vm] != NOWHERE:
            state.remove(vm)
    for vm in changed:
        if at[vm] != NOWHERE:
            state.add(vm, at[vm])


def _spread(state: State, items: list[Item]) -> list[Item]:
    return Filler(state).fill(items)


def _packed(state: State, items: list[Item]) -> list[Item]:
    return Filler(state, pack=True).fill(items)


def _smallest_first(state: State, items: list[Item]) -> list[Item]:
    return Filler(state, pack=True).fill(reversed(items))


_WEIGHTS = ((1, 1), (3, 1), (1, 3), (1, 0), (0, 1))
"""Of CPU and memory, when it is asked which VMs are the largest."""


def _without_the_largest(weights: tuple[int, int]) -> Way:
    """As many as possible are to run, so the largest are left out; how many must be is found by bisection."""

    def way(state: State, items: list[Item]) -> list[Item]:
        problem = state.problem
        cpu, memory = max(1, sum(problem.cpu)), max(1, sum(problem.memory))

        def size(item: Item) -> tuple[int, int, tuple[int, ...]]:
            share = weights[0] * item.cpu * memory + weights[1] * item.memory * cpu
            return (share, item.cpu * memory + item.memory * cpu, item.vms)

        going = sorted(items, key=size, reverse=True)
        mark, low, high = state.mark(), 0, len(items)
        while low < high:
            middle = (low + high) // 2
            state.undo(mark)
            if Filler(state, pack=True).fill(_but(items, going[:middle])):
                low = middle + 1
            else:
                high = middle
        state.undo(mark)
        return [*Filler(state, pack=True).fill(_but(items, going[:low])), *going[:low]]

    return way


def _but(items: list[Item], gone: list[Item]) -> list[Item]:
    without = {item.vms for item in gone}
    return [item for item in items if item.vms not in without]


def _size(item: Item) -> tuple[int, int, tuple[int, ...]]:
    return (item.memory, item.cpu, item.vms)


def _vms(items: Sequence[Item]) -> int:
    return sum(len(item.vms) for item in items)


def _where_it_failed(state: State, vm: int) -> bool:
    """A VM that is nowhere, and that fits only where it failed, is tried there again: where it did least. One
    that has a place stays: a VM that moved on from every failure would never come to rest."""
    problem, demand = state.problem, state.problem.vms[vm]
    if not demand.failed or problem.at[vm] != NOWHERE:
        return False
    able = [
        node
        for node, host in enumerate(problem.nodes)
        if host.name in demand.failed
        and problem.open[node]
        and problem.needs_cpu[vm] <= state.free_cpu[node]
        and problem.needs_memory[vm] <= state.free_memory[node]
        and not unreachable(demand, host)
        and all(problem.rules[r].allows[node] for r in problem.rules_of[vm] if not problem.rules[r].weight)
        and state.agrees(vm, node)
    ]
    if not able:
        return False
    state.add(vm, min(able, key=lambda node: (demand.failed[problem.nodes[node].name].count, node)))
    return True
