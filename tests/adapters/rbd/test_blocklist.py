"""Clients are shut out for years, and never let in for a moment on the way (SAFETY rule 11)."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from reconciler.adapters.rbd import blocklist
from reconciler.resources.errors import PoolUnavailable

CLIENT, HOST = "10.77.0.1:0/5", "10.77.0.1:0/0"
YEARS, HOUR = 10 * 365 * 86400.0, 3600.0


class Monitors:
    """As Ceph's: `add` does not extend what is there. `seen`: what was in the list after each command."""

    def __init__(self, **seconds: float) -> None:
        self.until = {name: time.time() + left for name, left in seconds.items()}
        self.seen: list[set[str]] = []

    def command(self, **words: Any) -> list[Any]:
        if words["prefix"] == "osd blocklist ls":
            entries = sorted(self.until.items())
            return [
                [{"addr": a, "until": datetime.fromtimestamp(t, UTC).isoformat()} for a, t in entries],
                [],
            ]
        if words["blocklistop"] == "add":
            self.until.setdefault(words["addr"], time.time() + words["expire"])
        else:
            self.until.pop(words["addr"], None)
        self.seen.append(set(self.until))
        return []

    @contextlib.contextmanager
    def handle(self) -> Iterator[Any]:
        yield self

    def wait_for_latest_osdmap(self) -> None:
        """They have it."""


def shut_out(monitors: Any) -> None:
    blocklist.add(monitors, [CLIENT])


def test_a_client_gets_an_entry_of_its_own_for_years() -> None:
    monitors = Monitors()
    shut_out(monitors)
    assert blocklist.read(monitors).lasts(CLIENT)  # type: ignore[arg-type]


def test_a_hosts_entry_does_not_stand_for_its_client_for_it_goes_when_the_host_returns() -> None:
    monitors = Monitors(**{HOST: YEARS})
    shut_out(monitors)
    assert CLIENT in monitors.until


def test_what_lasts_is_left_alone() -> None:
    monitors = Monitors(**{CLIENT: YEARS})
    shut_out(monitors)
    assert monitors.seen == []


def test_a_short_entry_is_replaced_while_the_hosts_covers_the_client() -> None:
    monitors = Monitors(**{CLIENT: HOUR, HOST: YEARS})
    shut_out(monitors)
    assert monitors.seen == [{HOST}, {HOST, CLIENT}]
    assert blocklist.read(monitors).lasts(CLIENT)  # type: ignore[arg-type]


def test_a_short_entry_without_cover_stays_and_its_end_is_told() -> None:
    monitors = Monitors(**{CLIENT: HOUR, HOST: HOUR})
    with pytest.raises(PoolUnavailable, match=f"{CLIENT} is blocklisted, but only until") as caught:
        shut_out(monitors)
    assert "goes on when it has ended" in caught.value.cure
    assert monitors.seen == []
