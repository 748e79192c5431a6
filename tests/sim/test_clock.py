"""Virtual time moves when told to, and seeded ids repeat."""

from __future__ import annotations

import uuid

import pytest

from reconciler.ports.clock import Clock, Ids
from reconciler.sim.clock import SeededIds, VirtualClock


def test_the_virtual_clock_stands_still_until_it_is_advanced() -> None:
    clock = VirtualClock()
    port: Clock = clock
    assert (port.monotonic(), port.wall()) == (0.0, "2026-01-31T12:00:00Z")
    clock.advance(61.5)
    assert (port.monotonic(), port.wall()) == (61.5, "2026-01-31T12:01:01Z")


def test_the_virtual_clock_never_goes_back() -> None:
    with pytest.raises(ValueError, match="does not go back"):
        VirtualClock().advance(-1)


def test_the_same_seed_gives_the_same_ids_and_another_seed_others() -> None:
    def draw(ids: Ids) -> list[object]:
        return [ids.uuid(), ids.jitter(), ids.uuid(), ids.jitter()]

    assert draw(SeededIds(1)) == draw(SeededIds(1)) != draw(SeededIds(2))


def test_seeded_ids_are_distinct_uuids_and_jitter_is_below_one() -> None:
    ids = SeededIds()
    assert len({uuid.UUID(ids.uuid()) for _ in range(100)}) == 100
    assert all(0 <= ids.jitter() < 1 for _ in range(100))
