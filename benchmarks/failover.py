"""How long a VM is gone when its host loses power, in the lab: by hand, as root.

    .venv/bin/python benchmarks/failover.py [--runs 20] [--case separate ...] [--victim worker|master|both]
                                            [--json FILE] [--fresh]

Power cut of the VM's host until the guest prints its first line on another one, with its boot: some 2.4 s,
emulated, with QEMU's plain CPU (`maximum`, which vcl takes under emulation by itself, needs 0.9 s more).
Default timers but masterSettle, which plays no part in it. Where Ceph is told of OSDs, a lab sees three cuts:
vcld tells of a node's OSDs no more than three times in ten minutes. Cases:

    separate        Ceph on a machine of its own
    recommended     Ceph on the nodes, with the settings that vcl doctor recommends, and markOsdsDown
    proof           the same, and a fence agent (a stub of the protocol) that proves that the host is off
    defaults        Ceph on the nodes, at its own settings, without markOsdsDown

The steps are those that the failover's record tells, in seconds since the node's last sign of life (up to
half a second before the cut). Pacemaker 2.1.5 with VirtualDomain, and a dummy fence that succeeds at once,
took 12.6 to 14.9 s in such a lab with the same guest.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LOOK = 0.02
PACEMAKER = "Pacemaker 2.1.5, dummy fence: 12.6-14.9 s"
VM = "bench"
LINE = "vcl-guest: starts"
CUTS = 3
"""In one lab, of a host whose OSDs are reported down: a fourth within ten minutes would not be."""
MANIFESTS = """\
apiVersion: vcl/v1
kind: StoragePool
metadata: {{name: ceph}}
spec: {{type: rbd, rbd: {{pool: vms}}}}
---
apiVersion: vcl/v1
kind: Cluster
metadata: {{name: cluster}}
spec: {{fencing: {{markOsdsDown: {mark}}}}}
---
apiVersion: vcl/v1
kind: VirtualMachine
metadata: {{name: {vm}}}
spec:
  cpu: {{cores: 1, model: qemu64}}
  memory: 128Mi
  terminationGracePeriodSeconds: 0
  boot: {{kernel: {kernel}, initrd: {initrd}, cmdline: "console=ttyS0 quiet no_timer_check vcl.name={vm}"}}
  disks: [{{name: data, pool: ceph, size: 1Mi}}]
"""
NODE = """\
---
apiVersion: vcl/v1
kind: Node
metadata: {{name: {name}}}
spec: {{rank: {rank}, unschedulable: {closed}{fencing}}}
"""
FENCING = ', fencing: {{agent: fence_stub, plug: "{plug}"}}'
STUB = """\
#!/bin/sh
# A fence agent: `off` remembers it, `status` exits with 2 for off. The plug is a file.
while IFS='=' read -r key value; do
  case "$key" in action) action=$value ;; plug) plug=$value ;; esac
done
case "$action" in
  off) echo off > "$plug" ;;
  status) [ "$(cat "$plug" 2> /dev/null)" = off ] && exit 2; exit 0 ;;
  *) exit 1 ;;
esac
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One way to set a lab up. `median`, `worst`: limits in seconds."""

    name: str
    layout: str
    ceph: str = "recommended"
    mark: bool = False
    proof: bool = False
    median: float
    worst: float = float("inf")


CASES = (
    Case(name="separate", layout="separate", median=9.0, worst=12.0),
    Case(name="recommended", layout="hyperconverged", mark=True, median=20.0),
    Case(name="proof", layout="hyperconverged", mark=True, proof=True, median=12.0),
    Case(name="defaults", layout="hyperconverged", ceph="defaults", median=40.0),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One cut: `seconds` until the first line; `steps`: when each was done, since the last sign of life."""

    victim: str
    seconds: float
    steps: dict[str, float] = field(default_factory=dict)


