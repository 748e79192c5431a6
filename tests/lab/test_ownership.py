"""Who may write is decided in the store alone: one VM for an image, and nobody by a store that is older than
what the node has seen.

Real Ceph, libvirt and QEMU; docs/lab.md lists which proof is where. The lab's audit watches all the time.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import pytest

pytestmark = [pytest.mark.ceph, pytest.mark.libvirt, pytest.mark.slow]

proofs = sys.modules["vcl_lab_proofs"]
LONG = 5.0
"""Seconds; a start takes one."""


def test_an_image_has_one_vm_whatever_it_is_called_in_the_other_ones_manifest(proof: Any) -> None:
    (home, _) = proof.workers()
    proof.run("owner", home)
    pids = proof.pids("owner")
    text = (proof.nodes["r1"].manifests / "owner.yaml").read_text()
    same = text.replace("owner", "thief").replace("name: data,", "name: data, image: owner.data,")
    proof.nodes["r1"].save("thief.yaml", same)

    def told() -> str:
        status = (proof.nodes["r1"].ask("get", "vm", "thief") or {}).get("status", {})
        return str([status.get("message"), *(each.get("message") for each in status.get("conditions", []))])

    proof.until(lambda: "owner" in told(), "it says whose image it is")
    ends = time.monotonic() + LONG
    while time.monotonic() < ends:
        assert proof.homes("thief") == []
        time.sleep(0.5)
    assert proof.pids("owner") == pids
    proof.count("owner")
    proof.sound("owner")
    (proof.nodes["r1"].manifests / "thief.yaml").unlink()
    proof.until(lambda: proof.nodes["r1"].ask("get", "vm", "thief") is None, "the other one is deleted")
    assert proof.pids("owner") == pids
    proof.end("owner")


def test_a_store_that_was_set_back_freezes_every_node_and_touches_no_guest_and_no_file(proof: Any) -> None:
    proof.run("kept", "r2")
    pids = proof.pids("kept")
    rados(proof, "mksnap", "earlier")
    paths = [node.manifests / "note.yaml" for node in proof.nodes.values()]
    for number in range(4, 10):
        text = proofs.NODE.format(name=f"r{number}", closed="true")
        proof.nodes["r1"].save("note.yaml", text)
        proof.until(
            lambda text=text: all(each.exists() and each.read_text() == text for each in paths), "saved"
        )
    stop(proof)
    rados(proof, "mksnap", "now")
    rados(proof, "rollback", "state", "earlier")
    for node in proof.nodes.values():
        node.start_vcld()
    for name, node in proof.nodes.items():
        proof.until(lambda node=node: "older" in frozen(node), f"{name} is frozen")
    proof.nodes["r3"].stop_vcld()
    proof.nodes["r3"].start_vcld()
    proof.until(lambda: "older" in frozen(proof.nodes["r3"]), "r3 is frozen when it begins again")
    refused = proof.nodes["r2"].vcl("stop", "kept", check=False)
    assert refused.returncode != 0
    assert "nothing is started or stopped" in refused.stderr
    time.sleep(LONG)
    assert proof.pids("kept") == pids
    assert [path.read_text() for path in paths] == [text] * len(paths)
    stop(proof)
    rados(proof, "rollback", "state", "now")
    for snapshot in ("earlier", "now"):
        rados(proof, "rmsnap", snapshot)
    proof.settle()
    proof.count("kept")
    assert proof.pids("kept") == pids
    proof.sound("kept")
    (proof.nodes["r1"].manifests / "note.yaml").unlink()
    proof.end("kept")


def frozen(node: Any) -> str:
    """Why it changes nothing, as it says itself."""
    return str((node.ask("cluster", "status") or {}).get("frozen"))


def stop(proof: Any) -> None:
    """Every daemon, in order; guests go on."""
    for node in proof.nodes.values():
        node.stop_vcld()


def rados(proof: Any, *words: str) -> None:
    """`rados WORDS` on the state's pool and namespace, as client.admin."""
    storage = proof.lab.storage
    storage.host.run("rados", "-c", str(storage.dir / "ceph.conf"), "-p", "vcl", "-N", "vcl", *words)
