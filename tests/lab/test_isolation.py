"""A node that is cut off: its guests stand still, and go on; or it is fenced, ends them once it is back,
and takes part again in the same boot.

Real vcld, Ceph, libvirt and QEMU. One lab: first with a patient judge, then with the usual timers.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

pytestmark = [pytest.mark.ceph, pytest.mark.libvirt, pytest.mark.slow]

cluster = sys.modules["vcl_lab_cluster"]
proofs = sys.modules["vcl_lab_proofs"]
SHORT_CUT = 5.0
"""Seconds; longer than `isolation`, and than the usual `leaseSilent`."""
PATIENT = {"masterSettle": proofs.SETTLE, "leaseSilent": 10}
USUAL = {"masterSettle": proofs.SETTLE}


@pytest.fixture(scope="module")
def formed(guest_image: Any) -> Iterator[Any]:
    with cluster.cluster_lab(cluster.LabSettings(config={"timers": PATIENT})) as lab:
        yield proofs.Proofs(lab, guest_image)


@pytest.fixture
def patient(formed: Any) -> Any:
    formed.settle()
    return formed


@pytest.fixture
def usual(formed: Any) -> Any:
    """The same lab, with the usual timers from now on."""
    for node in formed.nodes.values():
        path = node.host.files / "etc/vcl/vcld.yaml"
        config = json.loads(path.read_text())
        if config["timers"] != USUAL:
            path.write_text(json.dumps({**config, "timers": USUAL}))
            node.stop_vcld()
            node.start_vcld()
    formed.settle()
    return formed


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


def test_a_node_that_was_fenced_while_cut_off_ends_its_guests_first_and_comes_back(usual: Any) -> None:
    home = usual.workers()[0]
    usual.run("web", home)
    before, process = usual.last("web"), daemon(usual, home)
    usual.fault.cut(home)
    usual.until(lambda: paused(usual, home), "its guest is paused")
    usual.restarts("web", before)
    assert paused(usual, home)
    usual.fault.mend(home)
    ended = usual.until(lambda: home not in usual.homes("web"), "the old copy is ended")
    assert usual.fenced() == [home]
    back = usual.until(usual.settled, "it is let in, and takes part")
    print(f"mended -> old copy ended: {ended:.1f} s, taking part: {back:.1f} s more")
    assert daemon(usual, home) == process
    usual.run("more", home)
    usual.sound("web")
    usual.end("web", "more")


def test_a_node_that_alone_cannot_reach_ceph_ends_its_guests_which_start_elsewhere(usual: Any) -> None:
    home = usual.workers()[0]
    usual.run("web", home)
    before = usual.last("web")
    usual.fault.cut_from_ceph(home)
    took = usual.until(lambda: home not in usual.homes("web"), "its guest is ended")
    print(f"cut from Ceph -> ended: {took:.1f} s")
    usual.restarts("web", before)
    usual.settle()
    usual.sound("web")
    usual.end("web")
