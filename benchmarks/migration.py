"""How long a live migration takes, and how long the guest stands still, in the lab: by hand, as root.

    .venv/bin/python benchmarks/migration.py [--runs 10] [--guests 10]

A guest of 128 MiB on RBD, emulated, is migrated there and back between two of three hosts: seconds from the
command to its end, with what was not copying of it. Then one host with several guests is drained. A guest
counts once a second, by its own clock, with a write to its disk before each line; while it stands still its
clock does, too. So its downtime is what the time between two lines is longer than usual, as a watcher sees it
that looks 200 times a second; "usual" is told beside it, for the machine makes it vary.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import itertools

from failover import ROOT, _load, wait

POOL = """\
apiVersion: vcl/v1
kind: StoragePool
metadata: {name: ceph}
spec: {type: rbd, rbd: {pool: vms}}
"""
GUEST = """\
apiVersion: vcl/v1
kind: VirtualMachine
metadata: {{name: {name}}}
spec:
  cpu: {{cores: 1, model: qemu64}}
  memory: 128Mi
  terminationGracePeriodSeconds: 0
  boot: {{kernel: {kernel}, initrd: {initrd}, cmdline: "console=ttyS0 quiet no_timer_check vcl.name={name}"}}
  disks: [{{name: data, pool: ceph, size: 4Mi}}]
"""
NODE = """\
apiVersion: vcl/v1
kind: Node
metadata: {{name: {name}}}
spec: {{unschedulable: {closed}, overcommit: {{cpu: 16}}}}
---
"""
TICK = re.compile(rb"vcl-guest: tick (\d+)\r?\n")
LOOK = 0.005
BEFORE = 12
"""Lines that a guest prints before it is migrated: what is usual."""


class Watcher:
    """When each guest printed each line, whichever host's console it was on."""

    def __init__(self, lab: Any, names: list[str]) -> None:
        self._paths = {n: [node.console_log(n) for node in lab.nodes.values()] for n in names}
        self.seen: dict[str, dict[int, float]] = {name: {} for name in names}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def gaps(self, name: str, since: int = 0) -> list[float]:
        """Seconds between its lines, from that number on."""
        at = [moment for number, moment in sorted(self.seen[name].items()) if number >= since]
        return [later - earlier for earlier, later in itertools.pairwise(at)]

    def last(self, name: str) -> int:
        return max(self.seen[name], default=0)

    def lost(self, name: str) -> list[int]:
        """Lines that it did not print."""
        numbers = sorted(self.seen[name])
        return sorted(set(range(numbers[0], numbers[-1] + 1)) - set(numbers)) if numbers else []

    def _run(self) -> None:
        sizes: dict[Path, int] = {}
        while not self._ended.wait(LOOK):
            for name, paths in self._paths.items():
                for path in paths:
                    try:
                        size = path.stat().st_size
                    except FileNotFoundError:
                        continue
                    if size != sizes.get(path, 0):
                        self._read(name, path, min(sizes.get(path, 0), size))
                        sizes[path] = size

    def _read(self, name: str, path: Path, since: int) -> None:
        now = time.monotonic()
        with path.open("rb") as log:
            log.seek(max(0, since - 40))
            for found in TICK.findall(log.read()):
                self.seen[name].setdefault(int(found), now)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure live migrations.")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--guests", type=int, default=10, help="on the node that is drained")
    given = parser.parse_args()
    cluster = _load("vcl_lab_cluster", ROOT / "tests/lab/cluster/__init__.py")
    builder = _load("vcl_guest_builder", ROOT / "tools/guest/build.py")
    guest = builder.build(ROOT / "build/guest", ROOT / "build/guest/cache")
    with cluster.cluster_lab(cluster.LabSettings(config={"timers": {"masterSettle": 3}})) as lab:
        wait(lambda: lab.nodes["r1"].master() == "r1", "r1 is master")
        lab.nodes["r1"].save("pool.yaml", POOL)
        names = [f"bench{number}" for number in range(max(1, given.guests))]
        with lab.audit.handing_over(*(f"{name}.data" for name in names)):
            back_and_forth(lab, guest, names[0], given.runs)
            if given.guests:
                drained(lab, guest, names)
        print(f"load average now {os.getloadavg()[0]:.1f}")


