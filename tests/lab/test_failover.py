"""A host loses its power: its VM is fenced off, starts elsewhere and goes on; the host comes back to work.

Real vcld, Ceph, libvirt and QEMU; a figure is printed, bounds are loose.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest

pytestmark = [pytest.mark.ceph, pytest.mark.libvirt, pytest.mark.slow]

cluster = sys.modules["vcl_lab_cluster"]
proofs = sys.modules["vcl_lab_proofs"]


@pytest.fixture(scope="module")
def proof(guest_image: Any) -> Iterator[Any]:
    settings = cluster.LabSettings(config={"timers": {"masterSettle": proofs.SETTLE}})
    with cluster.cluster_lab(settings) as lab:
        yield proofs.Proofs(lab, guest_image)


def test_a_vm_lives_on_when_its_host_loses_power_and_the_host_comes_back(proof: Any) -> None:
    proof.settle()
    proof.run("web", "r3")
    proof.fault.power_cut("r3")
    before = proof.last("web")
    took = proof.until(lambda: proof.homes("web") not in ([], ["r3"]), "web starts elsewhere")
    after = proof.restarts("web", before)
    print(f"power cut -> QEMU elsewhere: {took:.1f} s")
    assert after.node != "r3"
    assert after.found >= before.last
    assert proof.fenced() == ["r3"]

    proof.fault.power_on("r3")
    proof.until(lambda: proof.fenced() == [], "r3 takes itself off the blocklist, or is let in")
    proof.settle()
    proof.until(lambda: proof.nodes["r1"].ask("get", "node", "r3") is not None, "it is shown")
    proof.run("more", "r3")
    assert len(proof.homes("web")) == 1
    assert json.dumps(proof.lab.audit.findings()) == "[]"
    proof.end("web", "more")


def test_a_daemon_that_is_started_on_a_fenced_host_ends_its_guests_and_is_let_in(proof: Any) -> None:
    proof.settle()
    proof.run("cut", "r3")
    before = proof.last("cut")
    proof.fault.cut("r3")
    proof.until(lambda: set(proof.homes("cut")) - {"r3"}, "cut starts elsewhere")
    proof.restarts("cut", before)
    proof.fault.kill("r3", "vcld")
    assert proof.fenced() == ["r3"]

    proof.fault.heal()
    took = proof.until(proof.settled, "r3 is let in")
    print(f"links mended, vcld started -> let in: {took:.1f} s")
    assert proof.homes("cut") not in ([], ["r3"])
    assert len(proof.homes("cut")) == 1
    assert json.dumps(proof.lab.audit.findings()) == "[]"
    proof.end("cut")
