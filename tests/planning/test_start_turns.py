"""VMs come back in their order, so many at once, and nobody waits for what does not come."""

from __future__ import annotations

from reconciler.planning.start_turns import Standing, start_turns
from reconciler.resources.startorder import order_of

SITE = order_of({"web": 5, "db": 0, "batch": -1, "cache": 5}, {"web": ["db"]})
WAITING = dict.fromkeys(SITE.places, Standing.WAITING)


def may(standings: dict[str, Standing], parallel: int = 9) -> list[str]:
    return [vm for vm, why in start_turns(SITE, standings, parallel).items() if not why]


def test_what_others_need_starts_first_then_the_important() -> None:
    assert list(start_turns(SITE, WAITING, 9)) == ["db", "cache", "web", "batch"]
    assert may(WAITING) == ["db", "cache", "batch"]
    assert start_turns(SITE, WAITING, 9)["web"] == "it starts after db (startAfter)"
    assert may({**WAITING, "db": Standing.STARTING}) == ["cache", "batch"]
    assert may({**WAITING, "db": Standing.RUNNING}) == ["cache", "web", "batch"]


def test_no_more_start_at_once_than_was_asked_for() -> None:
    assert may(WAITING, 2) == ["db", "cache"]
    assert may({**WAITING, "db": Standing.STARTING}, 2) == ["cache"]
    said = start_turns(SITE, {**WAITING, "db": Standing.STARTING}, 1)
    assert said["cache"] == "it waits for its turn: 1 start at once"


def test_nobody_waits_for_what_does_not_come() -> None:
    assert "web" in may({**WAITING, "db": Standing.OUT})
    assert "web" in may({vm: each for vm, each in WAITING.items() if vm != "db"})


def test_a_cycle_does_not_hold_its_vms_for_ever() -> None:
    ring = order_of({"a": 0, "b": 0}, {"a": ["b"], "b": ["a"]})
    standings = dict.fromkeys("ab", Standing.WAITING)
    first = [vm for vm, why in start_turns(ring, standings, 9).items() if not why]
    assert len(first) == 1
    assert all(not why for why in start_turns(ring, {**standings, first[0]: Standing.RUNNING}, 9).values())
