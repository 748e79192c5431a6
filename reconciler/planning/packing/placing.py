"""Placing what has no place, rank by rank of priority: where it fits, else by making room.

Invariants: of two VMs the one of higher priority never waits for the other; what runs is moved only when
`may_move` allows it, and stopped only for a VM with `preemption` and a higher priority.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heappop, heappush

from reconciler.planning.packing.evicting import evict
from reconciler.planning.packing.filling import Filler, Item, item_of, items_of
from reconciler.planning.packing.problem import NOWHERE, unreachable
from reconciler.planning.packing.room import MayMove, Room
from reconciler.planning.packing.state import State

SEARCHED = 300_000
"""Beyond so many items times nodes, the largest are left out without a search for how many."""


def place(state: State, vms: Sequence[int], may_move: MayMove) -> list[int]:
    """Place these VMs, which have no place, as far as there is room. Those that run and were stopped for it,
    and found no other place."""
    problem = state.problem
    settled = {vm for vm, node in enumerate(state.at) if node != NOWHERE}
    room = Room(
        state,
        may_move=lambda vm: vm not in settled or may_move(vm),
        costs=lambda vm: int(vm in settled),
    )
    waiting: dict[int, list[int]] = {}
    for vm in vms:
        waiting.setdefault(problem.vms[vm].priority, []).append(vm)
    ranks = [-priority for priority in waiting]
    heapify(ranks)
    stopped: list[int] = []
    while ranks:
        priority = -heappop(ranks)
        left = _rank(state, items_of(problem, waiting[priority]), room)
        for vm in [vm for vm in left if problem.vms[vm].preemption]:
            victims = evict(state, vm)
            stopped += victims
            for victim in victims:
                rank = problem.vms[victim].priority
                if rank not in waiting:
                    waiting[rank] = []
                    heappush(ranks, -rank)
                waiting[rank].append(victim)
    return [vm for vm in stopped if state.at[vm] != problem.at[vm]]


def _rank(state: State, items: list[Item], room: Room) -> list[int]:
    """Place VMs of one priority; those that are left."""
    mark = state.mark()
    left = Filler(state).fill(items)
    if left and (spread := [item for item in left if not room.make(item)]):
        state.undo(mark)
        left = _without_the_largest(state, items)
        left = [item for item in sorted(left, key=_size) if not room.make(item)]
        if _vms(left) >= _vms(spread):
            state.undo(mark)
            left = [item for item in Filler(state).fill(items) if not room.make(item)]
    singles = [vm for item in sorted(left, key=_size) for vm in item.vms]
    if any(len(item.vms) > 1 for item in left):
        # Together they are too large for any node: as many as fit on one.
        singles = [vm for vm in singles if not room.make(item_of(state.problem, (vm,)))]
    return [vm for vm in singles if not _where_it_failed(state, vm)]


def _size(item: Item) -> tuple[int, int, tuple[int, ...]]:
    return (item.memory, item.cpu, item.vms)


def _vms(items: Sequence[Item]) -> int:
    return sum(len(item.vms) for item in items)


def _without_the_largest(state: State, items: list[Item]) -> list[Item]:
    """Not all fit: as many as possible are to run, so the largest are left out. How many must be is found by
    bisection, or, when that took too long, by placing the smallest first."""
    if len(items) * len(state.problem.nodes) > SEARCHED:
        return Filler(state, pack=True).fill(reversed(items))
    mark, low, high = state.mark(), 0, len(items)
    going = sorted(items, key=lambda item: (_size(item)[:2], item.vms), reverse=True)
    while low < high:
        middle = (low + high) // 2
        state.undo(mark)
        if Filler(state, pack=True).fill(_but(items, going[:middle])):
            low = middle + 1
        else:
            high = middle
    state.undo(mark)
    return [*Filler(state, pack=True).fill(_but(items, going[:low])), *going[:low]]


def _but(items: list[Item], gone: list[Item]) -> list[Item]:
    without = {item.vms for item in gone}
    return [item for item in items if item.vms not in without]


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
