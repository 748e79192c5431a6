"""What tests with real components share: one private libvirtd, one guest image and one Ceph cluster per run,
each made when first used.

tests/conftest.py hands them to every test. Stale ones of runs that were killed are ended first.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


def load(name: str, path: Path) -> ModuleType:
    """A module that is a script of its own, not part of a package; or a package, by its __init__.py."""
    if name in sys.modules:
        return sys.modules[name]
    places = [str(path.parent)] if path.name == "__init__.py" else None
    spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=places)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


lab = load("vcl_lab_libvirtd", ROOT / "tests/lab/libvirtd.py")
ceph_lab = load("vcl_lab_ceph", ROOT / "tests/lab/ceph.py")
cluster = load("vcl_lab_cluster", ROOT / "tests/lab/cluster/__init__.py")
guest_builder = load("vcl_guest_builder", ROOT / "tools/guest/build.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestImage:
    """Absolute paths, for spec.boot."""

    kernel: str
    initrd: str


@pytest.fixture(scope="session")
def private_libvirtd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[lab.PrivateLibvirtd]:  # type: ignore[name-defined]
    """A running libvirtd of this run's own (`uri`, `log_dir`, `kill`, `freeze`, ...)."""
    base = tmp_path_factory.getbasetemp()
    for owner in base.parent.glob("*/libvirtd*/owner"):
        if not Path("/proc", owner.read_text()).exists():
            lab.PrivateLibvirtd(owner.parent).remove()
    directory = tmp_path_factory.mktemp("libvirtd")
    (directory / "owner").write_text(str(os.getpid()))
    with lab.private_libvirtd(directory) as daemon:
        yield daemon


@pytest.fixture(scope="session")
def guest_image() -> GuestImage:
    """The small Linux of tools/guest; kept in build/ from run to run."""
    kernel, initrd = guest_builder.build(ROOT / "build/guest", ROOT / "build/guest/cache")
    return GuestImage(kernel=str(kernel), initrd=str(initrd))


@pytest.fixture(scope="session")
def private_ceph() -> Iterator[ceph_lab.PrivateCeph]:  # type: ignore[name-defined]
    """A running Ceph cluster of this run's own (`conf`, `freeze`, `thaw`, `command`, ...)."""
    with ceph_lab.private_ceph() as cluster:
        yield cluster
