"""Placing what has no place on the best of the nodes that can take it, without moving anything.

Invariant: nothing is put where it does not fit. `Filler` looks at few nodes for each VM: a heap of nodes by
load, mended where it is looked at, stays right because loads only grow while it works; where a VM was taken
away meanwhile, it may miss the best node, never a possible one.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from reconciler.planning.packing.problem import NOWHERE, Problem
from reconciler.planning.packing.state import SCALE, State
from reconciler.resources.placementconstraint import ConstraintType

ALL = 128
"""Of so many nodes, all are compared for a VM with Preferred constraints; of more, so many that fit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """VMs that are placed as one, because they must be on one node; `room` of all of them."""

    vms: tuple[int, ...]
    priority: int
    cpu: int
    memory: int


def items_of(problem: Problem, vms: Sequence[int]) -> list[Item]:
    """These VMs, those that must share a node as one; in the order in which they are placed: by priority,
    then the large before the small, then by name."""
    leader = {vm: vm for vm in vms}

    def find(vm: int) -> int:
        while leader[vm] != vm:
            leader[vm] = leader[leader[vm]]
            vm = leader[vm]
        return vm

    for group in problem.groups:
        if problem.on_one_node(group):
            mine = [vm for vm in group.members if vm in leader]
            for vm in mine[1:]:
                one, other = sorted((find(mine[0]), find(vm)))
                leader[other] = one
    together: dict[int, list[int]] = {}
    for vm in vms:
        together.setdefault(find(vm), []).append(vm)
    return sorted((item_of(problem, some) for some in together.values()), key=_rank(problem))


def item_of(problem: Problem, vms: Sequence[int]) -> Item:
    """These as one."""
    return Item(
        vms=tuple(sorted(vms)),
        priority=max(problem.vms[vm].priority for vm in vms),
        cpu=sum(problem.needs_cpu[vm] for vm in vms),
        memory=sum(problem.needs_memory[vm] for vm in vms),
    )


