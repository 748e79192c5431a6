"""Three nodes are one cluster: one truth in RADOS, one master by rank, the same files everywhere, and that
through the loss of any one of them. Real vcld, Ceph, libvirt and QEMU; figures are printed, bounds are loose.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytestmark = [pytest.mark.ceph, pytest.mark.libvirt, pytest.mark.slow]

cluster = sys.modules["vcl_lab_cluster"]
PATIENCE = 60.0
SETTLE = 3
"""Seconds of masterSettle here, so that a return of the best rank is not waited for longer than needed."""
MANIFEST = """\
# a comment of the user's
apiVersion: vcl/v1
kind: VirtualMachine
metadata: {{name: {name}}}
spec:
  cpu: {{cores: 1}}
  memory: {memory}
  terminationGracePeriodSeconds: 0
"""


@pytest.fixture(scope="module")
def formed() -> Iterator[Any]:
    settings = cluster.LabSettings(config={"timers": {"masterSettle": SETTLE}})
    with cluster.cluster_lab(settings) as lab:
        yield lab


@pytest.fixture
def lab(formed: Any) -> Any:
    """All is well: one is master, everybody says so, and finds everybody ready."""
    formed.fault.heal()
    until(lambda: settled(formed), "all agree on a master and are ready", formed)
    return formed


def until(holds: Callable[[], object], what: str, lab: Any, seconds: float = PATIENCE) -> float:
    """Seconds that it took. The nodes' logs are shown when it does not come."""
    began = time.monotonic()
    try:
        cluster.until(holds, seconds, what)
    except cluster.LabFailed:
        for node in lab.nodes.values():
            print(f"--- {node.name}\n{node.host.log('vcld').read_text(errors='replace')[-2500:]}")
        raise
    return time.monotonic() - began


def settled(lab: Any) -> bool:
    nodes = list(lab.nodes.values())
    return agreed(lab) != "" and all(node.standing(name) == "Ready" for node in nodes for name in lab.nodes)


def agreed(lab: Any, *names: str) -> str:
    """Whom these nodes (none named: all) take for master; empty unless they are of one mind."""
    said = {lab.nodes[name].master() for name in names or lab.nodes}
    return said.pop() if len(said) == 1 else ""


def others(lab: Any, name: str) -> list[str]:
    return [each for each in lab.nodes if each != name]


def until_replaced(lab: Any, old: str) -> float:
    """Seconds until the other nodes have agreed on another master."""
    rest = others(lab, old)
    return until(lambda: agreed(lab, *rest) in rest, f"{old} is replaced as master", lab)


def runs_on(lab: Any, vm: str) -> list[str]:
    return [node.name for node in lab.nodes.values() for _ in node.qemus(vm)]


def save(lab: Any, name: str, vm: str, memory: str = "64Mi") -> Any:
    return lab.nodes[name].save(f"{vm}.yaml", MANIFEST.format(name=vm, memory=memory))


def remove(lab: Any, name: str, vm: str) -> None:
    """Delete the file on a node, and wait until the machine is stopped."""
    (lab.nodes[name].manifests / f"{vm}.yaml").unlink()
    until(lambda: runs_on(lab, vm) == [], f"{vm} is stopped", lab)


def same_everywhere(lab: Any, file: str, text: str) -> bool:
    paths = [node.manifests / file for node in lab.nodes.values()]
    return all(path.exists() and path.read_text() == text for path in paths)


def shown(lab: Any, name: str) -> list[tuple[str, str, str]]:
    """`vcl get vms` there: name, phase and node."""
    items = json.loads(lab.nodes[name].vcl("get", "vms", "-o", "json").stdout)["items"]
    return [(i["metadata"]["name"], i["status"].get("phase"), i["status"].get("node")) for i in items]


def test_the_best_rank_is_the_only_master_of_three_ready_nodes(lab: Any) -> None:
    until(lambda: agreed(lab) == "r1", "r1 is master", lab)
    assert len({node.epoch() for node in lab.nodes.values()}) == 1
    wanted = [["r1", "Ready", "master"], ["r2", "Ready", "<none>"], ["r3", "Ready", "<none>"]]
    for node in lab.nodes.values():
        until(lambda node=node: listed(node) == wanted, f"{node.name} shows all nodes as they are", lab)


def listed(node: Any) -> list[list[str]]:
    """The first columns of `vcl get nodes`. A node is Unknown until its libvirt has been asked once."""
    return [line.split()[:3] for line in node.vcl("get", "nodes").stdout.splitlines()[1:]]


