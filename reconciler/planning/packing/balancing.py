"""Moves that even out the use of nodes: few, each feasible when its turn comes, each worth it.

The measure: over all nodes that take VMs, the sum of (share of CPU used - the cluster's share)^2 x the node's
part of all CPU, and the same of memory. 0 is perfectly even; it falls with every move that is made, so that
no sequence of moves comes back to where it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations

from reconciler.planning.packing.filling import wishes
from reconciler.planning.packing.ordering import Change
from reconciler.planning.packing.problem import NOWHERE, Problem
from reconciler.planning.packing.reserving import better, looks_of, shortage
from reconciler.planning.packing.room import MayMove
from reconciler.planning.packing.state import SCALE, State

NEAR = 48
"""Of more nodes, so many of the fullest and so many of the emptiest are looked at in a round."""
WORTHLESS = 1e-9
"""What is less than this is a matter of rounding."""
ODD = 16
"""For VMs to change places, so many nodes that are furthest from the mean are looked at."""
LOOKS = 20_000
"""So many exchanges are looked at in a round."""
TRIES = 16
"""Of those that would gain most, so many are tried in a round."""


class Mode(StrEnum):
    """When VMs are moved for balance. Manual: never; Partial: off nodes that are too full; Full: whenever it
    is worth it."""

    MANUAL = "Manual"
    PARTIAL = "Partial"
    FULL = "Full"


@dataclass(frozen=True, slots=True, kw_only=True)
class Balancing:
    """`most`: moves of one plan. `worth`: the least gain of a move, times the number of nodes: 0.002 is a VM
    of 5 % of a node that goes to one that is 7 points less used. `full`: the share of CPU or memory from
    which a node is too full (Partial). `held`: VMs that were moved a short while ago, and stay."""

    mode: Mode = Mode.MANUAL
    most: int = 10
    worth: float = 0.002
    full: float = 0.8
    held: frozenset[str] = frozenset()


class Measure:
    """The unevenness of a state, and what a move changes of it."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self.nodes = [
            n for n, takes in enumerate(problem.open) if takes and problem.cpu[n] > 0 < problem.memory[n]
        ]
        self._cpu = max(1, sum(problem.cpu[n] for n in self.nodes))
        self._memory = max(1, sum(problem.memory[n] for n in self.nodes))
        self._per_cpu = [1.0 / max(1, has) / self._cpu for has in problem.cpu]
        self._per_memory = [1.0 / max(1, has) / self._memory for has in problem.memory]

    def of(self, state: State) -> float:
        """0 is perfectly even."""
        return sum(self.parts(state).values())

    def parts(self, state: State) -> dict[int, float]:
        """What each node adds."""
        cpu, memory = self._problem.cpu, self._problem.memory
        used_cpu = sum(cpu[n] - state.free_cpu[n] for n in self.nodes) / self._cpu
        used_memory = sum(memory[n] - state.free_memory[n] for n in self.nodes) / self._memory
        return {
            n: ((1 - state.free_cpu[n] / cpu[n]) - used_cpu) ** 2 * cpu[n] / self._cpu
            + ((1 - state.free_memory[n] / memory[n]) - used_memory) ** 2 * memory[n] / self._memory
            for n in self.nodes
        }

    def trade(self, state: State, here: int, there: int, cpu: int, memory: int) -> float:
        """By how much it falls when so much more (or less, when negative) goes from here to there than
        comes back."""
        has_cpu, has_memory, free_cpu, free_memory = (
            self._problem.cpu,
            self._problem.memory,
            state.free_cpu,
            state.free_memory,
        )
        return (
            (2 * (has_cpu[here] - free_cpu[here]) - cpu) * cpu * self._per_cpu[here]
            - (2 * (has_cpu[there] - free_cpu[there]) + cpu) * cpu * self._per_cpu[there]
            + (2 * (has_memory[here] - free_memory[here]) - memory) * memory * self._per_memory[here]
            - (2 * (has_memory[there] - free_memory[there]) + memory) * memory * self._per_memory[there]
        )

    def gains(self, state: State, vm: int, targets: Sequence[int]) -> list[tuple[float, int]]:
        """By how much it falls when the VM moves to each of these: what is the same for all cancels out of
        sum(used^2 / has)."""
        problem, source = self._problem, state.at[vm]
        c, m = problem.needs_cpu[vm], problem.needs_memory[vm]
        cpu, memory, free_cpu, free_memory = problem.cpu, problem.memory, state.free_cpu, state.free_memory
        per_cpu, per_memory = self._per_cpu, self._per_memory
        from_ = (2 * (cpu[source] - free_cpu[source]) - c) * c * per_cpu[source]
        from_ += (2 * (memory[source] - free_memory[source]) - m) * m * per_memory[source]
        return [
            (
                from_
                - (2 * (cpu[n] - free_cpu[n]) + c) * c * per_cpu[n]
                - (2 * (memory[n] - free_memory[n]) + m) * m * per_memory[n],
                n,
            )
            for n in targets
        ]


