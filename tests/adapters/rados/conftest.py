"""Stores on the run's private Ceph cluster, each test with objects of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.adapters.rados import Place


@pytest.fixture
def ceph(private_ceph: Any) -> Iterator[Any]:
    """The run's cluster, healthy before and after each test."""
    yield private_ceph
    private_ceph.thaw(0, 1, 2)


@pytest.fixture
def place_in(ceph: Any) -> Callable[[Path], Place]:
    """The store that belongs to a directory."""

    def place(directory: Path) -> Place:
        name = hashlib.sha256(str(directory).encode()).hexdigest()[:12]
        return Place(conf=str(ceph.conf), user="vcl", pool="vcl", namespace="vcl", object=f"state-{name}")

    return place


@pytest.fixture
def place(place_in: Callable[[Path], Place], tmp_path: Path) -> Place:
    """This test's store."""
    return place_in(tmp_path)
