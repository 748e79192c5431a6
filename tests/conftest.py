"""What all tests share. The fixtures come from tests/lab/fixtures.py; nothing starts before a test asks."""

from __future__ import annotations

import importlib.util
import signal
import sys
from pathlib import Path

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
