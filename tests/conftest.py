"""What all tests share. The fixtures come from tests/lab/fixtures.py; nothing starts before a test asks."""

from __future__ import annotations

import functools
import importlib.util
import re
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

# A run in the background inherits an ignored SIGINT, and so would every program that a test interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

pytest.register_assert_rewrite("reconciler.testing")

_SOURCE = Path(__file__).parent / "lab" / "fixtures.py"
_spec = importlib.util.spec_from_file_location("vcl_lab_fixtures", _SOURCE)
assert _spec is not None
assert _spec.loader is not None
_fixtures = importlib.util.module_from_spec(_spec)
sys.modules["vcl_lab_fixtures"] = _fixtures
_spec.loader.exec_module(_fixtures)

private_libvirtd = _fixtures.private_libvirtd
guest_image = _fixtures.guest_image
private_ceph = _fixtures.private_ceph

_WANTS_A_LAB = re.compile(r"\b(bare_lab|formed|proof|hyperconverged): Any")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """For `-n 2 --dist loadscope`: all tests without a lab are in one process, since each has a private
    libvirtd, and QEMUs are looked for in all of /proc; whoever has nothing to do takes the next file of those
    that share a lab (tests/lab/conftest.py), in the order of collection."""
    if config.getvalue("dist") != "loadscope":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class ByLab(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            file = str(nodeid.partition("::")[0])
            return file if _wants_a_lab(file) else "machine"

    config.option.loadscopereorder = False
    return ByLab(config, log)


@functools.cache
def _wants_a_lab(file: str) -> bool:
    if Path(file).parent.name != "lab":
        return False
    return _WANTS_A_LAB.search((_fixtures.ROOT / file).read_text()) is not None
