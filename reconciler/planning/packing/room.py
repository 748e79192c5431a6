"""Making room: what fits nowhere is put where one or two others can go elsewhere, or where those that it must
be with can go with it.

Invariant: whatever is tried and does not lead to a place is undone; a VM is only moved when `may_move` says
so, and only to where it fits. Looking ends when the budget is used up, so that a full cluster costs no more
time than it is worth; the budget is counted, not timed, so that equal input gives equal plans.
"""

from __future__ import annotations

from collections.abc import Callable

from reconciler.planning.packing.filling import Item, holds, item_of
from reconciler.planning.packing.problem import NOWHERE
from reconciler.planning.packing.state import State

NODES = 48
"""Nodes that are tried for one item: those that are shortest of being enough."""
OTHERS = 12
"""VMs of a node that are tried as the one to go."""
_ORDER = ((False, 0), (False, 1), (True, 1), (False, 2), (True, 2), (False, 3), (True, 3))
"""Whether VMs that run may be moved, and how many go, one making room for the other: what is tried first."""
LOOKS = 500_000
"""Looks at a node, of all items together: about a second."""
LARGE = 100_000
"""Of a problem of more nodes times VMs than this, no more looks than this."""
WINDOW = 512
"""Of more nodes that an item could be on, so many are looked at, each time the next ones."""
EACH = 20_000
"""Looks at a node for one item, each time that more is tried."""

MayMove = Callable[[int], bool]


