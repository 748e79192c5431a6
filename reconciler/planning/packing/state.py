"""A placement in the making: who is where, what is used, and how often each constraint counts a VM.

Invariant: `add` and `remove` keep every count true, so that `fits` is asked in time that does not grow with
the cluster. Only domains that have a member are counted: most constraints are about a few VMs of many nodes.
"""

from __future__ import annotations

from reconciler.planning.packing.problem import NOWHERE, Problem
from reconciler.resources.placementconstraint import ConstraintType

SCALE = 1 << 20
"""Loads are whole numbers: shares of what a node has, times this."""


class State:
    """Begins as what is placed already."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        count = len(problem.nodes)
        self.at = [NOWHERE] * len(problem.vms)
        self.free_cpu = list(problem.cpu)
        self.free_memory = list(problem.memory)
        self.on: list[set[int]] = [set() for _ in range(count)]
        self.counts: list[dict[int, int]] = [{} for _ in problem.groups]
        self.placed = [0] * len(problem.groups)
        self.load = [0] * count
        self._leasts: list[int | None] = [None] * len(problem.groups)
        self._done: list[tuple[int, int]] = []
        for vm, node in enumerate(problem.at):
            if node != NOWHERE:
                self._seat(vm, node)
        for node in range(count):
            self._weigh(node)

    def copy(self) -> State:
        """The same placement, to be changed on its own."""
        other = State.__new__(State)
        other.problem = self.problem
        other.at = self.at.copy()
        other.free_cpu, other.free_memory = self.free_cpu.copy(), self.free_memory.copy()
        other.on = [vms.copy() for vms in self.on]
        other.counts = [counts.copy() for counts in self.counts]
        other.placed, other.load = self.placed.copy(), self.load.copy()
        other._leasts, other._done = self._leasts.copy(), []
        return other

    def mark(self) -> int:
        """This moment, to come back to with `undo`."""
        return len(self._done)

    def undo(self, mark: int) -> None:
        """As it was then."""
        while len(self._done) > mark:
            vm, before = self._done.pop()
            if self.at[vm] != NOWHERE:
                self._remove(vm)
            if before != NOWHERE:
                self._add(vm, before)

    def add(self, vm: int, node: int) -> None:
        """Put it there; it is nowhere now."""
        self._done.append((vm, NOWHERE))
        self._add(vm, node)

    def remove(self, vm: int) -> int:
        """Take it away; where it was."""
        self._done.append((vm, self.at[vm]))
        return self._remove(vm)

    def _add(self, vm: int, node: int) -> None:
        self._seat(vm, node)
        self._weigh(node)

    def _seat(self, vm: int, node: int) -> None:
        self.at[vm] = node
        self.on[node].add(vm)
        self._change(vm, node, 1)

    def _remove(self, vm: int) -> int:
        node = self.at[vm]
        self.at[vm] = NOWHERE
        self.on[node].discard(vm)
        self._change(vm, node, -1)
        self._weigh(node)
        return node

    def _change(self, vm: int, node: int, by: int) -> None:
        problem = self.problem
        self.free_cpu[node] -= by * problem.needs_cpu[vm]
        self.free_memory[node] -= by * problem.needs_memory[vm]
        for mine in (problem.groups_of[vm], problem.wishes_of[vm]):
            for index in mine:
                domain = problem.groups[index].domain[node]
                if domain != NOWHERE:
                    counts = self.counts[index]
                    counts[domain] = counts.get(domain, 0) + by
                    if not counts[domain]:
                        del counts[domain]
                    self._leasts[index] = None
                self.placed[index] += by

    def _weigh(self, node: int) -> None:
        """The share of its scarcer resource that is used; a node that has nothing is full."""
        cpu, memory = self.problem.cpu[node], self.problem.memory[node]
        if cpu <= 0 or memory <= 0:
            self.load[node] = SCALE
            return
        used_cpu, used_memory = cpu - self.free_cpu[node], memory - self.free_memory[node]
        self.load[node] = max(used_cpu * SCALE // cpu, used_memory * SCALE // memory)

    def fits(self, vm: int, node: int) -> bool:
        """Whether it may be put there now: it is reachable, takes VMs, has room, and no rule forbids it."""
        problem = self.problem
        return (
            self.free_memory[node] >= problem.needs_memory[vm]
            and self.free_cpu[node] >= problem.needs_cpu[vm]
            and problem.open[node]
            and problem.reachable[problem.kind[vm]][node] == 1
            and self.agrees(vm, node)
        )

    def agrees(self, vm: int, node: int) -> bool:
        """Whether the Required constraints between VMs allow it there."""
        return all(self.allows(index, node) for index in self.problem.groups_of[vm])

    def allows(self, index: int, node: int) -> bool:
        """Whether this one does, for a member that is nowhere."""
        group = self.problem.groups[index]
        domain = group.domain[node]
        match group.type:
            case ConstraintType.ANTI_AFFINITY:
                return domain == NOWHERE or domain not in self.counts[index]
            case ConstraintType.AFFINITY:
                return domain != NOWHERE and (not self.placed[index] or domain in self.counts[index])
            case ConstraintType.SPREAD:
                count = self.counts[index].get(domain, 0)
                return domain != NOWHERE and count - self.least(index) < group.max_skew
            case _:
                return True

    def least(self, index: int) -> int:
        """Of a group: the smallest count of a domain that takes any of its VMs."""
        least = self._leasts[index]
        if least is None:
            group = self.problem.groups[index]
            able = [count for domain, count in self.counts[index].items() if group.eligible[domain]]
            least = self._leasts[index] = min(able, default=0) if len(able) == group.able else 0
        return least

    def skewed(self, vm: int) -> int:
        """How many Required Spreads of the VM are uneven now: leaving a domain can make them so."""
        groups = self.problem.groups
        return sum(
            max(self.counts[index].values(), default=0) - self.least(index) > groups[index].max_skew
            for index in self.problem.groups_of[vm]
            if groups[index].type is ConstraintType.SPREAD
        )
