"""Which VMs must be together, through any number of Affinity constraints, and through which.

Invariant: sharing a node is sharing every topology that it has: constraints on nodes count for all keys.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

NODE = "node"
"""The topology in which every node is a place of its own."""

Edge = tuple[str, str, tuple[str, ...]]
"""Constraint, topology key, and the VMs that it keeps together."""


class Togetherness:
    """Built once of all Required Affinity constraints."""

    def __init__(self, edges: Iterable[Edge]) -> None:
        self._edges = list(edges)
        self._leaders: dict[str, dict[str, str]] = {}

    def units(self, vms: Iterable[str], key: str, *, whole: bool = False) -> list[tuple[str, ...]]:
        """These VMs, those that must share a value of `key` as one; `whole`: with all others of theirs."""
        leaders = self._leader(key)
        found: dict[str, set[str]] = defaultdict(set)
        for vm in vms:
            found[leaders.get(vm, vm)].add(vm)
        if whole:
            for vm, leader in leaders.items():
                if leader in found:
                    found[leader].add(vm)
        return [tuple(sorted(some)) for _, some in sorted(found.items())]

    def labelled(self, unit: Iterable[str], key: str) -> bool:
        """Whether the VMs of a unit must be at a value of `key`: a constraint of this very key is among those
        that keep them together."""
        vms = frozenset(unit)
        return key == NODE or any(edge[1] == key and not vms.isdisjoint(edge[2]) for edge in self._edges)

    def path(self, one: str, other: str, key: str) -> tuple[str, ...]:
        """The constraints through which two VMs are together, the fewest; empty when they are not."""
        came: dict[str, tuple[str, str]] = {one: ("", "")}
        queue = [one]
        for vm in queue:
            for name, _, members in self._edges_of(key):
                if vm in members:
                    for each in members:
                        if each not in came:
                            came[each] = (vm, name)
                            queue.append(each)
        found: list[str] = []
        while other in came and other != one:
            other, name = came[other]
            found.append(name)
        return tuple(dict.fromkeys(reversed(found)))

    def _edges_of(self, key: str) -> Sequence[Edge]:
        return [edge for edge in self._edges if edge[1] in (key, NODE)]

    def _leader(self, key: str) -> dict[str, str]:
        """The first by name of each VM's unit."""
        if key in self._leaders:
            return self._leaders[key]
        parent: dict[str, str] = {}

        def find(vm: str) -> str:
            while parent.setdefault(vm, vm) != vm:
                parent[vm] = parent[parent[vm]]
                vm = parent[vm]
            return vm

        for _, _, members in self._edges_of(key):
            for vm in members:
                low, high = sorted((find(members[0]), find(vm)))
                parent[high] = low
        self._leaders[key] = {vm: find(vm) for vm in sorted(parent)}
        return self._leaders[key]
