"""The real clock and ids keep the ports' words."""

from __future__ import annotations

import re
import uuid

from reconciler.adapters.clock import SystemClock, SystemIds
from reconciler.ports.clock import Clock, Ids


def test_monotonic_time_does_not_go_back() -> None:
    clock: Clock = SystemClock()
    times = [clock.monotonic() for _ in range(100)]
    assert times == sorted(times)


def test_wall_time_is_rfc_3339_in_utc_with_whole_seconds() -> None:
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", SystemClock().wall())


def test_ids_are_distinct_uuids_and_jitter_is_below_one() -> None:
    ids: Ids = SystemIds()
    assert len({uuid.UUID(ids.uuid()) for _ in range(100)}) == 100
    assert all(0 <= ids.jitter() < 1 for _ in range(100))