def back_and_forth(lab: Any, guest: tuple[Path, Path], name: str, runs: int) -> None:
    run(lab, guest, [name], "r2")
    watcher = Watcher(lab, [name])
    took: list[float] = []
    still: list[float] = []
    for number in range(runs):
        target = "r2" if number % 2 else "r3"
        begun = watcher.last(name)
        wait(lambda begun=begun: watcher.last(name) >= begun + BEFORE, "it counts")
        usual = statistics.median(watcher.gaps(name, begun))
        since, began = watcher.last(name), time.monotonic()
        lab.nodes["r1"].vcl("migrate", name, "--to", target, "--wait")
        took.append(time.monotonic() - began)
        wait(lambda since=since: watcher.last(name) >= since + 8, "it counts on")
        still.append(max(watcher.gaps(name, since)) - usual)
        print(f"  to {target}: {took[-1]:.2f} s, stood still {still[-1] * 1000:.0f} ms", flush=True)
    watcher.stop()
    usual_gaps = sorted(watcher.gaps(name))
    middle, worst = (round(1000 * each) for each in (statistics.median(still), max(still)))
    print(f"{runs} migrations: median {statistics.median(took):.2f} s, worst {max(took):.2f}; goal 5")
    print(f"  stood still: median {middle} ms, worst {worst}; goal 500")
    print(f"  lost lines: {watcher.lost(name) or 'none'}")
    each, far = (usual_gaps[int(len(usual_gaps) * share)] for share in (0.5, 0.9))
    print(f"  usual: {each:.3f} s from line to line, one in ten over {far:.3f}")


def drained(lab: Any, guest: tuple[Path, Path], names: list[str]) -> None:
    run(lab, guest, names, "r3")
    watcher = Watcher(lab, names)
    wait(lambda: all(watcher.last(n) and len(watcher.seen[n]) > BEFORE for n in names), "all count")
    usual = {name: statistics.median(watcher.gaps(name)) for name in names}
    since, began = {name: watcher.last(name) for name in names}, time.monotonic()
    lab.nodes["r1"].vcl("drain", "r3", "--timeout", "5m")
    took = time.monotonic() - began
    wait(lambda: all(watcher.last(n) >= since[n] + 8 for n in names), "all count on")
    watcher.stop()
    still = sorted(max(watcher.gaps(name, since[name])) - usual[name] for name in names)
    lost = {name: watcher.lost(name) for name in names if watcher.lost(name)}
    print(f"draining a node with {len(names)} guests: {took:.1f} s; lost lines: {lost or 'none'}")
    words = " ".join(f"{each * 1000:.0f}" for each in still)
    print(f"  longest that each stood still, ms: {words}; median {statistics.median(still) * 1000:.0f}")
    lab.nodes["r1"].vcl("uncordon", "r3")


def run(lab: Any, guest: tuple[Path, Path], names: list[str], home: str) -> None:
    """All of them, on that node."""
    kernel, initrd = guest
    nodes(lab, set(lab.nodes) - {home})
    for name in names:
        text = GUEST.format(name=name, kernel=kernel, initrd=initrd)
        lab.nodes["r1"].save(f"{name}.yaml", text)
    wait(lambda: all(where(lab, name) for name in names), "they run")
    for name in names:
        if where(lab, name) != home:
            lab.nodes["r1"].vcl("migrate", name, "--to", home, "--wait")
    wait(
        lambda: all("tick 3" in "".join(each.console(n) for each in lab.nodes.values()) for n in names),
        "they count",
    )
    nodes(lab, set())


def nodes(lab: Any, closed: set[str]) -> None:
    """Which nodes take no VMs; returns when that is in force."""
    lab.nodes["r1"].save(
        "nodes.yaml", "".join(NODE.format(name=n, closed=str(n in closed).lower()) for n in sorted(lab.nodes))
    )

    def taken() -> bool:
        found = {name: lab.nodes["r1"].api(f"/apis/vcl/v1/nodes/{name}") or {} for name in lab.nodes}
        return all(
            (each.get("spec") or {}).get("unschedulable", False) == (n in closed) for n, each in found.items()
        )

    wait(taken, "the nodes' manifests are taken")


def where(lab: Any, name: str) -> str:
    found = lab.nodes["r1"].api(f"/apis/vcl/v1/vms/{name}") or {}
    status = found.get("status") if found.get("kind") == "VirtualMachine" else None
    return str(status.get("node") or "") if status and status.get("phase") == "Running" else ""


if __name__ == "__main__":
    main()