def uneven(state: State) -> float:
    """The measure of a state."""
    return Measure(state.problem).of(state)


def balance(state: State, may_move: MayMove, policy: Balancing, turn: int = 0) -> list[Change]:
    """Change the state by moves in this order, each of which is worth it; `turn`: that of the first."""
    if policy.mode is Mode.MANUAL:
        return []
    found, guard = _for_any_loss(state, may_move, policy, turn), _Guard(state, policy)
    search = _Search(state, may_move, policy, moved={change.vm: change.target for change in found})
    while len(found) < policy.most:
        moves = search.single() or search.exchange(policy.most - len(found))
        if not moves or guard.loses(state, moves):
            break
        for vm, target in moves:
            why = "evens out the use of the nodes"
            found.append(
                Change(vm=vm, source=state.at[vm], target=target, turn=turn + len(found), reason=why)
            )
            search.move(vm, target)
    return found


def _for_any_loss(state: State, may_move: MayMove, policy: Balancing, turn: int) -> list[Change]:
    """Before balance comes N+1: moves after which fewer VMs would have no place when a node is lost."""
    looks = looks_of(state) if policy.mode is Mode.FULL else 0
    short = shortage(state) if looks else 0
    held = policy.held
    vms = [vm for vm, demand in enumerate(state.problem.vms) if may_move(vm) and demand.name not in held]
    found: list[Change] = []
    for vm, source, target in better(state, vms, short, looks) if policy.most > 0 else ():
        why = "so that any one node may be lost"
        found.append(Change(vm=vm, source=source, target=target, turn=turn + len(found), reason=why))
        vms.remove(vm)  # each moves once
        if len(found) >= policy.most:
            break
    return found


class _Guard:
    """Balance ends where its next move would cost N+1, in clusters that are small enough to look."""

    def __init__(self, state: State, policy: Balancing) -> None:
        self._looks = looks_of(state) >= policy.most
        self._short = shortage(state) if self._looks else 0

    def loses(self, state: State, moves: Iterable[tuple[int, int]]) -> bool:
        if not self._looks:
            return False
        mark = state.mark()
        for vm, target in moves:
            state.remove(vm)
            state.add(vm, target)
        now = shortage(state)
        state.undo(mark)
        return now > self._short


_Best = tuple[float, int, int]
"""The gain, the VM (negative, so that of equal gains the first VM is the largest), the target."""


