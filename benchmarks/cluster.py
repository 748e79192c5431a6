"""The figures of a cluster of three nodes, on the lab's real Ceph: run by hand, as root, never by the tests.

    .venv/bin/python benchmarks/cluster.py [--saves 20] [--cuts 5] [--idle 30]

Save on one node until the same bytes are on another; power cut of the master until the others agree on a new
one; CPU of the three idle daemons. Default timers and TLS. Each figure is printed with its limit.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LOOK = 0.005
"""Seconds between two looks at what is waited for."""
MANIFEST = """\
apiVersion: vcl/v1
kind: VirtualMachine
metadata: {{name: bench}}
spec: {{cpu: {{cores: 1}}, memory: 64Mi, runStrategy: Halted}}
# {number}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure a cluster of three nodes.")
    parser.add_argument("--saves", type=int, default=20)
    parser.add_argument("--cuts", type=int, default=5)
    parser.add_argument("--idle", type=float, default=30.0, help="seconds")
    given = parser.parse_args()
    cluster = _package()
    with cluster.cluster_lab(cluster.LabSettings()) as lab:
        wait(lambda: settled(lab, set(lab.nodes)), "the cluster has formed")
        time.sleep(5)
        report("save on r1 -> same file on r3", "s", 2.0, [save(lab, each) for each in range(given.saves)])
        time.sleep(5)
        report("idle CPU of each daemon", "% of a core", 2.0, idle(lab, given.idle))
        report("power cut of the master -> new master", "s", 8.0, [cut(lab) for _ in range(given.cuts)])


def save(lab: Any, number: int) -> float:
    """Seconds from the rename on r1 until r3 has the bytes."""
    text = MANIFEST.format(number=number)
    there = lab.nodes["r3"].manifests / "bench.yaml"
    began = time.monotonic()
    lab.nodes["r1"].save("bench.yaml", text)
    wait(lambda: there.exists() and there.read_text() == text, "the file is on r3")
    took = time.monotonic() - began
    time.sleep(0.5 + number % 7 / 10)
    return took


def idle(lab: Any, seconds: float) -> list[float]:
    """Percent of a core that each vcld takes."""
    daemons = [node.host.daemon("vcld") for node in lab.nodes.values()]
    before, began = [used(each.pid) for each in daemons], time.monotonic()
    time.sleep(seconds)
    passed = time.monotonic() - began
    return [100 * (used(each.pid) - then) / passed for each, then in zip(daemons, before, strict=True)]


def used(pid: int) -> float:
    """Seconds of CPU, user's and system's, of all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def cut(lab: Any) -> float:
    """Seconds until the others agree on a new master; the old one is switched on again afterwards."""
    old = next(iter(lab.nodes.values())).master()
    rest = set(lab.nodes) - {old}
    began = time.monotonic()
    lab.fault.power_cut(old)
    wait(lambda: agreed(lab, rest) in rest, f"{old} is replaced")
    took = time.monotonic() - began
    lab.fault.power_on(old)
    wait(lambda: settled(lab, set(lab.nodes)), f"{old} is back")
    time.sleep(2)
    return took


def agreed(lab: Any, names: set[str]) -> str:
    """Whom they take for master; empty unless they are of one mind."""
    said = {lab.nodes[name].master() for name in names}
    return str(said.pop()) if len(said) == 1 else ""


def settled(lab: Any, names: set[str]) -> bool:
    ready = all(lab.nodes[one].standing(other) == "Ready" for one in names for other in names)
    return ready and agreed(lab, names) != ""


def wait(holds: Callable[[], object], what: str, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            sys.exit(f"error: not within {seconds:.0f} s: {what}")
        time.sleep(LOOK)


def report(what: str, unit: str, limit: float, values: list[float]) -> None:
    worst, middle = max(values), statistics.median(values)
    verdict = "ok" if worst <= limit else "MISSED"
    print(
        f"{what:<40} median {middle:.2f}  worst {worst:.2f} {unit}, limit {limit:g}: {verdict} "
        f"({len(values)} values: {', '.join(f'{value:.2f}' for value in sorted(values))})",
        flush=True,
    )


def _package() -> Any:
    name, path = "vcl_lab_cluster", ROOT / "tests/lab/cluster"
    spec = importlib.util.spec_from_file_location(
        name, path / "__init__.py", submodule_search_locations=[str(path)]
    )
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = package = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(package)
    return package


if __name__ == "__main__":
    main()
