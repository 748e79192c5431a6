"""A node that is cut off: its guests stand still, and go on; or it is fenced, ends them once it is back,
and takes part again in the same boot.

Real vcld, Ceph, libvirt and QEMU; the short cut with a patient judge, all else with the usual timers.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

pytestmark = [pytest.mark.ceph, pytest.mark.libvirt, pytest.mark.slow]

TIMERS = sys.modules["vcl_lab_watched"].TIMERS
SHORT_CUT = 5.0
"""Seconds; longer than `isolation`, and than the usual `leaseSilent`."""


@pytest.fixture
def patient(formed: Any) -> Iterator[Any]:
    formed.retime({**TIMERS, "leaseSilent": 10})
    formed.settle()
    yield formed
    formed.retime(TIMERS)


def paused(proof: Any, node: str) -> bool:
    return bool(proof.nodes[node].virsh("list", "--state-paused", "--name").split())


def daemon(proof: Any, node: str) -> int:
    """The process that is that node's vcld."""
    return int(proof.nodes[node].host.daemon("vcld").pid)


def test_a_short_cut_costs_a_pause_and_nothing_else(patient: Any) -> None:
    home = patient.workers()[0]
    patient.run("web", home)
    pids, entries = patient.pids("web"), patient.blocklist()
    began = time.monotonic()
    patient.fault.cut(home)
    took = patient.until(lambda: paused(patient, home), "its guest is paused")
    print(f"cut -> paused: {took:.1f} s")
    time.sleep(max(0.0, SHORT_CUT - (time.monotonic() - began)))
    patient.fault.mend(home)
    took = patient.until(lambda: not paused(patient, home), "its guest goes on")
    print(f"mended -> resumed: {took:.1f} s")
    patient.count("web")
    assert patient.pids("web") == pids
    assert [entry for entry in patient.blocklist() if entry not in entries] == []
    patient.sound("web")
    patient.end("web")


def test_a_node_that_was_fenced_while_cut_off_ends_its_guests_first_and_comes_back(proof: Any) -> None:
    home = proof.workers()[0]
    proof.run("web", home)
    before, process = proof.last("web"), daemon(proof, home)
    proof.fault.cut(home)
    proof.until(lambda: paused(proof, home), "its guest is paused")
    proof.restarts("web", before)
    assert paused(proof, home)
    proof.fault.mend(home)
    ended = proof.until(lambda: home not in proof.homes("web"), "the old copy is ended")
    assert proof.fenced() == [home]
    back = proof.until(proof.settled, "it is let in, and takes part")
    print(f"mended -> old copy ended: {ended:.1f} s, taking part: {back:.1f} s more")
    assert daemon(proof, home) == process
    proof.run("more", home)
    proof.sound("web")
    proof.end("web", "more")


def test_a_node_that_alone_cannot_reach_ceph_ends_its_guests_which_start_elsewhere(proof: Any) -> None:
    home = proof.workers()[0]
    proof.run("web", home)
    before = proof.last("web")
    proof.fault.cut_from_ceph(home)
    took = proof.until(lambda: home not in proof.homes("web"), "its guest is ended")
    print(f"cut from Ceph -> ended: {took:.1f} s")
    proof.restarts("web", before)
    proof.settle()
    proof.sound("web")
    proof.end("web")