def main() -> None:
    given = _arguments()
    cluster = _load("vcl_lab_cluster", ROOT / "tests/lab/cluster/__init__.py")
    builder = _load("vcl_guest_builder", ROOT / "tools/guest/build.py")
    guest = builder.build(ROOT / "build/guest", ROOT / "build/guest/cache")
    found: list[dict[str, Any]] = []
    for case in CASES:
        if case.name in given.case:
            for victim in ("worker", "master") if given.victim == "both" else (given.victim,):
                most = 1 if given.fresh else CUTS if case.mark else given.runs
                runs: list[Run] = []
                while left := given.runs - len(runs):
                    runs += measure(cluster, case, victim, min(most, left), guest)
                report(case, victim, runs)
                found.append({"case": case.name, "victim": victim, "runs": [asdict(run) for run in runs]})
                if given.json:
                    Path(given.json).write_text(json.dumps(found, indent=1) + "\n")
    print(f"for comparison: {PACEMAKER}; load average now {os.getloadavg()[0]:.1f}")


def _arguments() -> argparse.Namespace:
    names = [case.name for case in CASES]
    parser = argparse.ArgumentParser(description="Measure failovers.")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--case", action="append", choices=names, default=[])
    parser.add_argument("--victim", choices=["worker", "master", "both"], default="both")
    parser.add_argument("--json", default="", help="a file for the figures of each run")
    parser.add_argument(
        "--fresh", action="store_true", help="a lab for each run, instead of the node's return"
    )
    given = parser.parse_args()
    given.case = given.case or names
    return given


def measure(cluster: Any, case: Case, victim: str, runs: int, guest: tuple[Path, Path]) -> list[Run]:
    """That many cuts in one lab."""
    home = "r1" if victim == "master" else "r3"
    with tempfile.TemporaryDirectory(prefix="vcl-plugs-") as plugs:
        stub = Path(plugs) / "fence_stub"
        stub.write_text(STUB)
        stub.chmod(0o755)
        before = os.environ["PATH"]
        os.environ["PATH"] = f"{plugs}:{before}"
        settings = cluster.LabSettings(
            layout=cluster.Layout(case.layout),
            ceph_settings=cluster.CephSettings(case.ceph),
            config={"timers": {"masterSettle": 3}},
        )
        try:
            with cluster.cluster_lab(settings) as lab:
                wait(lambda: lab.nodes["r1"].master() == "r1", "r1 is master")
                open_nodes(lab, case, Path(plugs), closed=set(lab.nodes) - {home})
                lab.nodes["r1"].save("bench.yaml", manifests(case, guest))
                return [one(lab, home, Path(plugs), case, last=number == runs - 1) for number in range(runs)]
        finally:
            os.environ["PATH"] = before


def manifests(case: Case, guest: tuple[Path, Path]) -> str:
    kernel, initrd = guest
    return MANIFESTS.format(vm=VM, mark=str(case.mark).lower(), kernel=kernel, initrd=initrd)


def open_nodes(lab: Any, case: Case, plugs: Path, closed: set[str]) -> None:
    """Which nodes take VMs; returns when the master has it."""
    text = ""
    for rank, name in enumerate(sorted(lab.nodes)):
        fencing = FENCING.format(plug=plugs / name) if case.proof else ""
        text += NODE.format(name=name, rank=rank, closed=str(name in closed).lower(), fencing=fencing)
    lab.nodes["r1"].save("nodes.yaml", text)

    def taken() -> bool:
        found = {name: lab.nodes["r1"].api(f"/apis/vcl/v1/nodes/{name}") or {} for name in lab.nodes}
        return all(
            (each.get("spec") or {}).get("unschedulable", False) == (n in closed) for n, each in found.items()
        )

    wait(taken, "the nodes' manifests are taken")


def one(lab: Any, home: str, plugs: Path, case: Case, *, last: bool) -> Run:
    """A cut of the VM's host, which is switched on again unless this is the `last` run."""
    at_home(lab, home, case, plugs)
    time.sleep(5.0 + random.random())
    others = [name for name in lab.nodes if name != home]
    for name in others:
        lab.nodes[name].console_log(VM).unlink(missing_ok=True)
    if why := lab.storage.objection([home]):
        sys.exit(f"error: {why}")
    before = {each["metadata"]["name"] for each in failovers(lab, others[0])}
    began = time.monotonic()
    lab.nodes[home].host.power_cut()
    wait(lambda: any(LINE in text for text in printed(lab, others)), "the guest boots elsewhere")
    seconds = time.monotonic() - began
    record: dict[str, Any] = {}
    wait(lambda: record.update(fresh(lab, others[0], before)) or "Running" in steps(record), "it is told")
    found = Run(victim=home, seconds=round(seconds, 2), steps=steps(record))
    print(f"  {case.name} {home}: {seconds:.2f} s  {found.steps}", flush=True)
    for plug in plugs.glob("r?"):
        plug.unlink()
    if not last:
        lab.fault.power_on(home)
    return found