def _rank(problem: Problem) -> Callable[[Item], tuple[int, ...]]:
    """A size is the larger share that it takes of all there is."""
    cpu, memory = max(1, sum(problem.cpu)), max(1, sum(problem.memory))

    def rank(item: Item) -> tuple[int, ...]:
        size = max(item.cpu * SCALE * SCALE // cpu, item.memory * SCALE * SCALE // memory)
        return (-item.priority, -size, item.vms[0])

    return rank


class Filler:
    """Places items on the nodes of a State: the least loaded that fits first, so that what is left is left on
    all nodes; with `pack` the most loaded, so that it is left in one piece. `shut` takes nothing."""

    def __init__(self, state: State, *, pack: bool = False, shut: int = NOWHERE) -> None:
        problem = state.problem
        self._state = state
        self._pack = pack
        self._shut = shut
        self._count = max(1, len(problem.nodes))
        self._nodes = [n for n, takes in enumerate(problem.open) if takes and n != shut]
        self._by_tie = sorted(range(len(problem.nodes)), key=problem.tie.__getitem__)
        self._heaps: dict[tuple[int, tuple[int, ...]], list[int]] = {}
        self._wants: dict[tuple[int, ...], list[int]] = {}
        self._hopeless: dict[int, list[tuple[int, int]]] = {}
        self._shelf = sorted((state.load[n], n) for n in self._nodes) if pack else []
        self._most_cpu = max((problem.cpu[n] for n in self._nodes), default=1)
        self._most_memory = max((problem.memory[n] for n in self._nodes), default=1)

    def fill(self, items: Iterable[Item]) -> list[Item]:
        """Place what fits, in this order; the items that fit nowhere."""
        return [item for item in items if self.place(item) == NOWHERE]

    def place(self, item: Item) -> int:
        """Put the item on its best node; the node, or NOWHERE."""
        problem, first = self._state.problem, item.vms[0]
        kind = problem.kind[first]
        failed = self._hopeless.setdefault(kind, [])
        if any(cpu <= item.cpu and memory <= item.memory for cpu, memory in failed):
            return NOWHERE
        node = self._find(item, kind)
        if node != NOWHERE:
            self._put(item, node)
        elif len(item.vms) == 1 and not problem.groups_of[first]:
            failed[:] = [(c, m) for c, m in failed if c < item.cpu or m < item.memory]
            failed.append((item.cpu, item.memory))
        return node

    def _find(self, item: Item, kind: int) -> int:
        problem = self._state.problem
        soft: tuple[int, ...] = ()
        if problem.rules:
            soft = tuple(r for vm in item.vms for r in problem.rules_of[vm] if problem.rules[r].weight)
        if soft or any(problem.wishes_of[vm] for vm in item.vms):
            return self._best(item, kind, soft)
        tied = self._tied(item)
        if tied is not None:
            return self._by_load(item, tied)
        if self._pack:
            return self._fullest(item)
        return next(iter(self._emptiest(item, kind, soft, 1)), NOWHERE)

    def _tied(self, item: Item) -> tuple[int, ...] | None:
        """The nodes of the domain in which those are that it must be with; None when there are none."""
        state, problem = self._state, self._state.problem
        for vm in item.vms:
            for index in problem.groups_of[vm]:
                group = problem.groups[index]
                if group.type is ConstraintType.AFFINITY and state.placed[index]:
                    return tuple(node for domain in state.counts[index] for node in group.inside[domain])
        return None

    def _by_load(self, item: Item, nodes: Iterable[int]) -> int:
        """The best of these nodes that can take it."""
        state, tie, sign = self._state, self._state.problem.tie, -1 if self._pack else 1
        able = (n for n in nodes if n != self._shut and holds(state, item, n))
        return min(able, key=lambda n: (sign * state.load[n], tie[n]), default=NOWHERE)

    def _put(self, item: Item, node: int) -> None:
        before = self._state.load[node]
        for vm in item.vms:
            self._state.add(vm, node)
        if self._pack:
            del self._shelf[bisect_left(self._shelf, (before, node))]
            insort(self._shelf, (self._state.load[node], node))

    def _heap(self, kind: int, soft: tuple[int, ...]) -> list[int]:
        """The nodes of a kind, by how many wishes they break, load and rank, each as one number."""
        key = (kind, soft)
        if key not in self._heaps:
            problem = self._state.problem
            wants = [0] * len(problem.nodes)
            for index in soft:
                rule = problem.rules[index]
                wants = [w + (0 if ok else rule.weight) for w, ok in zip(wants, rule.allows, strict=True)]
            self._wants[soft] = wants
            reachable = problem.reachable[kind]
            heap = [self._entry(wants, n) for n in self._nodes if reachable[n]]
            heapify(heap)
            self._heaps[key] = heap
        return self._heaps[key]

    def _entry(self, wants: Sequence[int], node: int) -> int:
        state = self._state
        return (wants[node] * 4 * SCALE + state.load[node]) * self._count + state.problem.tie[node]

    def _emptiest(self, item: Item, kind: int, soft: tuple[int, ...], many: int) -> list[int]:
        """The first so many nodes of the heap that can take the item."""
        heap, wants, found = self._heap(kind, soft), self._wants[soft], list[int]()
        aside: list[int] = []
        while heap and len(found) < many:
            node = self._by_tie[heap[0] % self._count]
            entry = self._entry(wants, node)
            if entry != heap[0]:
                heappop(heap)
                heappush(heap, entry)
                continue
            if holds(self._state, item, node):
                found.append(node)
                if many == 1:
                    break
            aside.append(heappop(heap))
        for entry in aside:
            heappush(heap, entry)
        return found

    def _fullest(self, item: Item) -> int:
        share = min(
            item.cpu * SCALE // max(1, self._most_cpu), item.memory * SCALE // max(1, self._most_memory)
        )
        for position in range(bisect_right(self._shelf, (SCALE - share, self._count)) - 1, -1, -1):
            node = self._shelf[position][1]
            if holds(self._state, item, node):
                return node
        return NOWHERE

    def _best(self, item: Item, kind: int, soft: tuple[int, ...]) -> int:
        """By wishes, then load; when there are many nodes, of some that fit and those of its companions."""
        state, problem = self._state, self._state.problem
        able = set(self._nodes)
        near = {
            state.at[other]
            for vm in item.vms
            for index in problem.wishes_of[vm]
            if problem.groups[index].type is ConstraintType.AFFINITY
            for other in problem.groups[index].members[:ALL]
            if state.at[other] in able and holds(state, item, state.at[other])
        }
        near.update(self._emptiest(item, kind, soft, ALL))
        sign = -1 if self._pack else 1
        return min(
            near,
            key=lambda n: (-wishes(state, item.vms, n), sign * state.load[n], problem.tie[n]),
            default=NOWHERE,
        )


def holds(state: State, item: Item, node: int) -> bool:
    """Whether the node can take all of it."""
    if item.memory > state.free_memory[node] or item.cpu > state.free_cpu[node]:
        return False
    if len(item.vms) == 1:
        return state.fits(item.vms[0], node)
    mark, fine = state.mark(), True
    for vm in item.vms:  # members count each other, as in a Spread
        fine = state.fits(vm, node)
        if not fine:
            break
        state.add(vm, node)
    state.undo(mark)
    return fine


def wishes(state: State, vms: Iterable[int], node: int) -> int:
    """The weights of the Preferred constraints that would be kept there, less those that would be broken; the
    VMs are nowhere now."""
    problem, found = state.problem, 0
    for vm in vms:
        for index in problem.rules_of[vm]:
            rule = problem.rules[index]
            found += rule.weight if rule.allows[node] else 0
        for index in problem.wishes_of[vm]:
            found += _wish(state, index, node)
    return found


def _wish(state: State, index: int, node: int) -> int:
    group = state.problem.groups[index]
    domain = group.domain[node]
    count = state.counts[index].get(domain, 0)
    match group.type:
        case ConstraintType.AFFINITY:
            return group.weight if count else 0
        case ConstraintType.ANTI_AFFINITY:
            return -group.weight if count else 0
        case _:
            return -group.weight * count // max(1, group.max_skew)
