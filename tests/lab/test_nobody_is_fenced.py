"""What must cost no VM anything but time: nobody is fenced, no guest is restarted, every counter goes on.

Real Ceph, libvirt and QEMU; docs/lab.md lists which proof is where. The labs' audits watch all the time.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

pytestmark = [pytest.mark.ceph, pytest.mark.libvirt, pytest.mark.slow]

VMS = ("one", "two", "three")
LONGER_THAN_SILENCE = 8.0
"""Seconds; a node is silent after 4, and would be fenced within 5 if it counted as dead."""


@pytest.fixture(scope="module")
def three(formed: Any) -> Any:
    """One VM on each node."""
    formed.settle()
    formed.spread(dict(zip(VMS, formed.nodes, strict=True)))
    return formed


@pytest.fixture
def proof(three: Any) -> Iterator[Any]:
    """All is well after it: one copy of each, no node cut off, sound disks."""
    yield three
    all_is_well(three)


@pytest.fixture
def untouched(three: Any) -> Iterator[Any]:
    """The same processes go on to the end, and no node is ever cut off."""
    pids, entries = three.pids(*VMS), three.blocklist()
    yield three
    all_is_well(three)
    assert three.pids(*VMS) == pids
    assert [entry for entry in three.blocklist() if entry not in entries] == []


def all_is_well(proof: Any) -> None:
    proof.settle()
    proof.count(*VMS)
    for vm in VMS:
        proof.sound(vm)


def on(proof: Any, node: str) -> str:
    """The VM there."""
    (vm,) = [vm for vm in VMS if proof.homes(vm) == [node]]
    return vm


def quiet(proof: Any, seconds: float) -> None:
    """Nobody is cut off for so long."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        assert proof.fenced() == []
        time.sleep(0.5)


def test_daemons_that_are_killed_or_frozen_cost_their_vms_nothing(untouched: Any) -> None:
    """vcld of one host, libvirtd of another, and libvirtd of the third stands still."""
    killed, other = untouched.workers()
    untouched.fault.kill(killed, "vcld")
    untouched.fault.kill(other, "libvirtd")
    untouched.fault.freeze(untouched.master(other), "libvirtd")
    quiet(untouched, LONGER_THAN_SILENCE)
    assert untouched.nodes[other].standing(killed) == "Degraded"
    untouched.count(*VMS)


def test_a_node_that_is_cut_from_the_mesh_only_keeps_its_guest_which_starts_nowhere_else(
    untouched: Any,
) -> None:
    """A worker, then the master, which gives way to another; their leases tell the others that they live."""
    master = untouched.master()
    for cut in (untouched.others(master)[0], master):
        rest = untouched.others(cut)
        untouched.fault.cut_from_mesh(cut)
        untouched.until(
            lambda cut=cut, rest=rest: (
                {untouched.nodes[name].standing(cut) for name in rest} == {"Degraded"}
                and untouched.master(*rest) in rest
            ),
            f"{cut} is known to live, and one of the others is master",
        )
        quiet(untouched, LONGER_THAN_SILENCE)
        assert [len(untouched.homes(vm)) for vm in VMS] == [1, 1, 1]
        untouched.count(*VMS)
        untouched.fault.mend(cut)
        untouched.until(untouched.settled, f"{cut} takes part again")


def test_a_stall_of_ceph_with_a_flap_of_the_mesh_in_it_costs_only_time(untouched: Any) -> None:
    untouched.lab.storage.freeze()
    began = time.monotonic()
    time.sleep(8)
    untouched.fault.cut_from_mesh("r2")
    time.sleep(6)
    untouched.fault.mend("r2")
    time.sleep(max(0.0, 30 - (time.monotonic() - began)))
    untouched.lab.storage.thaw()
    untouched.until(lambda: untouched.master() != "", "there is a master again")
    quiet(untouched, LONGER_THAN_SILENCE)
    untouched.count(*VMS)


def test_hosts_that_all_lose_power_at_once_run_everything_again(proof: Any) -> None:
    homes = {vm: proof.homes(vm) for vm in VMS}
    proof.fault.power_cut(*proof.nodes)
    before = {vm: proof.last(vm) for vm in VMS}
    assert not any(proof.homes(vm) for vm in VMS)
    proof.settle()
    for vm, boot in before.items():
        again = proof.restarts(vm, boot, on=homes[vm][0])
        assert again.found >= boot.last


def test_a_master_that_was_frozen_fences_nobody_when_it_wakes_up(proof: Any) -> None:
    """It has no VM, so that nobody takes it for one whose VMs must be taken."""
    master = proof.settle()
    mine = on(proof, master)
    assert proof.nodes[master].vcl("stop", mine, "--force", "--wait").returncode == 0
    rest = {vm: proof.homes(vm) for vm in VMS if vm != mine}
    pids, entries = proof.pids(*rest), proof.blocklist()
    proof.fault.freeze(master, "vcld")
    time.sleep(10)
    proof.fault.thaw(master, "vcld")
    quiet(proof, LONGER_THAN_SILENCE)
    assert proof.pids(*rest) == pids
    assert proof.blocklist() == entries
    assert proof.nodes[master].vcl("start", mine, "--wait").returncode == 0


def test_the_audit_looked_at_all_of_that(formed: Any) -> None:
    assert formed.lab.audit.seen("passes") > 100
    assert formed.lab.audit.seen("writers") > 100
    assert formed.lab.audit.seen("records") > 100
    assert formed.lab.audit.findings() == []
