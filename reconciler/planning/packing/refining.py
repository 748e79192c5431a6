"""Looking further, when something has no place or more was moved than must be: empty parts of a few nodes,
fill them again in another order, and keep what is no worse.

Invariants: what is kept breaks no rule that was kept before, and takes the place of no VM but of one that
waits to be placed itself and is as important. Which nodes and which order is drawn from a sequence of numbers
that is always the same, and how much is tried is counted, so that equal input gives equal plans.

The method is known as ruin and recreate (Schrimpf and others, 2000).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from reconciler.planning.packing.filling import Item, holds, items_of, wishes
from reconciler.planning.packing.problem import NOWHERE
from reconciler.planning.packing.room import MayMove
from reconciler.planning.packing.state import State
from reconciler.resources.placementconstraint import ConstraintType

SHARE = 1 << 12
"""Free room is counted in so many parts of what a node has in the mean."""
POOL = 8
"""Of those that wait, so many are tried in a turn."""
PATIENCE = 80_000
"""Looks after which no more is hoped for, when none of them led to fewer moves."""
TURN = 20
"""What a turn costs in looks, besides those at nodes."""


class _Draw:
    """Numbers without a pattern, the same each time."""

    def __init__(self) -> None:
        self._now = 0x2545F491

    def __call__(self, bound: int) -> int:
        """0 to bound - 1."""
        self._now = (self._now * 1103515245 + 12345) & 0x7FFFFFFF
        return (self._now >> 8) % bound


def refine(
    state: State, left: Iterable[Item], may_move: MayMove, looks: int, *, swaps: bool = True
) -> list[Item]:
    """Place more of these, which found no place and are nowhere; who is left, who with `swaps` may be another
    one of the same priority that is to be placed now. `may_move`: also of those placed by this plan."""
    left = list(left)
    if not left or looks <= 0:
        return left
    shuffle = _Shuffle(state, may_move, left, looks, swaps=swaps)
    shuffle.place()
    return shuffle.left()


def restore(state: State, may_move: MayMove, looks: int) -> None:
    """Bring back who was moved and need not be."""
    problem = state.problem
    if any(
        home not in (NOWHERE, now) and now != NOWHERE and problem.reachable[problem.kind[vm]][home]
        for vm, (home, now) in enumerate(zip(problem.at, state.at, strict=True))
        if problem.open[home]
    ):
        _Shuffle(state, may_move, (), looks, swaps=False).bring_back()


class _Shuffle:
    """Units are what is placed as one: a VM, or VMs that must share a node; by index. `_pool`: who waits."""

    def __init__(
        self, state: State, may_move: MayMove, left: Sequence[Item], looks: int, *, swaps: bool
    ) -> None:
        problem = state.problem
        self._state, self._problem, self._looks = state, problem, looks
        self._draw = _Draw()
        able = [vm for vm, node in enumerate(state.at) if node != NOWHERE and self._loose(vm, may_move)]
        placed = [unit for unit in items_of(problem, able) if len({state.at[vm] for vm in unit.vms}) == 1]
        self._units = [*placed, *left]
        self._unit_of = {vm: index for index, unit in enumerate(self._units) for vm in unit.vms}
        self._home = [problem.at[unit.vms[0]] for unit in self._units]
        self._open = [node for node, takes in enumerate(problem.open) if takes]
        many = max(1, len(self._open))
        self._cpu = max(1, sum(problem.cpu[n] for n in self._open) // many)
        self._memory = max(1, sum(problem.memory[n] for n in self._open) // many)
        self._size = [u.cpu * SHARE // self._cpu + u.memory * SHARE // self._memory for u in self._units]
        self._wishing = [any(map(self._wishes, unit.vms)) for unit in self._units]
        spread = (g for g in problem.groups if g.type is ConstraintType.SPREAD and not g.weight)
        self._spread = {vm for group in spread for vm in group.members}
        self._reaches: dict[tuple[int, ...], list[int]] = {}
        self._asked = set(range(len(placed), len(self._units)))
        self._swaps = {u.priority for u in left if swaps and problem.at[u.vms[0]] == NOWHERE}
        self._hopeless = {unit for unit in self._asked if not self._could(unit)}
        self._pool = self._asked - self._hopeless

    def _wishes(self, vm: int) -> bool:
        problem = self._problem
        return bool(problem.wishes_of[vm]) or any(problem.rules[r].weight for r in problem.rules_of[vm])

    def _loose(self, vm: int, may_move: MayMove) -> bool:
        """Whether it may be taken away: where it is it could be put again."""
        problem, node = self._problem, self._state.at[vm]
        return bool(problem.open[node] and problem.reachable[problem.kind[vm]][node]) and may_move(vm)

    def _reach(self, unit: int) -> list[int]:
        """The nodes that it may be on."""
        problem = self._problem
        kinds = tuple(sorted({problem.kind[vm] for vm in self._units[unit].vms}))
        if kinds not in self._reaches:
            able = (n for n in self._open if all(problem.reachable[kind][n] for kind in kinds))
            self._reaches[kinds] = list(able)
        return self._reaches[kinds]

    def _reached(self, unit: int, node: int) -> bool:
        problem = self._problem
        kinds = (problem.kind[vm] for vm in self._units[unit].vms)
        return problem.open[node] and all(problem.reachable[kind][node] for kind in kinds)

    def _could(self, unit: int) -> bool:
        """Whether any node had room for it if all went that may."""
        state, item = self._state, self._units[unit]
        for node in self._reach(unit):
            loose = [vm for vm in state.on[node] if vm in self._unit_of]
            cpu = state.free_cpu[node] + sum(self._problem.needs_cpu[vm] for vm in loose)
            memory = state.free_memory[node] + sum(self._problem.needs_memory[vm] for vm in loose)
            if cpu >= item.cpu and memory >= item.memory:
                return True
        return False

    def left(self) -> list[Item]:
        """Who waits."""
        return [self._units[unit] for unit in sorted(self._pool | self._hopeless)]

    def place(self) -> None:
        """Until all have a place, or the budget is used up; what did not lead to more places is undone."""
        state, least = self._state, self._least()
        mark, best = state.mark(), sorted(self._pool)
        while self._looks > 0 and self._count(self._pool) > least:
            before, some = self._count(self._pool), sorted(self._pool)
            self._place_turn(some[self._draw(len(some))])
            if self._count(self._pool) < before and self._count(self._pool) < self._count(best):
                mark, best = state.mark(), sorted(self._pool)
        state.undo(mark)
        self._pool = set(best)

    def _count(self, units: Iterable[int]) -> int:
        return sum(len(self._units[unit].vms) for unit in units)

    def _least(self) -> int:
        """So many must be left, by the sums of what there is and what is asked for."""
        state = self._state
        free_cpu = sum(max(0, state.free_cpu[n]) for n in self._open)
        free_memory = sum(max(0, state.free_memory[n]) for n in self._open)
        lack_cpu = sum(self._units[unit].cpu for unit in self._pool) - free_cpu
        lack_memory = sum(self._units[unit].memory for unit in self._pool) - free_memory
        could = [unit for index, unit in enumerate(self._units) if self._may_wait(index)]
        by_cpu = sorted((unit.cpu for unit in could), reverse=True)
        by_memory = sorted((unit.memory for unit in could), reverse=True)
        return max(_largest_to(by_cpu, lack_cpu), _largest_to(by_memory, lack_memory))

    def _may_wait(self, unit: int) -> bool:
        """Whether it may be left instead of another one."""
        new = self._home[unit] == NOWHERE and self._units[unit].priority in self._swaps
        return new or unit in self._asked

    def _place_turn(self, wanted: int) -> None:
        state, draw, mark = self._state, self._draw, self._state.mark()
        nodes = self._around(wanted)
        out = self._some_on(nodes, draw(4))
        some = sorted(self._pool)
        if len(some) > POOL:
            start = draw(len(some))
            some = [*some[start:], *some[:start]][:POOL]
        some = sorted({wanted, *some})
        uneven, usable = self._uneven(out), sum(map(self._usable, nodes))
        self._take(out)
        order = self._order([*out, *some])
        if draw(2):
            order.remove(wanted)
            order.insert(0, wanted)
        waits, home = [], draw(4) > 0
        for unit in order:
            if self._put(unit, nodes, home):
                continue
            if not self._may_wait(unit):
                state.undo(mark)
                return
            waits.append(unit)
        gain = self._count(some) - self._count(waits)
        slack = usable * draw(16) // 128  # a little worse is kept now and then, as a way out
        worse = gain < 0 or (gain == 0 and sum(map(self._usable, nodes)) < usable - slack)
        if worse or self._uneven(out) > uneven:
            state.undo(mark)
        else:
            self._pool = (self._pool - set(some)) | set(waits)

    def bring_back(self) -> None:
        """Until nobody is moved who need not be, or no more is hoped for."""
        strays = {unit for unit in range(len(self._units)) if self._stray(unit)}
        patience = PATIENCE
        while strays and self._looks > 0 and patience > 0:
            before, some = (self._looks, len(strays)), sorted(strays)
            for unit in self._back_turn(some[self._draw(len(some))]):
                (strays.add if self._stray(unit) else strays.discard)(unit)
            patience = PATIENCE if len(strays) < before[1] else patience - (before[0] - self._looks)

    def _stray(self, unit: int) -> bool:
        """Whether it is not at home, and could be."""
        return self._moved(unit) > 0 and self._reached(unit, self._home[unit])

    def _moved(self, unit: int) -> int:
        """How many VMs of it are not at home."""
        item, home = self._units[unit], self._home[unit]
        return len(item.vms) if home not in (NOWHERE, self._state.at[item.vms[0]]) else 0

    def _back_turn(self, stray: int) -> list[int]:
        """Try to bring it home; who may be elsewhere now."""
        state, draw, mark = self._state, self._draw, self._state.mark()
        nodes = [self._home[stray], state.at[self._units[stray].vms[0]]]
        more = (self._open[draw(len(self._open))] for _ in range(draw(3)))
        nodes = list(dict.fromkeys((*nodes, *more)))
        keep = draw(4)
        out = [
            unit
            for unit in self._some_on(nodes, 0)
            if unit == stray or (self._moved(unit) > 0 if draw(4) else draw(4) >= keep)
        ]
        before, uneven, how = sum(map(self._moved, out)), self._uneven(out), draw(3)
        self._take(out)
        order = self._order(out)
        if how:  # it comes home first; then, perhaps, the others that are at home here
            order.sort(key=lambda unit: (unit != stray, how == 1 and self._home[unit] not in nodes))
        fine = all(self._put(unit, nodes, True) for unit in order)
        if not fine or sum(map(self._moved, out)) > before or self._uneven(out) > uneven:
            state.undo(mark)
            return []
        return out

    def _around(self, unit: int) -> list[int]:
        """A node that the unit could be on, and some others; rather those with room."""
        draw, mine = self._draw, self._reach(unit)
        nodes = [mine[draw(len(mine))]]
        for _ in range(1 + draw(3)):
            one, other = self._open[draw(len(self._open))], self._open[draw(len(self._open))]
            nodes.append(one if self._usable(one) >= self._usable(other) else other)
        self._looks -= TURN
        return list(dict.fromkeys(nodes))

    def _some_on(self, nodes: Iterable[int], keep: int) -> list[int]:
        """Of the units there all, but for `keep` in four."""
        found = []
        for node in nodes:
            units = {self._unit_of[vm] for vm in self._state.on[node] if vm in self._unit_of}
            found += [unit for unit in sorted(units) if self._draw(4) >= keep]
        return found

    def _order(self, units: Iterable[int]) -> list[int]:
        """The large first, by one of several measures."""
        draw, items, how = self._draw, self._units, self._draw(4)
        size = {
            unit: (
                items[unit].cpu,
                items[unit].memory,
                self._size[unit],
                self._size[unit] * (64 + draw(64)),
            )[how]
            for unit in units
        }
        return sorted(size, key=lambda unit: (-size[unit], unit))

    def _take(self, units: Iterable[int]) -> None:
        for unit in units:
            for vm in self._units[unit].vms:
                self._state.remove(vm)

    def _put(self, unit: int, nodes: Sequence[int], home: bool) -> bool:
        """At `home` if that is among them, else where its wishes are kept best, and of those where what is
        left of the free room is of most use; now and then not there."""
        state, item = self._state, self._units[unit]
        best: tuple[int, int] | None = None
        where = NOWHERE
        self._looks -= len(nodes)
        for node in nodes:
            if item.memory > state.free_memory[node] or item.cpu > state.free_cpu[node]:
                continue
            if not holds(state, item, node):
                continue
            if home and node == self._home[unit]:
                where = node
                break
            wish = wishes(state, item.vms, node) if self._wishing[unit] else 0
            score = (wish, self._usable(node, item.cpu, item.memory) - self._usable(node))
            if (best is None or score > best) and (where == NOWHERE or self._draw(16)):
                best, where = score, node
        if where != NOWHERE:
            for vm in item.vms:
                state.add(vm, where)
        return where != NOWHERE

    def _usable(self, node: int, cpu: int = 0, memory: int = 0) -> int:
        """The worth of a node's free room, less this: of CPU and memory the one that is shorter counts, and
        room in one piece is worth more than the same in two."""
        free_cpu = (self._state.free_cpu[node] - cpu) * SHARE // self._cpu
        free = min(free_cpu, (self._state.free_memory[node] - memory) * SHARE // self._memory)
        return free * free if free > 0 else 0

    def _uneven(self, units: Iterable[int]) -> int:
        """How many Required Spreads of them are uneven."""
        if not self._spread:
            return 0
        return sum(self._state.skewed(vm) for u in units for vm in self._units[u].vms if vm in self._spread)


def _largest_to(sizes: Sequence[int], lack: int) -> int:
    """How many of these, the largest first, make up for what is lacking."""
    count = 0
    for size in sizes:
        if lack <= 0:
            break
        lack -= size
        count += 1
    return count