def at_home(lab: Any, home: str, case: Case, plugs: Path) -> None:
    """All nodes are ready, nothing of a fencing is left, and the guest runs where it is to be cut."""
    names = set(lab.nodes)
    wait(lambda: all(lab.nodes[n].standing(o) == "Ready" for n in names for o in names), "all are ready")
    wait(
        lambda: all(each["status"].get("returned") for each in failovers(lab, home)), "the return is settled"
    )
    wait(lambda: lab.nodes[home].master() == "r1", "r1 is master")
    wait(lambda: not lab.storage.objection([home]), "Ceph is complete")
    wait(lambda: where(lab, home), "the guest runs")
    if where(lab, home) != home:
        open_nodes(lab, case, plugs, closed=set(lab.nodes) - {home})
        lab.nodes[home].vcl("stop", VM, "--force", "--wait")
        lab.nodes[home].vcl("start", VM)
    wait(lambda: where(lab, home) == home and LINE in "".join(printed(lab, [home])), f"it runs on {home}")
    open_nodes(lab, case, plugs, closed=set())


def where(lab: Any, ask: str) -> str:
    found = lab.nodes[ask].api(f"/apis/vcl/v1/vms/{VM}") or {}
    status = found.get("status") if found.get("kind") == "VirtualMachine" else None
    return str(status.get("node") or "") if status and status.get("phase") == "Running" else ""


def failovers(lab: Any, ask: str) -> list[dict[str, Any]]:
    return list((lab.nodes[ask].api("/apis/vcl/v1/failovers") or {}).get("items", []))


def fresh(lab: Any, ask: str, before: Iterable[str]) -> dict[str, Any]:
    """The record that was not there before."""
    new = [each for each in failovers(lab, ask) if each["metadata"]["name"] not in before]
    return new[-1] if new else {}


def steps(record: dict[str, Any]) -> dict[str, float]:
    """When each step was done, in seconds since the node's last sign of life."""
    status = record.get("status", {})
    marks = [(mark["step"], mark.get("after")) for mark in status.get("marks", [])]
    for vm in status.get("vms", []):
        if vm["name"] == VM:
            marks += [(mark["step"], mark["after"]) for mark in vm.get("marks", [])]
    return {step: round(after, 2) for step, after in marks if after is not None}


def printed(lab: Any, names: Iterable[str]) -> list[str]:
    return [lab.nodes[name].console(VM) for name in names]


def wait(holds: Callable[[], object], what: str, seconds: float = 180.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:.0f} s: {what}")
        time.sleep(LOOK)


def report(case: Case, victim: str, runs: list[Run]) -> None:
    values = sorted(run.seconds for run in runs)
    middle, worst = statistics.median(values), values[-1]
    verdict = "ok" if middle <= case.median and worst <= case.worst else "MISSED"
    limits = f"limits {case.median:g}" + (f"/{case.worst:g}" if case.worst < float("inf") else "")
    print(f"{case.name}, {victim}: median {middle:.1f}  worst {worst:.1f} s, {limits}: {verdict}")
    print(f"  {len(values)} runs: {' '.join(f'{value:.1f}' for value in values)}; {PACEMAKER}")
    names: list[str] = []
    for run in runs:
        names += [name for name in run.steps if name not in names]
    for name in names:
        at = [run.steps[name] for run in runs if name in run.steps]
        print(f"  {name:<12} median {statistics.median(at):5.2f}  worst {max(at):5.2f}", flush=True)


def _load(name: str, path: Path) -> Any:
    places = [str(path.parent)] if path.name == "__init__.py" else None
    spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=places)
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main()
