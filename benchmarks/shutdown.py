"""How long an emergency shutdown takes, in the lab: by hand, as root.

    .venv/bin/python benchmarks/shutdown.py [--runs 5] [--guests 20]

Guests of 128 MiB on RBD, emulated, run on three hosts. `vcl cluster shutdown` on one of them: seconds until
no QEMU is left, and whether each guest said that its file systems are quiet before it ended. Then the same
while vcld of the master is killed at the beginning, and started again two seconds later, as the host's init
does it. Beside it: how long one guest alone takes from `vcl stop` to its end: nobody can be faster than that.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from failover import ROOT, _load, wait
from migration import POOL

GUEST = """\
apiVersion: vcl/v1
kind: VirtualMachine
metadata: {{name: {name}}}
spec:
  cpu: {{cores: 1, model: qemu64}}
  memory: 128Mi
  boot: {{kernel: {kernel}, initrd: {initrd}, cmdline: "console=ttyS0 quiet no_timer_check vcl.name={name}"}}
  disks: [{{name: data, pool: ceph, size: 4Mi}}]
"""
NODE = """\
apiVersion: vcl/v1
kind: Node
metadata: {{name: {name}}}
spec: {{overcommit: {{cpu: 16}}}}
---
"""
LONG = 600.0
BOOTED, BYE, TICK = "vcl-guest: booted", "vcl-guest: bye", "vcl-guest: tick"


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure emergency shutdowns.")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--guests", type=int, default=20)
    given = parser.parse_args()
    cluster = _load("vcl_lab_cluster", ROOT / "tests/lab/cluster/__init__.py")
    builder = _load("vcl_guest_builder", ROOT / "tools/guest/build.py")
    kernel, initrd = builder.build(ROOT / "build/guest", ROOT / "build/guest/cache")
    with cluster.cluster_lab(cluster.LabSettings(config={"timers": {"masterSettle": 3}})) as lab:
        first = lab.nodes["r1"]
        wait(lambda: first.master() == "r1", "r1 is master")
        first.save("pool.yaml", POOL)
        first.save("nodes.yaml", "".join(NODE.format(name=name) for name in lab.nodes))
        names = [f"bench{number}" for number in range(given.guests)]
        for name in names:
            first.save(f"{name}.yaml", GUEST.format(name=name, kernel=kernel, initrd=initrd))
        wait(lambda: up(lab, names), "all guests count", LONG)
        print(f"one guest alone, from `vcl stop` to its end: {alone(lab, names[0]):.1f} s", flush=True)
        for kill in (False, True):
            taken = [shut_down(lab, names, kill=kill) for _ in range(given.runs)]
            what = "the master killed at the beginning" if kill else "undisturbed"
            spread = f"median {statistics.median(taken):.1f} s, worst {max(taken):.1f} s"
            print(f"{given.guests} guests, {what}: {spread}, of {len(taken)} runs", flush=True)


def alone(lab: Any, name: str) -> float:
    """It is stopped, and started again."""
    (node,) = [node for node in lab.nodes.values() if node.qemus(name)]
    began = time.monotonic()
    node.vcl("stop", name)
    wait(lambda: not node.qemus(name), "it has ended", LONG)
    took = time.monotonic() - began
    node.vcl("start", name)
    wait(lambda: up(lab, [name]), "it is back", LONG)
    return took


def shut_down(lab: Any, names: list[str], *, kill: bool) -> float:
    """Seconds until the last QEMU has ended."""
    master = next(name for name in lab.nodes if lab.nodes[name].master() == name)
    asked = next(node for name, node in lab.nodes.items() if name != master)
    began = time.monotonic()
    asked.vcl("cluster", "shutdown", "--yes", "--deadline=120", "--no-wait")
    if kill:
        lab.nodes[master].kill_vcld()
        time.sleep(2)
        lab.nodes[master].start_vcld(wait=False)
    wait(lambda: not left(lab, names), "no guest is left", LONG)
    took = time.monotonic() - began
    unclean = [name for name in names if not clean(lab, name)]
    print(f"  {took:.1f} s; {len(names) - len(unclean)} of {len(names)} ended cleanly", flush=True)
    wait(lambda: all(node.master() for node in lab.nodes.values()), "all have a master", LONG)
    wait(lambda: (asked.api("/apis/vcl/v1/power") or {}).get("stored"), "the store says so", LONG)
    asked.vcl("cluster", "start", "--timeout=10m", timeout=LONG)
    wait(lambda: up(lab, names), "all guests count", LONG)
    return took


def left(lab: Any, names: list[str]) -> list[str]:
    return [name for name in names if any(node.qemus(name) for node in lab.nodes.values())]


def last_run(lab: Any, name: str) -> str:
    """What it printed since it booted last, wherever that was: the console that was written to last."""
    logs = [node.console_log(name) for node in lab.nodes.values()]
    newest = max((log for log in logs if log.exists()), key=lambda log: log.stat().st_mtime)
    return newest.read_text(errors="replace").rpartition(BOOTED)[2]


def clean(lab: Any, name: str) -> bool:
    return BYE in last_run(lab, name)


def up(lab: Any, names: list[str]) -> bool:
    if sum(len(node.qemus(name)) for name in names for node in lab.nodes.values()) != len(names):
        return False
    return all(TICK in last_run(lab, name) and not clean(lab, name) for name in names)


if __name__ == "__main__":
    main()
