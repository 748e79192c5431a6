"""A VM that writes to two storages starts elsewhere only when its old host can write to neither of them
(SAFETY rule 14).

Real Ceph, libvirt and QEMU; docs/lab.md lists which proof is where. The lab's audit watches all the time.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.ceph, pytest.mark.libvirt, pytest.mark.slow]

FILES = """\
apiVersion: vcl/v1
kind: StoragePool
metadata: {{name: files}}
spec: {{type: directory, directory: {{path: {path}, format: raw, shared: true}}}}
"""
LONG = 5.0
"""Seconds; a start takes one."""


@pytest.fixture
def files(proof: Any, tmp_path: Path) -> Iterator[Path]:
    """A directory that all hosts see, as a pool."""
    file = proof.nodes["r1"].manifests / "files.yaml"
    proof.nodes["r1"].save("files.yaml", FILES.format(path=tmp_path))
    yield tmp_path
    file.unlink()


def told(proof: Any, vm: str) -> str:
    """Its line in `vcl get vms -o wide`."""
    (node, *_) = proof.others("r3")
    return str(proof.nodes[node].vcl("get", "vm", vm, "-o", "wide", "--no-headers").stdout)


def test_storage_alone_is_no_proof_for_a_vm_that_also_has_a_file(proof: Any, files: Path) -> None:
    proof.run("image", "r3")
    proof.run("both", "r3", more=", {name: extra, pool: files, size: 1Mi}")
    assert (files / "both.extra.raw").exists()
    before = {vm: proof.last(vm) for vm in ("image", "both")}
    proof.fault.power_cut("r3")
    proof.restarts("image", before["image"])
    assert proof.fenced() == ["r3"]
    proof.until(lambda: "vcl node confirm-down r3" in told(proof, "both"), "it says what is missing")
    ends = time.monotonic() + LONG
    while time.monotonic() < ends:
        assert proof.homes("both") == []
        time.sleep(0.5)
    incident = proof.nodes["r1"].api("/apis/vcl/v1/nodes/r3")["status"]["fencing"]["incident"]
    proof.nodes["r1"].vcl("node", "confirm-down", "r3", "--yes", "--incident", incident)
    proof.restarts("both", before["both"])
    for vm in ("image", "both"):
        proof.sound(vm)
    proof.retire("image", "both")
