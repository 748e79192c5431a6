"""How long plans take, and beside whom.

    .venv/bin/python benchmarks/placement.py [--peers] [--openb DIRECTORY]

Cold placement with constraints, planning again after a node's loss, a full balance; with `--peers` the same
losses given to Ganeti's hbal and Pacemaker's crm_simulate, and the question how many more fit to hspace,
where they are installed (Debian: ganeti-htools, pacemaker-cli-utils); with `--openb` the nodes and workloads
of that data set (nodes.csv, pods.csv), all at once and in the order of arrival. Times are of one core's work,
so that others on the machine do not count; each size runs in a process of its own, so that its memory is its
own.
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
from placement_cases import ALIKE, Case, cold, node_lost, settled, uneven
from placement_peers import crm_simulate, hbal, hspace

from reconciler.planning.demands import NodeView, VmDemand
from reconciler.planning.headroom import Cluster, headroom
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
    case = cold(1, nodes, nodes * 10, 0.8, sizes=ALIKE)
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
    for repair in (False, True):
        _arrivals(nodes, vms, repair)


def _arrivals(nodes: list[NodeView], vms: list[VmDemand], repair: bool) -> None:
    """A hundred at a time, in the order of arrival; nothing leaves. `repair`: others may be moved."""
    placed: list[VmDemand] = []
    worst, moves, began = 0.0, 0, time.process_time()
    for start in range(0, len(vms), 100):
        some = vms[start : start + 100]
        before = time.process_time()
        found = plan(nodes, [*placed, *some], [], Policy(repair=repair))
        worst = max(worst, time.process_time() - before)
        moves += sum(step.kind is Kind.MOVE for step in found.steps)
        where = {vm.name: vm.node for vm in [*placed, *some]} | found.where
        placed = [replace(vm, node=where[vm.name]) for vm in [*placed, *some] if where[vm.name]]
    total, left = time.process_time() - began, len(vms) - len(placed)
    even = unevenness(State(build(nodes, placed, [])))
    print(f"  by arrival, 100 a plan: {total:.1f} s, the slowest {worst:.2f} s, {left} without a place,")
    print(f"  {moves} moves, unevenness {even:.4f}")


def peers(seconds: float) -> None:
    """The same clusters, without constraints, for all; who takes longer than `seconds` is ended."""
    print("| after a node's loss | vcl, s | hbal, s | crm_simulate, s |")
    print("|---|---|---|---|")
    for nodes, vms in ((16, 160), (32, 320), (32, 1000), (64, 1000), (100, 1000), (1000, 10000)):
        running = settled(_plain(cold(1, nodes, vms, 0.8, sizes=ALIKE, share=0.0)))
        lost = random.Random(1).choice(running.nodes).name
        gone = node_lost(running, random.Random(1))
        down = tuple(replace(node, refuses="lost") if node.name == lost else node for node in running.nodes)
        mine, found = timed(lambda gone=gone: plan(gone.nodes, gone.vms, gone.constraints))
        moved = len(found.steps)
        theirs = replace(gone, nodes=down)
        print(f"| {nodes} x {len(gone.vms)} | {mine:.3f} ({moved}) ", end="", flush=True)
        print(f"| {_peer(hbal, 'hbal', theirs, lost, seconds)} ", end="", flush=True)
        crm = _peer(crm_simulate, "crm_simulate", theirs, lost, seconds) if vms <= 1000 else "not tried"
        print(f"| {crm} |", flush=True)
    print()
    print("| how many more VMs of 2 vCPUs and 4 GiB fit | vcl, s | all, N+1 | hspace, all, s | | N+1, s | |")
    print("|---|---|---|---|---|---|---|")
    for nodes, vms in ((16, 160), (32, 320), (100, 1000)):
        running = settled(_plain(cold(1, nodes, vms, 0.8, sizes=ALIKE, share=0.0)))
        _capacity(running, seconds)


def _plain(case: Case) -> Case:
    return replace(case, vms=tuple(replace(vm, node_selector={}) for vm in case.vms))


def _capacity(case: Case, seconds: float) -> None:
    """Filling up, and so that any one node may be lost; both are one answer of vcl's, two of hspace's."""
    like = VmDemand(name="like", cpu=2, memory=4 << 30)
    cluster = Cluster(nodes=case.nodes, vms=case.vms, constraints=())
    took, found = timed(lambda: headroom(cluster, like))
    mine = f"{took:.2f} | {found.fit}, {found.with_reserve}{' (not more counted)' if found.more else ''}"
    print(f"| {len(case.nodes)} x {len(case.vms)} | {mine} ", end="", flush=True)
    for reserve in (False, True):
        if shutil.which("hspace") is None:
            print("| not installed | ", end="")
            continue
        with tempfile.TemporaryDirectory() as directory:
            theirs, out = _run(hspace(case, like, Path(directory), reserve), seconds)
        said = dict(line.split("=", 1) for line in out.splitlines() if "=" in line)
        more = int(said.get("HTS_FIN_INST_CNT", 0)) - int(said.get("HTS_INI_INST_CNT", 0))
        print(f"| {theirs} | {more if out else '?'} ", end="", flush=True)
    print("|")


def _peer(
    run: Callable[[Case, str, Path], list[str]], command: str, case: Case, lost: str, seconds: float
) -> str:
    if shutil.which(command) is None:
        return "not installed"
    with tempfile.TemporaryDirectory() as directory:
        return _run(run(case, lost, Path(directory)), seconds)[0]


def _run(words: list[str], seconds: float) -> tuple[str, str]:
    """Seconds of work, and what it said; the input is written before the clock starts."""
    began = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return f"> {seconds:.0f}", ""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    took = ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime
    if done.returncode:
        return f"exit {done.returncode}: {done.stderr[-80:].strip()}", ""
    return f"{took:.2f}", done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--largest", type=int, default=SIZES[-1], help="nodes; VMs are ten times as many")
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--seconds", type=float, default=200.0, help="a peer's limit")
    parser.add_argument("--openb", type=Path)
    args = parser.parse_args()
    sizes(args.largest)
    balance()
    if args.peers:
        peers(args.seconds)
    if args.openb:
        openb(args.openb)


if __name__ == "__main__":
    main()
