"""Hosts that go down in an orderly way, on real Ceph, libvirt and QEMU: their VMs leave, or are kept for
them, and nobody is fenced (decision 94). And VMs that are spread anew, live."""

from __future__ import annotations

import time
from typing import Any

import pytest

pytestmark = [pytest.mark.ceph, pytest.mark.libvirt, pytest.mark.slow]

AWAY = 15.0
"""Seconds: more than it takes until the VMs of a host that died run elsewhere."""


def go_down(proof: Any, node: str, policy: str) -> None:
    """What init does: vcl's unit, then vcld, then everything."""
    asked = ("node", "shutdown", f"--policy={policy}", "--deadline=60s", "--yes")
    done = proof.nodes[node].vcl(*asked, check=False, timeout=150.0)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(node not in homes for homes in map(proof.homes, proof.vms()))
    proof.nodes[node].stop_vcld()
    proof.fault.power_cut(node)


def is_away(proof: Any, node: str, policy: str) -> None:
    """For long enough: it is known why, and it is not fenced."""
    time.sleep(AWAY)
    (other,) = (each for each in proof.others(node) if each != proof.master(*proof.others(node)))
    status = proof.nodes[other].ask("get", "node", node)["status"]
    assert status["message"] == f"its daemon was stopped, as its host goes down ({policy})"
    assert "fencing" not in status
    assert proof.fenced() == []


def test_a_host_that_goes_down_in_order_keeps_its_frozen_vms(proof: Any) -> None:
    node, _ = proof.workers()
    proof.run("frozen", node, grace=20)
    before = proof.last("frozen")
    go_down(proof, node, "Freeze")
    assert "vcl-guest: bye" in proof.nodes[node].console("frozen")
    is_away(proof, node, "Freeze")
    assert proof.homes("frozen") == []
    proof.fault.power_on(node)
    proof.restarts("frozen", before, on=node)
    proof.retire("frozen")


def test_a_host_that_goes_down_in_order_sends_its_vms_away_first(proof: Any) -> None:
    node, _ = proof.workers()
    proof.run("leaves", node, eviction="LiveMigrateIfPossible")
    before = proof.last("leaves")
    with proof.lab.audit.handing_over("leaves.data"):
        go_down(proof, node, "Migrate")
        is_away(proof, node, "Migrate")
    assert proof.count("leaves")["leaves"].number == before.number
    proof.fault.power_on(node)
    proof.settle()
    status = proof.nodes["r1"].ask("get", "node", node)["status"]
    assert not status["unschedulable"], status
    assert "intent" not in status, status
    proof.retire("leaves")


def test_a_node_that_has_all_vms_gives_some_of_them_away_live(proof: Any) -> None:
    node, _ = proof.workers()
    vms = ("one", "two", "three")
    proof.spread(dict.fromkeys(vms, node), eviction="LiveMigrateIfPossible")
    before = {vm: proof.last(vm).number for vm in vms}
    shown = proof.nodes["r1"].vcl("cluster", "rebalance", "--dry-run").stdout
    print(shown)
    assert proof.homes("one") == proof.homes("two") == proof.homes("three") == [node]
    with proof.lab.audit.handing_over(*(f"{vm}.data" for vm in vms)):
        done = proof.nodes["r1"].vcl("cluster", "rebalance", check=False, timeout=150.0)
    print(done.stdout)
    assert done.returncode == 0, done.stderr
    homes = {vm: proof.homes(vm) for vm in vms}
    moved = [vm for vm in vms if homes[vm] != [node]]
    assert moved, homes
    assert all(vm in shown for vm in moved), shown
    assert {vm: boot.number for vm, boot in proof.count(*vms).items()} == before
    assert "Nothing is worth a move" in proof.nodes["r1"].vcl("cluster", "rebalance").stdout
    proof.retire(*vms)
