"""Three nodes are one cluster: one truth in RADOS, one master by rank, the same files everywhere, and that
through the loss of any one of them. Real vcld, Ceph, libvirt and QEMU; figures are printed, bounds are loose.
"""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest

pytestmark = [pytest.mark.ceph, pytest.mark.libvirt, pytest.mark.slow]

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


@pytest.fixture
def lab(proof: Any) -> Any:
    """All is well: one is master, everybody says so, and finds everybody ready."""
    return proof


def save(lab: Any, name: str, vm: str, memory: str = "64Mi") -> Any:
    return lab.nodes[name].save(f"{vm}.yaml", MANIFEST.format(name=vm, memory=memory))


def remove(lab: Any, name: str, vm: str) -> None:
    """Delete the file on a node, and wait until the machine is stopped."""
    (lab.nodes[name].manifests / f"{vm}.yaml").unlink()
    lab.until(lambda: lab.homes(vm) == [], f"{vm} is stopped")


def shown(lab: Any, name: str) -> list[tuple[str, str, str]]:
    """`vcl get vms` there: name, phase and node."""
    items = json.loads(lab.nodes[name].vcl("get", "vms", "-o", "json").stdout)["items"]
    return [(i["metadata"]["name"], i["status"].get("phase"), i["status"].get("node")) for i in items]


def test_the_best_rank_is_the_only_master_of_three_ready_nodes(lab: Any) -> None:
    lab.until(lambda: lab.master() == "r1", "r1 is master")
    assert len({node.epoch() for node in lab.nodes.values()}) == 1
    wanted = [["r1", "Ready", "master"], ["r2", "Ready", "<none>"], ["r3", "Ready", "<none>"]]
    for node in lab.nodes.values():
        lab.until(lambda node=node: listed(node) == wanted, f"{node.name} shows all nodes as they are")


def listed(node: Any) -> list[list[str]]:
    """The first columns of `vcl get nodes`. A node is Unknown until its libvirt has been asked once."""
    return [line.split()[:3] for line in node.vcl("get", "nodes").stdout.splitlines()[1:]]


def test_a_file_saved_on_one_node_is_on_all_and_runs_on_one(lab: Any) -> None:
    path = save(lab, "r1", "web")
    text = path.read_text()
    there = lab.nodes["r3"].manifests / "web.yaml"
    took = lab.until(lambda: there.exists() and there.read_text() == text, "the file is on r3")
    print(f"saved on r1, on r3 after {took * 1000:.0f} ms")
    assert took < 10
    lab.until(lambda: lab.everywhere("web.yaml", text), "the file is on every node")
    lab.until(lambda: len(lab.homes("web")) == 1, "web runs")
    expected = [("web", "Running", lab.homes("web")[0])]
    lab.until(lambda: all(shown(lab, name) == expected for name in lab.nodes), "all show the same")

    changed = save(lab, "r3", "web", memory="80Mi").read_text()
    lab.until(lambda: lab.everywhere("web.yaml", changed), "the change is on every node")
    lab.until(lambda: all(shown(lab, name) == expected for name in lab.nodes), "it runs on")
    remove(lab, "r2", "web")
    files = [node.manifests / "web.yaml" for node in lab.nodes.values()]
    lab.until(lambda: not any(file.exists() for file in files), "the file is gone everywhere")
    lab.until(lambda: all(shown(lab, name) == [] for name in lab.nodes), "nobody shows it")


def test_a_power_cut_of_the_master_makes_the_next_rank_master_until_it_is_back(lab: Any) -> None:
    lab.until(lambda: lab.master() == "r1", "r1 is master")
    epoch = lab.nodes["r2"].epoch()
    lab.fault.power_cut("r1")
    took = lab.replaced("r1")
    print(f"r2 is master {took:.1f} s after the power cut of r1")
    assert took < 25
    assert lab.master("r2", "r3") == "r2"
    assert lab.nodes["r3"].epoch() > epoch
    text = save(lab, "r3", "later").read_text()
    lab.until(lambda: len(lab.homes("later")) == 1, "the new master acts")

    lab.fault.power_on("r1")
    lab.until(lambda: lab.everywhere("later.yaml", text), "r1 has what it missed")
    lab.until(lambda: lab.master() == "r1", "r1 is master again")
    remove(lab, "r1", "later")


def test_a_master_cut_from_the_other_nodes_gives_way(lab: Any) -> None:
    master = lab.master()
    lab.fault.cut_from_mesh(master)
    lab.replaced(master)
    rest = [lab.nodes[name] for name in lab.others(master)]
    lab.until(lambda: {node.standing(master) for node in rest} == {"Degraded"}, "it is known to live")
    lab.until(lambda: lab.nodes[master].master() != master, "it knows that it is no master")


def test_a_master_cut_from_ceph_gives_way_and_keeps_what_is_saved_on_it(lab: Any) -> None:
    master = lab.master()
    lab.fault.cut_from_ceph(master)
    lab.replaced(master)
    rest = [lab.nodes[name] for name in lab.others(master)]
    lab.until(lambda: {node.standing(master) for node in rest} == {"Degraded"}, "it is known to live")
    text = save(lab, master, "offline").read_text()
    lab.fault.mend(master)
    lab.until(lambda: lab.everywhere("offline.yaml", text), "what was saved meanwhile is everywhere")
    lab.until(lambda: len(lab.homes("offline")) == 1, "it runs")
    remove(lab, "r2", "offline")


def test_a_stall_of_ceph_kills_nothing_and_passes(lab: Any) -> None:
    save(lab, "r2", "steady")
    lab.until(lambda: len(lab.homes("steady")) == 1, "it runs")
    (home,) = lab.homes("steady")
    before = lab.nodes[home].qemus("steady")
    daemons = {node.name: node.host.daemon("vcld") for node in lab.nodes.values()}
    lab.lab.storage.freeze()
    time.sleep(8)  # longer than every timer of the election
    lab.lab.storage.thaw()
    lab.until(lambda: lab.settled(), "all are well again")
    assert lab.nodes[home].qemus("steady") == before
    assert {node.name: node.host.daemon("vcld") for node in lab.nodes.values()} == daemons
    remove(lab, "r1", "steady")


def test_a_killed_daemon_of_the_master_leaves_its_host_known_to_live(lab: Any) -> None:
    master = lab.master()
    lab.fault.kill(master, "vcld")
    lab.replaced(master)
    (first, *_) = lab.others(master)
    assert lab.nodes[first].standing(master) == "Degraded"
    lab.fault.start(master, "vcld")
    lab.until(lambda: lab.settled(), "all are well again")


def test_a_restart_of_everything_finds_everything(lab: Any) -> None:
    text = save(lab, "r2", "again").read_text()
    lab.until(lambda: len(lab.homes("again")) == 1, "it runs")
    lab.fault.restart_all()
    lab.until(lambda: lab.settled(), "all are well again")
    assert lab.everywhere("again.yaml", text)
    lab.until(lambda: len(lab.homes("again")) == 1, "it runs again")


def test_no_epoch_ever_had_two_masters(lab: Any) -> None:
    """After all that the tests above have done to them."""
    holders: dict[str, set[str]] = {}
    for node in lab.nodes.values():
        log = node.host.log("vcld").read_text(errors="replace")
        for epoch in re.findall(rf"node {node.name}: master with epoch (\d+)", log):
            holders.setdefault(epoch, set()).add(node.name)
    assert len(holders) > 3
    assert {epoch: names for epoch, names in holders.items() if len(names) > 1} == {}