class Room:
    """`may_move(vm)`: whether a VM that runs may be moved; `free(vm)`: it may be, and it costs nothing."""

    def __init__(self, state: State, may_move: MayMove, free: MayMove, looks: int = LOOKS) -> None:
        self._state = state
        self._may_move = may_move
        self._is_free = free
        self._paid = False
        size = len(state.problem.nodes) * (len(state.problem.vms) + 8)
        self.looks = self._left = min(looks, 1000 * size, LARGE if size > LARGE else looks)
        self._budget = 0
        self._failed: set[tuple[int, int, int]] = set()
        self._reaches: dict[frozenset[int], list[int]] = {}
        self._next = 0
        self.thorough = looks >= LOOKS

    def refill(self, share: float) -> None:
        """Begin anew, with this share of the budget."""
        self._left = int(self.looks * share)
        self._failed.clear()

    def make(self, item: Item) -> bool:
        """Place the item by moving others, first those that may for nothing; whether it is placed."""
        problem = self._state.problem
        key = (problem.kind[item.vms[0]], item.cpu, item.memory)
        plain = len(item.vms) == 1 and not problem.groups_of[item.vms[0]]
        if (plain and key in self._failed) or not self._enough(item):
            return False
        tries = [item, *self._with_companions(item)]
        done = any(self._try(each, paid, depth) for paid, depth in _ORDER for each in tries)
        if done:
            self._failed.clear()
        elif plain:
            self._failed.add(key)
        return done

    def moved(self) -> int:
        """How many VMs are not where they run, by now."""
        at = self._state.problem.at
        return sum(was not in (NOWHERE, now) for was, now in zip(at, self._state.at, strict=True))

    def _try(self, item: Item, paid: bool, depth: int) -> bool:
        state = self._state
        placed = [vm for vm in item.vms if state.at[vm] != NOWHERE]
        if self._left <= 0 or not (paid or all(map(self._is_free, placed))):
            return False
        self._paid = paid
        self._budget = share = min(EACH, self._left)
        mark = state.mark()
        for vm in placed:
            state.remove(vm)
        done = self._place(item, depth, frozenset(item.vms))
        if not done:
            state.undo(mark)
        self._left -= share - max(0, self._budget)
        return done

    def _with_companions(self, item: Item) -> list[Item]:
        """It and all that have a place and must be on one node with it, as one; none if there are none, or if
        one of them may not be moved."""
        state, problem = self._state, self._state.problem
        found, new = set(item.vms), list(item.vms)
        while new:
            groups = (problem.groups[index] for index in problem.groups_of[new.pop()])
            near = {vm for group in groups if problem.on_one_node(group) for vm in group.members}
            more = [vm for vm in sorted(near - found) if state.at[vm] != NOWHERE]
            if not all(self._is_free(vm) or self._may_move(vm) for vm in more):
                return []
            found.update(more)
            new += more
        return [item_of(problem, sorted(found))] if len(found) > len(item.vms) else []

    def _enough(self, item: Item) -> bool:
        """Whether all free room together would do."""
        state, problem = self._state, self._state.problem
        reachable = problem.reachable[problem.kind[item.vms[0]]]
        # A node out of its reach may still take who goes for it.
        able = [n for n, takes in enumerate(problem.open) if takes]
        cpu = sum(state.free_cpu[n] for n in able if state.free_cpu[n] > 0)
        memory = sum(state.free_memory[n] for n in able if state.free_memory[n] > 0)
        return any(reachable) and cpu >= item.cpu and memory >= item.memory

    def _place(self, item: Item, depth: int, moving: frozenset[int]) -> bool:
        state = self._state
        nodes = self._promising(item, depth)
        for node in nodes:
            if holds(state, item, node):
                for vm in item.vms:
                    state.add(vm, node)
                return True
        return depth > 0 and any(self._clear(item, node, depth, moving) for node in nodes)

    def _promising(self, item: Item, depth: int) -> list[int]:
        """Nodes that it could be on, least short first."""
        state, problem = self._state, self._state.problem
        nodes = self._window(item)
        self._budget -= len(nodes)
        ranked = []
        for node in nodes:
            lack_cpu, lack_memory = item.cpu - state.free_cpu[node], item.memory - state.free_memory[node]
            if not depth and (lack_cpu > 0 or lack_memory > 0):
                continue
            if item.cpu > problem.cpu[node] or item.memory > problem.memory[node]:
                continue
            cpu = max(0, lack_cpu) / max(1, problem.cpu[node])
            memory = max(0, lack_memory) / max(1, problem.memory[node])
            ranked.append((max(cpu, memory), node))
        ranked.sort()
        return [node for _, node in (ranked[: NODES * depth] if depth else ranked)]

    def _window(self, item: Item) -> list[int]:
        """The nodes that are looked at for it."""
        problem = self._state.problem
        kinds = frozenset(problem.kind[vm] for vm in item.vms)
        if kinds not in self._reaches:
            reached = [problem.reachable[kind] for kind in sorted(kinds)]
            able = (n for n, takes in enumerate(problem.open) if takes and all(each[n] for each in reached))
            self._reaches[kinds] = list(able)
        nodes = self._reaches[kinds]
        if len(nodes) <= WINDOW:
            return nodes
        start = self._next % len(nodes)
        self._next += WINDOW
        return [*nodes[start : start + WINDOW], *nodes[: max(0, start + WINDOW - len(nodes))]]

    def _clear(self, item: Item, node: int, depth: int, moving: frozenset[int]) -> bool:
        """Move VMs off the node, one after the other, until the item fits there; whether all have a place."""
        state, problem = self._state, self._state.problem
        for vm in self._goers(item, node, depth, moving)[:OTHERS]:
            self._budget -= 4
            if self._budget < 0:
                return False
            one, gone = item_of(problem, (vm,)), moving | {vm}
            mark = state.mark()
            state.remove(vm)
            if holds(state, item, node):
                for each in item.vms:
                    state.add(each, node)
                done = self._place(one, depth - 1, gone)
            else:
                done = depth > 1 and self._clear(item, node, depth - 1, gone) and self._place(one, 0, gone)
            if done:
                return True
            state.undo(mark)
        return False

    def _goers(self, item: Item, node: int, depth: int, moving: frozenset[int]) -> list[int]:
        """Who may go from the node, the best first: the cheap, those that the item may not be with, then the
        smallest that makes enough room, then the largest."""
        state, problem = self._state, self._state.problem
        cpu, memory = item.cpu - state.free_cpu[node], item.memory - state.free_memory[node]
        groups = problem.groups_of[item.vms[0]]
        rivals = {vm for index in groups for vm in problem.groups[index].members if state.at[vm] == node}
        ranked = []
        alike: set[tuple[int, ...]] = {self._alike(item.vms[0])} if len(item.vms) == 1 else set()
        for vm in sorted(state.on[node]):
            if vm in moving:
                continue
            free = self._is_free(vm)
            if not free and not (self._paid and self._may_move(vm)):
                continue
            like = self._alike(vm)
            if like in alike or (*like, free) in alike:
                continue  # whether the one goes or the other makes no difference
            alike.add((*like, free))
            size = problem.needs_memory[vm]
            enough = problem.needs_cpu[vm] >= cpu and size >= memory
            if depth > 1 or enough:
                ranked.append((not free, vm not in rivals, not enough, size if enough else -size, vm))
        ranked.sort()
        return [entry[-1] for entry in ranked]

    def _alike(self, vm: int) -> tuple[int, ...]:
        """The same for VMs that are the same to every node."""
        problem = self._state.problem
        if problem.groups_of[vm]:
            return (-1 - vm,)
        return (problem.kind[vm], problem.needs_cpu[vm], problem.needs_memory[vm])
