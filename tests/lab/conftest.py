"""Whole nodes on the run's private libvirtd, and whole clusters."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

cluster = sys.modules["vcl_lab_cluster"]
_fixtures = sys.modules["vcl_lab_fixtures"]
lab_node = _fixtures.load("vcl_lab_node", Path(__file__).with_name("node.py"))
_fixtures.load("vcl_lab_proofs", Path(__file__).with_name("proofs.py"))


@pytest.fixture
def node(tmp_path: Path, private_libvirtd: Any, guest_image: Any) -> Iterator[Any]:
    """A node that is not started yet."""
    private_libvirtd.start()
    made = lab_node.LabNode(tmp_path, private_libvirtd, guest_image)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def bare_lab() -> Iterator[Any]:
    """Three machines with libvirtd and a Ceph, without vcld."""
    with cluster.cluster_lab(cluster.LabSettings(vcld=False)) as lab:
        yield lab
