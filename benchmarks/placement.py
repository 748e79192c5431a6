"""How long plans take, and beside whom.

    .venv/bin/python benchmarks/placement.py [--peers] [--openb DIRECTORY]

Cold placement with constraints, planning again after a node's loss, a full balance; with `--peers` the same
losses given to Ganeti's hbal and Pacemaker's crm_simulate where they are installed (Debian: ganeti-htools,
pacemaker-cli-utils); with `--openb` the nodes and workloads of that data set (nodes.csv, pods.csv), all at
once and in the order of arrival. Times are of one core's work, so that others on the machine do not count;
each size runs in a process of its own, so that its memory is its own.
"""

from __future__ import annotations

import argparse
import csv
import gc
import multiprocessing
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from placement_cases import Case, cold, node_lost, settled, uneven
from placement_peers import crm_simulate, hbal

from reconciler.planning.demands import NodeView, VmDemand
from reconciler.planning.packing.balancing import uneven as unevenness
from reconciler.planning.packing.plans import Balancing, Kind, Mode, Policy, plan
from reconciler.planning.packing.problem import build
from reconciler.planning.packing.state import State

SIZES = (125, 250, 500, 1000, 2000, 4000)
RUNS = 3


def timed(work: Callable[[], object]) -> tuple[float, object]:
    """Seconds of the fastest of some runs, and what the last one gave."""
    best, result = float("inf"), None
    for _ in range(RUNS):
        gc.collect()
        began = time.process_time()
        result = work()
        best = min(best, time.process_time() - began)
    return best, result


def one_size(nodes: int) -> tuple[float, int, int, float, int, int]:
    """Seconds of a cold placement, VMs left, MiB; seconds after a loss, VMs left, moves of who stays."""
    case = cold(1, nodes, nodes * 10, 0.8, alike=True)
    seconds, found = timed(lambda: plan(case.nodes, case.vms, case.constraints))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    lost = node_lost(settled(case), random.Random(1))
    again, after = timed(lambda: plan(lost.nodes, lost.vms, lost.constraints))
    moves = sum(step.kind is Kind.MOVE for step in after.steps)
    return seconds, len(found.refused), memory, again, len(after.refused), moves


def sizes(largest: int) -> None:
    print("| nodes | VMs | cold, s | times the half | without a place | MiB | after a loss, ms | moved |")
    print("|---|---|---|---|---|---|---|---|")
    before = 0.0
    for nodes in (size for size in SIZES if size <= largest):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            seconds, left, memory, again, _, moves = pool.apply(one_size, (nodes,))
        times = f"{seconds / before:.1f}" if before else ""
        before = seconds
        print(
            f"| {nodes:,} | {nodes * 10:,} | {seconds:.2f} | {times} | {left} | {memory} "
            f"| {again * 1000:.0f} | {moves} |",
            flush=True,
        )


def balance() -> None:
    case = uneven(1, 30, 600, 0.95)
    policy = Policy(balancing=Balancing(mode=Mode.FULL, most=10_000, worth=0.0001))
    seconds, found = timed(lambda: plan(case.nodes, case.vms, case.constraints, policy))
    print(
        f"balance of 30 x {len(case.vms)}: {seconds:.2f} s, {len(found.steps)} moves, "
        f"unevenness {found.uneven[0]:.5f} -> {found.uneven[1]:.7f}"
    )


def openb(directory: Path) -> None:
    """CPU and memory columns only; what needs more than any node has is left to wait."""
    with (directory / "nodes.csv").open() as file:
        nodes = [
            NodeView(name=row["sn"], cpu=int(row["cpu_milli"]), memory=int(row["memory_mib"]) << 20)
            for row in csv.DictReader(file)
        ]
    with (directory / "pods.csv").open() as file:
        rows = sorted(csv.DictReader(file), key=lambda row: (int(row["creation_time"]), row["name"]))
    vms = [
        VmDemand(name=row["name"], cpu=int(row["cpu_milli"]), memory=int(row["memory_mib"]) << 20)
        for row in rows
    ]
    seconds, found = timed(lambda: plan(nodes, vms, []))
    print(f"openb: {len(nodes):,} nodes, {len(vms):,} workloads")
    print(
        f"  at once: {seconds:.2f} s, {len(found.refused)} without a place, unevenness {found.uneven[1]:.4f}"
    )
    _arrivals(nodes, vms)


def _arrivals(nodes: list[NodeView], vms: list[VmDemand]) -> None:
    """A hundred at a time, in the order of arrival; nothing leaves, and nothing is moved."""
    placed: list[VmDemand] = []
    worst, began = 0.0, time.process_time()
    for start in range(0, len(vms), 100):
        some = vms[start : start + 100]
        before = time.process_time()
        where = plan(nodes, [*placed, *some], [], Policy(repair=False)).where
        worst = max(worst, time.process_time() - before)
        placed += [replace(vm, node=where[vm.name]) for vm in some if where.get(vm.name)]
    total, left = time.process_time() - began, len(vms) - len(placed)
    even = unevenness(State(build(nodes, placed, [])))
    print(f"  by arrival, 100 a plan: {total:.1f} s, the slowest {worst:.2f} s, {left} without a place,")
    print(f"  unevenness {even:.4f}")


def peers() -> None:
    print("| after a node's loss | vcl, s | hbal, s | crm_simulate, s |")
    print("|---|---|---|---|")
    for nodes, vms in ((16, 160), (32, 320), (32, 1000), (100, 1000)):
        case = cold(1, nodes, vms, 0.8, alike=True, share=0.0)
        guests = tuple(replace(vm, node_selector={}) for vm in case.vms)
        lost = node_lost(settled(replace(case, vms=guests)), random.Random(1))
        mine, _ = timed(lambda lost=lost: plan(lost.nodes, lost.vms, lost.constraints))
        print(f"| {nodes} x {len(guests)} | {mine:.3f} | {_peer(hbal, 'hbal', lost)} ", end="", flush=True)
        print(f"| {_peer(crm_simulate, 'crm_simulate', lost)} |", flush=True)


def _peer(run: Callable[[Case, Path], list[str]], command: str, case: Case) -> str:
    """Seconds; the input is written before the clock starts."""
    if shutil.which(command) is None:
        return "not installed"
    with tempfile.TemporaryDirectory() as directory:
        words = run(case, Path(directory))
        began = resource.getrusage(resource.RUSAGE_CHILDREN)
        try:
            done = subprocess.run(words, capture_output=True, text=True, timeout=60)
        except subprocess.TimeoutExpired:
            return "> 60"
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        took = ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime
    return f"{took:.2f}" if done.returncode == 0 else f"exit {done.returncode}: {done.stderr[-80:].strip()}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--largest", type=int, default=SIZES[-1], help="nodes; VMs are ten times as many")
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--openb", type=Path)
    args = parser.parse_args()
    sizes(args.largest)
    balance()
    if args.peers:
        peers()
    if args.openb:
        openb(args.openb)


if __name__ == "__main__":
    main()
