"""A host is gone, or seems to be: its VMs run again elsewhere, from the last counter that they synced, and
nothing that comes back - a host, a frozen process, a write that was under way - reaches their disks.

Real Ceph, libvirt and QEMU; docs/lab.md lists which proof is where. The lab's audit watches all the time.
"""

from __future__ import annotations

import time
from typing import Any

import pytest

pytestmark = [pytest.mark.ceph, pytest.mark.libvirt, pytest.mark.slow]


def test_the_vms_of_a_worker_without_power_run_elsewhere_and_the_host_comes_back(proof: Any) -> None:
    (worker, *_) = proof.workers()
    proof.run("worker", worker)
    proof.fault.power_cut(worker)
    proof.restarts("worker", proof.last("worker"))
    proof.sound("worker")
    assert proof.fenced() == [worker]
    proof.fault.power_on(worker)
    proof.until(proof.settled, "it takes itself off the blocklist, or is let in")
    proof.run("more", worker)
    proof.retire("worker", "more")


def test_a_daemon_that_is_started_on_a_fenced_host_ends_its_guests_and_is_let_in(proof: Any) -> None:
    (worker, *_) = proof.workers()
    proof.run("cut", worker)
    before = proof.last("cut")
    proof.fault.cut(worker)
    proof.restarts("cut", before)
    proof.fault.kill(worker, "vcld")
    assert proof.fenced() == [worker]
    proof.fault.heal()
    took = proof.until(proof.settled, "it is let in")
    print(f"links mended, vcld started -> let in: {took:.1f} s")
    proof.retire("cut")


def test_the_vms_of_the_master_without_power_run_elsewhere(proof: Any) -> None:
    master = proof.master()
    proof.run("chief", master)
    proof.fault.power_cut(master)
    proof.restarts("chief", proof.last("chief"))
    proof.sound("chief")
    proof.retire("chief")


def test_nothing_starts_where_no_majority_is_and_all_goes_on_when_one_returns(proof: Any) -> None:
    proof.spread({"left": "r1", "gone": "r2", "back": "r3"})
    proof.fault.power_cut("r2", "r3")
    gone, back = proof.last("gone"), proof.last("back")
    ends = time.monotonic() + 15
    while time.monotonic() < ends:
        assert [proof.homes(vm) for vm in ("left", "gone", "back")] == [["r1"], [], []]
        time.sleep(0.5)
    proof.count("left")
    proof.fault.power_on("r3")
    again = proof.count("gone", "back")
    assert (again["gone"].number, again["back"].number) == (gone.number + 1, back.number + 1)
    assert again["gone"].node != "r2"
    for vm in ("left", "gone", "back"):
        proof.sound(vm)
    proof.retire("left", "gone", "back")


def test_the_lock_that_a_crashed_host_left_keeps_nobody_from_starting(proof: Any) -> None:
    """It is back before anybody has missed it."""
    proof.run("locked", "r3")
    (dead,) = proof.clients("locked")
    proof.fault.power_cut("r3")
    before = proof.last("locked")
    proof.fault.power_on("r3")
    proof.until(lambda: proof.last("locked").number > before.number, "it boots again")
    assert proof.last("locked").found >= before.last
    assert dead in proof.blocklist()
    assert proof.clients("locked") != [dead]
    proof.retire("locked")


def test_a_node_in_maintenance_is_left_in_order_and_its_vms_come_back_when_asked(proof: Any) -> None:
    home, other = proof.workers()
    proof.spread({"shut": home}, grace=60)
    proof.spread({"moved": home}, eviction="LiveMigrate")
    before = {vm: proof.last(vm) for vm in ("shut", "moved")}
    begun = time.monotonic()
    with proof.lab.audit.handing_over("moved.data"):
        done = proof.nodes[other].vcl("node", "maintenance", home, "on", "--timeout", "80s")
        print(f"{home} is empty after {time.monotonic() - begun:.1f} s")
    assert f"shut: is shut down, and started on {other}" in done.stdout or "started on r1" in done.stdout
    assert done.stdout.endswith(f"node/{home} drained\n")
    assert proof.homes("shut") != [home]
    away = proof.restarts("shut", before["shut"])
    reasons = {event["reason"] for event in proof.nodes[other].ask("events", "vm/shut")["items"]}
    assert "Stopping" in reasons
    assert "Killing" not in reasons, "it was asked to power off, and did"
    there = proof.count("moved")["moved"]
    assert (there.number, there.node == home) == (before["moved"].number, False), "it was not shut down"
    with proof.lab.audit.handing_over("moved.data"):
        proof.nodes[other].vcl("node", "maintenance", home, "off", "--return")
        proof.restarts("shut", away, on=home)
        proof.until(lambda: proof.homes("moved") == [home], "it has come back")
    assert proof.count("moved")["moved"].number == before["moved"].number
    assert proof.fenced() == []
    proof.retire("shut", "moved")


def test_the_audit_looked_at_all_of_that(formed: Any) -> None:
    assert formed.lab.audit.seen("passes") > 100
    assert formed.lab.audit.findings() == []
