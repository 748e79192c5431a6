"""What `startAfter` says among VMs: in which order they start, and backwards in which they stop.

Invariants: a VM counts for no less than the most important VM that starts after it, so that priority and
`startAfter` never contradict each other; and a cycle, which is an error to report, still gives an order, the
same one on every node, since an emergency cannot wait for somebody to mend a file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

Edges = Mapping[str, Iterable[str]]
"""By VM: the names of those that it starts after. Names that are no VM are passed over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a VM stands. `weight`: its priority, or a higher one of a VM that starts after it. `wave`: when
    it stops, 0 first. `after`: the VMs that it starts after; `before`: those that start after it; by name."""

    weight: int
    wave: int
    after: tuple[str, ...]
    before: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """`places`: of every VM. `waves`: how many there are. `cycles`: VMs that wait for each other, each in
    the order in which one starts after the next, the least name first."""

    places: Mapping[str, Place]
    waves: int
    cycles: tuple[tuple[str, ...], ...]


def order_of(priorities: Mapping[str, int], start_after: Edges) -> Order:
    """The order of all VMs of `priorities`."""
    edges = {
        vm: sorted({other for other in start_after.get(vm, ()) if other in priorities})
        for vm in sorted(priorities)
    }
    cycles = _break_cycles(edges)
    before: dict[str, list[str]] = {vm: [] for vm in edges}
    for vm, others in edges.items():
        for other in others:
            before[other].append(vm)
    weights, levels = _weigh(priorities, before)
    ranks = {vm: (weights[vm], levels[vm]) for vm in edges}
    numbers = {rank: number for number, rank in enumerate(sorted(set(ranks.values())))}
    places = {
        vm: Place(
            weight=weights[vm], wave=numbers[ranks[vm]], after=tuple(edges[vm]), before=tuple(before[vm])
        )
        for vm in edges
    }
    return Order(places=places, waves=len(numbers), cycles=cycles)


def _break_cycles(edges: dict[str, list[str]]) -> tuple[tuple[str, ...], ...]:
    """Takes one edge out of each cycle: what its least VM starts after. Returns the cycles."""
    found: list[tuple[str, ...]] = []
    while True:
        try:
            TopologicalSorter(edges).prepare()
        except CycleError as error:
            ring: list[str] = error.args[1][:0:-1]
            first = ring.index(min(ring))
            cycle = (*ring[first:], *ring[:first])
            edges[cycle[0]].remove(cycle[1 % len(cycle)])
            found.append(cycle)
        else:
            return tuple(sorted(found))


def _weigh(
    priorities: Mapping[str, int], before: Mapping[str, Iterable[str]]
) -> tuple[dict[str, int], dict[str, int]]:
    """(weight, level) of each VM. Level: how many VMs of its weight stop before it, one after the other."""
    weights: dict[str, int] = {}
    levels: dict[str, int] = {}
    for vm in TopologicalSorter(before).static_order():
        weights[vm] = max([priorities[vm], *(weights[other] for other in before[vm])])
        equal = [levels[other] for other in before[vm] if weights[other] == weights[vm]]
        levels[vm] = max(equal, default=-1) + 1
    return weights, levels
