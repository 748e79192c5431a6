"""Placement against exact optima, by a model of its own for OR-tools' CP-SAT (`pip install ortools`).

    .venv/bin/python benchmarks/placement_optimum.py [--count 200] [--seconds 60] [--large 4] [--balance 40]

Three questions on random clusters up to 50 nodes x 300 VMs: how many VMs have a place (by priority), with how
few moves everything that must move moved, and how even the use of nodes is. The model shares nothing with the
planner but the values that both are asked about.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

from ortools.sat.python import cp_model

sys.path.insert(0, str(Path(__file__).parent))
from placement_cases import CHANGES, GIB, LARGER, Case, after, cold, settled, uneven

from reconciler.planning.demands import NamedConstraint, NodeView, VmDemand
from reconciler.planning.packing.plans import Balancing, Mode, Policy, plan

MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    case: str
    nodes: int
    vms: int
    mine: tuple[float, ...]
    best: tuple[float, ...] | None
    proven: bool
    seconds: float


def reachable(vm: VmDemand, node: NodeView, constraints: tuple[NamedConstraint, ...]) -> bool:
    """By labels and constraints on nodes alone."""
    if node.refuses or any(node.labels.get(k) != v for k, v in vm.node_selector.items()):
        return False
    labels = {"node": node.name, **node.labels}
    for each in constraints:
        spec = each.spec
        if not spec.vms.matches(vm.name, vm.labels):
            continue
        if spec.type == "NodeAffinity" and not spec.nodes.matches(node.name, labels):
            return False
        if spec.type == "NodeAntiAffinity" and spec.nodes.matches(node.name, labels):
            return False
    return True


class Model:
    """Which VM is on which node, by all hard rules. What runs goes on running."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.model = cp_model.CpModel()
        self.on: dict[tuple[str, str], cp_model.IntVar] = {}
        for vm in case.vms:
            for node in case.nodes:
                if reachable(vm, node, case.constraints):
                    self.on[vm.name, node.name] = self.model.new_bool_var(f"{vm.name}@{node.name}")
        for vm in case.vms:
            mine = [self.on[vm.name, n.name] for n in case.nodes if (vm.name, n.name) in self.on]
            (self.model.add_exactly_one if vm.node else self.model.add_at_most_one)(mine)
        for node in case.nodes:
            here = [(vm, self.on[vm.name, node.name]) for vm in case.vms if (vm.name, node.name) in self.on]
            self.model.add(sum(vm.cpu * var for vm, var in here) <= int(node.cpu))
            self.model.add(sum(vm.memory // MIB * var for vm, var in here) <= node.memory // MIB)
        for each in case.constraints:
            self._constrain(each)

    def _constrain(self, each: NamedConstraint) -> None:
        spec, case = each.spec, self.case
        members = [vm for vm in case.vms if spec.vms.matches(vm.name, vm.labels)]
        domains: dict[str, list[str]] = defaultdict(list)
        for node in case.nodes:
            value = {"node": node.name, **node.labels}.get(spec.topology_key)
            if value is not None:
                domains[value].append(node.name)
        inside = {
            value: [self.on[vm.name, n] for vm in members for n in names if (vm.name, n) in self.on]
            for value, names in domains.items()
        }
        match spec.type:
            case "AntiAffinity":
                for some in inside.values():
                    self.model.add_at_most_one(some)
            case "Affinity":
                used = {value: self.model.new_bool_var("") for value in inside}
                self.model.add_at_most_one(used.values())
                for value, some in inside.items():
                    for var in some:
                        self.model.add_implication(var, used[value])
            case "Spread":
                least = self.model.new_int_var(0, len(members), "")
                for some in inside.values():
                    if some:  # a domain that none of them can reach does not count
                        self.model.add(sum(some) >= least)
                for some in inside.values():
                    self.model.add(sum(some) <= least + spec.max_skew)

    def placed(self) -> cp_model.LinearExpr:
        """VMs with a place; one of a higher priority counts more than all lower ones."""
        ranks = sorted({vm.priority for vm in self.case.vms})
        worth = {rank: (len(self.case.vms) + 1) ** i for i, rank in enumerate(ranks)}
        priority = {vm.name: vm.priority for vm in self.case.vms}
        return sum(worth[priority[vm]] * var for (vm, _), var in self.on.items())

    def moves(self) -> cp_model.LinearExpr:
        """VMs that run, and would run elsewhere."""
        source = {vm.name: vm.node for vm in self.case.vms}
        return sum(var for (vm, node), var in self.on.items() if source[vm] and source[vm] != node)

    def hint(self, where: dict[str, str | None]) -> None:
        self.model.clear_hints()
        for (vm, node), var in self.on.items():
            self.model.add_hint(var, where.get(vm) == node)

    def solve(self, seconds: float) -> tuple[float | None, bool]:
        """The value of the objective, and whether none is better."""
        solver = cp_model.CpSolver()
        solver.parameters.max_time_in_seconds = seconds
        solver.parameters.num_workers = 2
        status = solver.solve(self.model)
        if status in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            self.solver = solver
            return solver.objective_value, status == cp_model.OPTIMAL
        return None, status == cp_model.INFEASIBLE


def counts(case: Case, where: dict[str, str | None], stuck: int = 0) -> tuple[float, ...]:
    """VMs without a place by priority, the highest first, VMs that must move and did not, then moves."""
    ranks = sorted({vm.priority for vm in case.vms}, reverse=True)
    left = [sum(vm.priority == rank and not where[vm.name] for vm in case.vms) for rank in ranks]
    moves = sum(bool(vm.node) and where[vm.name] not in (None, vm.node) for vm in case.vms)
    return (*left, stuck, moves)


def compare(case: Case, seconds: float) -> Row:
    """As many VMs as possible, then as few moves as possible."""
    began = time.perf_counter()
    found = plan(case.nodes, case.vms, case.constraints)
    took = time.perf_counter() - began
    where: dict[str, str | None] = {vm.name: vm.node for vm in case.vms} | found.where
    mine = counts(case, where, len(found.stays))
    if mine == (0,) * (len(mine) - 1) + (least_moves(case),):
        return _row(case, mine, mine, True, took)  # nothing can be better
    model, proven = Model(case), True
    if any(mine[:-2]):
        model.model.maximize(model.placed())
        model.hint(where)
        most, proven = model.solve(seconds)
        if most is None:
            return _row(case, mine, None, proven, took)
        model.model.add(model.placed() >= round(most))
    else:
        model.model.add(model.placed() >= _worth_of_all(model))
    model.model.minimize(model.moves())
    model.hint(where)
    fewest, also = model.solve(seconds)
    if fewest is None:
        return _row(case, mine, None, also, took)
    theirs: dict[str, str | None] = dict.fromkeys(where)
    theirs |= {vm: node for (vm, node), var in model.on.items() if model.solver.value(var)}
    return _row(case, mine, counts(case, theirs), proven and also, took)


def least_moves(case: Case) -> int:
    """Fewer there cannot be: of nodes that are left, all VMs move."""
    leaving = {node.name for node in case.nodes if node.leaving}
    return sum(vm.node in leaving for vm in case.vms)


def _worth_of_all(model: Model) -> int:
    ranks = sorted({vm.priority for vm in model.case.vms})
    return sum((len(model.case.vms) + 1) ** ranks.index(vm.priority) for vm in model.case.vms)


def _row(
    case: Case, mine: tuple[float, ...], best: tuple[float, ...] | None, proven: bool, took: float
) -> Row:
    return Row(
        case=case.name,
        nodes=len(case.nodes),
        vms=len(case.vms),
        mine=mine,
        best=best,
        proven=proven,
        seconds=took,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Evenness:
    """Sums of squares of what is used: before, after our moves, and what no placement is below."""

    case: str
    before: float
    mine: float
    least: float
    proven: bool

    @property
    def gap(self) -> float:
        """In % of what there was to gain."""
        return 100 * (self.mine - self.least) / max(1.0, self.before - self.least)


def compare_balance(case: Case, seconds: float) -> Evenness:
    """How even, with as many moves as one likes, each of which gains."""
    where = after(case, Policy(balancing=Balancing(mode=Mode.FULL, most=10_000, worth=0.0)))
    model = Model(case)
    squares = []
    for node in case.nodes:  # nodes are alike: the sum of squares orders as the measure does
        here = [(vm, model.on[vm.name, node.name]) for vm in case.vms if (vm.name, node.name) in model.on]
        for has, of in ((int(node.cpu), "cpu"), (node.memory // GIB, "memory")):
            used = model.model.new_int_var(0, has, "")
            needs = ((vm.cpu if of == "cpu" else vm.memory // GIB, var) for vm, var in here)
            model.model.add(used == sum(need * var for need, var in needs))
            square = model.model.new_int_var(0, has * has, "")
            model.model.add_multiplication_equality(square, [used, used])
            squares.append(square * (4 if of == "cpu" else 1))  # 256 GiB to 128 vCPUs
    model.model.minimize(sum(squares))
    model.hint(where)
    found, proven = model.solve(seconds)
    least = model.solver.best_objective_bound if found is not None else perfectly_even(case)
    return Evenness(
        case=f"{len(case.nodes)} x {len(case.vms)}",
        before=squared(case, {vm.name: vm.node for vm in case.vms}),
        mine=squared(case, where),
        least=max(least, perfectly_even(case)),
        proven=proven,
    )


def squared(case: Case, where: dict[str, str | None]) -> float:
    """The measure of docs/concepts/placement.md, but for a factor and a constant."""
    total = 0.0
    for node in case.nodes:
        here = [vm for vm in case.vms if where[vm.name] == node.name]
        total += 4 * sum(vm.cpu for vm in here) ** 2 + sum(vm.memory // GIB for vm in here) ** 2
    return total


def perfectly_even(case: Case) -> float:
    """As if VMs could be cut in pieces."""
    cpu, memory = sum(vm.cpu for vm in case.vms), sum(vm.memory // GIB for vm in case.vms)
    return (4 * cpu**2 + memory**2) / len(case.nodes)


def cases(count: int, first: int) -> list[Case]:
    """Half of them cold at up to 110 % of the capacity, half with a change to a cluster that runs."""
    found = []
    for seed in range(first, first + count):
        rng = random.Random(seed)
        nodes = rng.randint(2, 50)
        if seed % 2:
            found.append(cold(seed, nodes, 300, rng.uniform(0.6, 1.1), share=rng.choice((0.0, 0.3))))
        else:
            running = settled(cold(seed, nodes, 300, rng.uniform(0.5, 0.9), share=rng.choice((0.0, 0.3))))
            found.append(CHANGES[seed // 2 % len(CHANGES)](running, rng))
    return [case for case in found if case.vms]


def table(rows: list[Row]) -> None:
    print("| case | instances | proven | no answer | gap 0 in VMs | gap 0 in moves | worst | ms, median |")
    print("|---|---|---|---|---|---|---|---|")
    for name in [*dict.fromkeys(row.case for row in rows), "all"]:
        some = [row for row in rows if name in (row.case, "all")]
        known = [row for row in some if row.best is not None]
        left = [sum(row.mine[:-1]) - sum(row.best[:-1]) for row in known]
        same = [row for row in known if row.mine[:-1] <= row.best[:-1]]
        moves = [row.mine[-1] - row.best[-1] for row in same]
        worst = f"{max(left, default=0):g} VMs, {max(moves, default=0):g} moves"
        print(
            f"| {name} | {len(some)} | {sum(row.proven for row in some)} | {len(some) - len(known)} "
            f"| {_share(len(same), len(known))} | {_share(sum(m <= 0 for m in moves), len(moves))} | {worst} "
            f"| {statistics.median(row.seconds for row in some) * 1000:.0f} |"
        )
    print("gaps in moves:", dict(sorted(Counter(r.mine[-1] - r.best[-1] for r in rows if r.best).items())))


def _share(part: int, of: int) -> str:
    return f"{100 * part / of:.1f} %" if of else "-"


def balance_table(rows: list[Evenness]) -> None:
    for words, some in (
        ("optimum proven", [row for row in rows if row.proven]),
        ("not proven, so beside a bound that nothing is below", [row for row in rows if not row.proven]),
    ):
        if some:
            gaps = [row.gap for row in some]
            print(f"balance, {words}: {len(some)} instances, gap in % of what there was to gain:", end=" ")
            print(f"median {statistics.median(gaps):.2f}, worst {max(gaps):.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--balance", type=int, default=40)
    parser.add_argument("--large", type=int, default=0, help="cases of 200 nodes x 2,000 VMs")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each question")
    parser.add_argument("--large-seconds", type=float, default=300.0)
    args = parser.parse_args()
    rows = []
    for number, case in enumerate(cases(args.count, args.first)):
        row = compare(case, args.seconds)
        rows.append(row)
        if row.best is None or row.mine != row.best or not row.proven:
            print(args.first + number, row, flush=True)
    for seed in range(args.large):
        big = cold(seed, 200, 2000, 0.85 + 0.04 * seed, sizes=LARGER)
        if seed % 2 == 0:
            big = CHANGES[seed // 2 % len(CHANGES)](settled(big), random.Random(seed))
        row = compare(replace(big, name="200 x 2,000"), args.large_seconds)
        rows.append(row)
        print(row, flush=True)
    if rows:
        table(rows)
    balances = []
    for seed in range(args.balance):
        rng = random.Random(seed)
        nodes = rng.randint(2, 5)
        case = uneven(seed, nodes, nodes * rng.randint(3, 6), rng.uniform(0.3, 0.8))
        balances.append(compare_balance(case, args.seconds))
        print(seed, balances[-1], f"{balances[-1].gap:.2f} %", flush=True)
    balance_table(balances)


if __name__ == "__main__":
    main()
