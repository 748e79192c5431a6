"""Copies that should be dead and are not: they run on, wake up or have writes under way, and nothing of that
reaches their disks, which another node has long taken over. They end before their node takes part again.

Real Ceph, libvirt and QEMU; docs/lab.md lists which proof is where. The lab's audit watches all the time.
"""

from __future__ import annotations

import re
import sys
import time
from datetime import UTC, datetime
from typing import Any

import pytest

cluster = sys.modules["vcl_lab_cluster"]
pytestmark = [pytest.mark.ceph, pytest.mark.libvirt, pytest.mark.slow]

FROZEN = 60.0
SOON = 30
"""Seconds until an entry of somebody else's would end: while the node is frozen."""
YEAR = 365 * 86400
CONT, KILL = 18, 9


def guests(proof: Any, node: str) -> list[Any]:
    """The processes of QEMU there."""
    members = proof.nodes[node].host.members()
    return [each for each in members if any(word.startswith("guest=") for word in each.words())]


def stays_sound(proof: Any, vm: str, seconds: float, *, copies: int) -> None:
    """Nobody else's write arrives while it counts on, looked at for so long."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        proof.sound(vm, copies=copies)
        time.sleep(1)
    proof.count(vm)
    proof.sound(vm, copies=copies)


def expiries(proof: Any) -> dict[str, float]:
    """Each entry's end, in seconds since 1970."""
    told = proof.lab.storage.command("osd", "blocklist", "ls")
    found = re.findall(r"^(\S+:\d+/\d+) (\d{4}-\S+)$", told, flags=re.MULTILINE)
    return {entry: datetime.fromisoformat(end[:19]).replace(tzinfo=UTC).timestamp() for entry, end in found}


def test_a_node_frozen_for_a_minute_writes_nothing_when_it_goes_on(proof: Any) -> None:
    """Behind entries that would have ended meanwhile, and that `add` does not extend. Its guests go on first,
    and only later the daemon that ends them."""
    (worker, *_) = proof.workers()
    proof.run("frozen", worker)
    host = f"{proof.nodes[worker].host.address.ip}:0/0"
    entries = (host, *proof.clients("frozen"))
    assert len(entries) > 1
    proof.fault.freeze(worker)
    began = time.monotonic()
    for entry in entries:
        proof.lab.storage.command("osd", "blocklist", "add", entry, str(SOON))
    proof.restarts("frozen", proof.last("frozen"))
    ends = expiries(proof)
    for entry in entries:
        assert ends[entry] - time.time() > YEAR, (entry, ends)
    proof.sound("frozen", copies=2)
    time.sleep(max(0.0, FROZEN - (time.monotonic() - began)))
    zombies = guests(proof, worker)
    assert zombies
    for zombie in zombies:
        zombie.signal(CONT)
    stays_sound(proof, "frozen", 5, copies=2)
    assert proof.fenced() == [worker]
    proof.fault.thaw(worker)
    proof.until(lambda: len(proof.homes("frozen")) == 1, "the zombie has ended")
    proof.retire("frozen")


@pytest.mark.parametrize("daemon", ["killed", "frozen"])
def test_guests_of_a_cut_off_node_without_a_daemon_cannot_write_and_end_before_it_takes_part(
    proof: Any, daemon: str
) -> None:
    vm, (worker, *_) = f"cut-{daemon}", proof.workers()
    proof.run(vm, worker)
    zombies = proof.nodes[worker].qemus(vm)
    (proof.fault.kill if daemon == "killed" else proof.fault.freeze)(worker, "vcld")
    proof.fault.cut(worker)
    proof.restarts(vm, proof.last(vm))
    proof.fault.mend(worker)
    stays_sound(proof, vm, 5, copies=2)
    assert proof.nodes[worker].qemus(vm) == zombies
    assert proof.fenced() == [worker]
    (proof.fault.start if daemon == "killed" else proof.fault.thaw)(worker, "vcld")
    proof.until(lambda: proof.fenced() == [], "its host may reach Ceph again")
    assert proof.nodes[worker].qemus(vm) == []
    proof.retire(vm)


def under_way(proof: Any, node: str) -> bool:
    """Whether a write of a guest is in the hands of its host's kernel, and was not answered."""
    told = proof.nodes[node].host.run("ss", "-tnH").stdout
    return any(int(line.split()[2]) >= cluster.BLOCK for line in told.splitlines())


def kill_while_it_writes(proof: Any, node: str) -> None:
    """The guests of a node whose link is cut: what they wrote last is in their sockets."""
    proof.until(lambda: under_way(proof, node), "a write is under way")
    for guest in guests(proof, node):
        guest.signal(KILL)
    proof.until(lambda: guests(proof, node) == [], "no QEMU is left")
    assert under_way(proof, node), "QEMU's end takes nothing of it back"


def test_the_last_write_of_a_killed_guest_does_not_arrive_when_its_link_heals(proof: Any) -> None:
    """vcld is frozen, or it would pause the guest, which then perhaps never wrote."""
    (worker, *_) = proof.workers()
    proof.run("late", worker)
    before = proof.last("late")
    proof.fault.freeze(worker, "vcld")
    proof.fault.cut(worker)
    kill_while_it_writes(proof, worker)
    proof.restarts("late", before)
    proof.fault.mend(worker)
    stays_sound(proof, "late", 8, copies=1)
    proof.retire("late")
