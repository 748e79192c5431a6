"""Whole nodes on the run's private libvirtd, and whole clusters.

A lab costs half a minute and a good part of the machine, so a process has one at a time, and tests that want
the same one share it, whichever file they are in. Each leaves it as it found it, without VMs; one in which a
test failed is not used any more.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

cluster = sys.modules["vcl_lab_cluster"]
_fixtures = sys.modules["vcl_lab_fixtures"]
lab_node = _fixtures.load("vcl_lab_node", Path(__file__).with_name("node.py"))
watched = _fixtures.load("vcl_lab_watched", Path(__file__).with_name("watched.py"))
proofs = _fixtures.load("vcl_lab_proofs", Path(__file__).with_name("proofs.py"))
KINDS = ("bare_lab", "formed", "hyperconverged")
"""The fixtures that give a lab, in the order in which they are used up."""


class Labs:
    """The lab that runs now, if any. `spoiled`: a test failed in it."""

    def __init__(self) -> None:
        self.spoiled = False
        self._settings: Any = None
        self._lab: Any = None
        self._open = contextlib.ExitStack()

    def want(self, settings: Any) -> Any:
        """One like that: the present one, or a new one in its place."""
        if self.spoiled or settings != self._settings:
            self.close()
            self._lab = self._open.enter_context(cluster.cluster_lab(settings))
            self._settings = settings
        return self._lab

    def close(self) -> None:
        """Raises LabFailed when its audit has told of anything."""
        self.spoiled, self._settings = False, None
        self._open.close()


_LABS = Labs()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of one lab in a row."""
    chosen = [item for item in items if _kind(item) is not None]
    if not chosen:
        return
    first = items.index(chosen[0])
    rest = [item for item in items if _kind(item) is None]
    before = sum(1 for item in items[:first] if _kind(item) is None)
    items[:] = [*rest[:before], *sorted(chosen, key=lambda item: _kind(item) or 0), *rest[before:]]


def _kind(item: pytest.Item | None) -> int | None:
    """Which of the KINDS the test wants; None for no lab."""
    names = getattr(item, "fixturenames", ())
    return next((number for number, kind in enumerate(KINDS) if kind in names), None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    if report.failed and _kind(item) is not None:
        _LABS.spoiled = True
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """After the last file with tests in a lab it ends, before other tests need the machine."""
    result = yield
    if nextitem is None or (nextitem.path != item.path and _kind(nextitem) is None):
        _LABS.close()
    return result


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
    lab = _LABS.want(cluster.LabSettings(vcld=False))
    yield lab
    lab.audit.check()
    lab.fault.heal()


@pytest.fixture(scope="module")
def formed(guest_image: Any) -> Iterator[Any]:
    """Three nodes and a Ceph of its own, as Proofs. `VCLD_STOP_AT` is in /etc/vcl/stop-at of each."""
    environment = {"VCLD_STOP_AT": "@/etc/vcl/stop-at"}
    settings = cluster.LabSettings(config={"timers": watched.TIMERS}, environment=environment)
    made = proofs.Proofs(_LABS.want(settings), guest_image)
    yield made
    made.lab.audit.check()
    if not _LABS.spoiled:
        made.settle()
        made.end_all()


@pytest.fixture(scope="module")
def hyperconverged() -> Iterator[Any]:
    """Three nodes that run Ceph themselves, as Watched."""
    config = {"timers": watched.TIMERS}
    lab = _LABS.want(cluster.LabSettings(layout=cluster.Layout.HYPERCONVERGED, config=config))
    yield watched.Watched(lab)
    lab.audit.check()


@pytest.fixture
def proof(formed: Any) -> Any:
    """All is well."""
    formed.settle()
    return formed