def test_a_file_saved_on_one_node_is_on_all_and_runs_on_one(lab: Any) -> None:
    path = save(lab, "r1", "web")
    text = path.read_text()
    there = lab.nodes["r3"].manifests / "web.yaml"
    took = until(lambda: there.exists() and there.read_text() == text, "the file is on r3", lab)
    print(f"saved on r1, on r3 after {took * 1000:.0f} ms")
    assert took < 10
    until(lambda: same_everywhere(lab, "web.yaml", text), "the file is on every node", lab)
    until(lambda: len(runs_on(lab, "web")) == 1, "web runs", lab)
    expected = [("web", "Running", runs_on(lab, "web")[0])]
    until(lambda: all(shown(lab, name) == expected for name in lab.nodes), "all show the same", lab)

    changed = save(lab, "r3", "web", memory="80Mi").read_text()
    until(lambda: same_everywhere(lab, "web.yaml", changed), "the change is on every node", lab)
    until(lambda: all(shown(lab, name) == expected for name in lab.nodes), "it runs on", lab)
    remove(lab, "r2", "web")
    files = [node.manifests / "web.yaml" for node in lab.nodes.values()]
    until(lambda: not any(file.exists() for file in files), "the file is gone everywhere", lab)
    until(lambda: all(shown(lab, name) == [] for name in lab.nodes), "nobody shows it", lab)


def test_a_power_cut_of_the_master_makes_the_next_rank_master_until_it_is_back(lab: Any) -> None:
    until(lambda: agreed(lab) == "r1", "r1 is master", lab)
    epoch = lab.nodes["r2"].epoch()
    lab.fault.power_cut("r1")
    took = until_replaced(lab, "r1")
    print(f"r2 is master {took:.1f} s after the power cut of r1")
    assert took < 25
    assert agreed(lab, "r2", "r3") == "r2"
    assert lab.nodes["r3"].epoch() > epoch
    text = save(lab, "r3", "later").read_text()
    until(lambda: len(runs_on(lab, "later")) == 1, "the new master acts", lab)

    lab.fault.power_on("r1")
    until(lambda: same_everywhere(lab, "later.yaml", text), "r1 has what it missed", lab)
    until(lambda: agreed(lab) == "r1", "r1 is master again", lab)
    remove(lab, "r1", "later")


def test_a_master_cut_from_the_other_nodes_gives_way(lab: Any) -> None:
    master = agreed(lab)
    lab.fault.cut_from_mesh(master)
    until_replaced(lab, master)
    rest = [lab.nodes[name] for name in others(lab, master)]
    until(lambda: {node.standing(master) for node in rest} == {"Degraded"}, "it is known to live", lab)
    until(lambda: lab.nodes[master].master() != master, "it knows that it is no master", lab)


def test_a_master_cut_from_ceph_gives_way_and_keeps_what_is_saved_on_it(lab: Any) -> None:
    master = agreed(lab)
    lab.fault.cut_from_ceph(master)
    until_replaced(lab, master)
    rest = [lab.nodes[name] for name in others(lab, master)]
    until(lambda: {node.standing(master) for node in rest} == {"Degraded"}, "it is known to live", lab)
    text = save(lab, master, "offline").read_text()
    lab.fault.mend(master)
    until(lambda: same_everywhere(lab, "offline.yaml", text), "what was saved meanwhile is everywhere", lab)
    until(lambda: len(runs_on(lab, "offline")) == 1, "it runs", lab)
    remove(lab, "r2", "offline")


def test_a_stall_of_ceph_kills_nothing_and_passes(lab: Any) -> None:
    save(lab, "r2", "steady")
    until(lambda: len(runs_on(lab, "steady")) == 1, "it runs", lab)
    (home,) = runs_on(lab, "steady")
    before = lab.nodes[home].qemus("steady")
    daemons = {node.name: node.host.daemon("vcld") for node in lab.nodes.values()}
    lab.storage.freeze()
    time.sleep(8)  # longer than every timer of the election
    lab.storage.thaw()
    until(lambda: settled(lab), "all are well again", lab)
    assert lab.nodes[home].qemus("steady") == before
    assert {node.name: node.host.daemon("vcld") for node in lab.nodes.values()} == daemons
    remove(lab, "r1", "steady")


def test_a_killed_daemon_of_the_master_leaves_its_host_known_to_live(lab: Any) -> None:
    master = agreed(lab)
    lab.fault.kill(master, "vcld")
    until_replaced(lab, master)
    (first, *_) = others(lab, master)
    assert lab.nodes[first].standing(master) == "Degraded"
    lab.fault.start(master, "vcld")
    until(lambda: settled(lab), "all are well again", lab)


def test_a_restart_of_everything_finds_everything(lab: Any) -> None:
    text = save(lab, "r2", "again").read_text()
    until(lambda: len(runs_on(lab, "again")) == 1, "it runs", lab)
    lab.fault.restart_all()
    until(lambda: settled(lab), "all are well again", lab)
    assert same_everywhere(lab, "again.yaml", text)
    until(lambda: len(runs_on(lab, "again")) == 1, "it runs again", lab)


def test_no_epoch_ever_had_two_masters(lab: Any) -> None:
    """After all that the tests above have done to them."""
    holders: dict[str, set[str]] = {}
    for node in lab.nodes.values():
        log = node.host.log("vcld").read_text(errors="replace")
        for epoch in re.findall(rf"node {node.name}: master with epoch (\d+)", log):
            holders.setdefault(epoch, set()).add(node.name)
    assert len(holders) > 3
    assert {epoch: names for epoch, names in holders.items() if len(names) > 1} == {}