class _Search:
    """The best move, by source. After a move only its two nodes are looked at again, as sources by all their
    VMs, and as targets by all others."""

    def __init__(
        self, state: State, may_move: MayMove, policy: Balancing, *, moved: Mapping[int, int]
    ) -> None:
        problem = state.problem
        self._state = state
        self._policy = policy
        self._may_move = may_move
        self._measure = Measure(problem)
        self._least = policy.worth / max(1, len(self._measure.nodes))
        self._moved = dict(moved)
        self._best: dict[int, _Best | None] = {}
        self._targets: list[int] = []
        self._again()

    def _again(self) -> None:
        """Look at the fullest and the emptiest."""
        ranked = sorted(self._measure.nodes, key=lambda n: (self._state.load[n], n))
        self._targets = ranked[:NEAR]
        sources = [n for n in reversed(ranked) if self._too_full(n)][:NEAR]
        self._best = {node: self._look(node, self._targets) for node in sources}

    def single(self) -> list[tuple[int, int]]:
        """The move that gains most, and is worth it; it is possible now. None: an empty list."""
        fresh = False
        while True:
            ranked = [best for best in self._best.values() if best is not None]
            if not ranked:
                if fresh or len(self._measure.nodes) <= NEAR:
                    return []
                fresh = True
                self._again()
                continue
            _, negative, target = max(ranked)
            if self._fine(-negative, target):
                return [(-negative, target)]
            node = self._state.at[-negative]
            self._best[node] = self._look(node, self._targets)

    def exchange(self, most: int) -> list[tuple[int, int]]:
        """Moves between two nodes that are worth it together: one VM for another, else up to two or three for
        as many, `most` in all; in an order in which they are possible. None: an empty list."""
        for size in (1, 2, 3):
            worth = sorted(self._exchanges(size, most), reverse=True)
            for _, going, coming in worth[:TRIES]:
                here, there = self._state.at[going[0]], self._state.at[coming[0]]
                order = self._possible([*((vm, there) for vm in going), *((vm, here) for vm in coming)])
                if order:
                    return order
        return []

    def _exchanges(self, size: int, most: int) -> Iterator[tuple[float, tuple[int, ...], tuple[int, ...]]]:
        """The gain, who goes and who comes, of the nodes that are furthest from the mean, as far as it is
        bounded how many are looked at."""
        state, measure, least, looks = self._state, self._measure, self._least, LOOKS
        parts = measure.parts(state)
        odd = sorted(parts, key=lambda n: (-parts[n], n))[:ODD]
        sets = {node: self._sets(node, size) for node in odd}
        for here, there in combinations(odd, 2):
            looks -= len(sets[here]) * len(sets[there])
            if looks < 0 or not (self._too_full(here) and self._too_full(there)):
                continue
            for cpu, memory, going in sets[here]:
                for c, m, coming in sets[there]:
                    moves = len(going) + len(coming)
                    gain = measure.trade(state, here, there, cpu - c, memory - m)
                    if gain >= moves * least and gain > WORTHLESS and moves <= most:
                        yield gain / moves, going, coming

    def _sets(self, node: int, size: int) -> list[tuple[int, int, tuple[int, ...]]]:
        """VMs of the node, up to so many of them, and what they have together."""
        problem = self._state.problem
        vms = [vm for vm in sorted(self._state.on[node]) if self._may(vm)]
        return [
            (sum(problem.needs_cpu[vm] for vm in some), sum(problem.needs_memory[vm] for vm in some), some)
            for count in range(1, size + 1)
            for some in combinations(vms, count)
        ]

    def _possible(self, moves: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """These in an order in which each is possible; empty if there is none."""
        state, mark = self._state, self._state.mark()
        order: list[tuple[int, int]] = []
        while len(order) < len(moves):
            step = next((move for move in moves if move not in order and self._fine(*move)), None)
            if step is None:
                order = []
                break
            order.append(step)
            state.remove(step[0])
            state.add(*step)
        state.undo(mark)
        return order

    def _may(self, vm: int) -> bool:
        held = self._policy.held
        return self._may_move(vm) and not (held and self._state.problem.vms[vm].name in held)

    def _too_full(self, node: int) -> bool:
        """So that VMs may go from it."""
        full = self._policy.full * SCALE if self._policy.mode is Mode.PARTIAL else -1
        return self._state.load[node] > full

    def move(self, vm: int, target: int) -> None:
        """Carry it out."""
        state, source = self._state, self._state.at[vm]
        state.remove(vm)
        state.add(vm, target)
        self._moved[vm] = target
        changed = {source, target}
        near = [n for n in self._targets if n in changed]
        for node, best in list(self._best.items()):
            if not self._too_full(node):
                self._best[node] = None
            elif node in changed or (best is not None and best[2] in changed):
                self._best[node] = self._look(node, self._targets)
            elif near:
                found = self._look(node, near)
                if found is not None and (best is None or found > best):
                    self._best[node] = found

    def _look(self, source: int, targets: Sequence[int]) -> _Best | None:
        state, best = self._state, None
        others = [n for n in targets if n != source]
        least = self._least
        for vm in sorted(state.on[source]):
            if vm in self._moved or not self._may(vm):
                continue
            worth = [pair for pair in self._measure.gains(state, vm, others) if pair[0] >= least]
            worth.sort(key=lambda pair: (-pair[0], pair[1]))
            for gain, target in worth:
                if self._fine(vm, target):
                    best, least = (gain, -vm, target), gain * (1 + 1e-12)
                    break
        return best

    def _fine(self, vm: int, target: int) -> bool:
        """Whether it may go there, and no Preferred constraint is kept less than now."""
        state, problem = self._state, self._state.problem
        if (
            problem.needs_cpu[vm] > state.free_cpu[target]
            or problem.needs_memory[vm] > state.free_memory[target]
            or not problem.reachable[problem.kind[vm]][target]
            or state.at[vm] == NOWHERE
        ):
            return False
        if not (problem.groups_of[vm] or problem.wishes_of[vm] or problem.rules_of[vm]):
            return problem.open[target]
        mark = state.mark()
        skewed, source = state.skewed(vm), state.remove(vm)
        fine = state.fits(vm, target) and wishes(state, [vm], target) >= wishes(state, [vm], source)
        if fine:
            state.add(vm, target)
            fine = state.skewed(vm) <= skewed
        state.undo(mark)
        return fine
