"""Who is asked to power off when, who is ended, and when the hosts go."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.planning.shutdown import HOST_GRACE, Turn, host_waits, stop_turns
from reconciler.resources.shutdowns import ShutdownOrder
from reconciler.resources.startorder import Order, order_of

SHUTDOWN = ShutdownOrder(id="a", deadline=100.0, power_off=True)
SITE = order_of({"web": 5, "db": 0, "batch": -1, "cache": 5}, {"web": ["db"]})


def turns(order: Order, gone: set[str], passed: float) -> dict[str, str]:
    return {vm: found.turn for vm, found in stop_turns(order, gone, SHUTDOWN, passed).items()}


def asked(order: Order, gone: set[str], passed: float) -> set[str]:
    return {vm for vm, turn in turns(order, gone, passed).items() if turn == Turn.ASK}


def test_the_less_important_go_first_and_what_others_need_last() -> None:
    assert asked(SITE, set(), 0) == {"batch"}
    assert asked(SITE, {"batch"}, 1) == {"web", "cache"}
    assert asked(SITE, {"batch", "web"}, 2) == {"cache", "db"}
    assert set(turns(SITE, {"batch", "web", "cache", "db"}, 3).values()) == {Turn.GONE}


def test_who_waits_says_for_whom_and_how_long() -> None:
    said = stop_turns(SITE, set(), SHUTDOWN, 10)
    assert said["cache"].reason == "it stops after batch, of less priority; at the latest in 15 s"
    assert said["db"].reason == "it stops after web, which starts after it; at the latest in 40 s"
    assert said["batch"].left == 90


def test_one_that_hangs_holds_the_others_only_for_a_share_of_the_time() -> None:
    assert asked(SITE, set(), 25) == {"batch", "web", "cache"}
    assert asked(SITE, set(), 50) == {"batch", "web", "cache", "db"}


def test_at_the_deadline_all_that_stands_is_ended() -> None:
    assert turns(SITE, {"web"}, 99.9)["db"] == Turn.ASK
    assert turns(SITE, {"web"}, 100) == {
        "batch": Turn.END, "cache": Turn.END, "db": Turn.END, "web": Turn.GONE,
    }  # fmt: skip


def test_equal_vms_are_asked_at_once() -> None:
    assert asked(order_of(dict.fromkeys("abcdef", 0), {}), set(), 0) == set("abcdef")


def test_many_names_are_shortened() -> None:
    order = order_of({**dict.fromkeys("abcdef", 0), "z": 1}, {})
    assert "a, b, c, d and 2 more" in stop_turns(order, set(), SHUTDOWN, 0)["z"].reason


NAMES = st.sampled_from("abcdef")


@given(
    st.dictionaries(NAMES, st.integers(-2, 2), min_size=1),
    st.dictionaries(NAMES, st.lists(NAMES, max_size=2)),
    st.sets(NAMES),
    st.floats(0, 150),
)
def test_somebody_is_always_being_stopped_and_nobody_is_ended_early(
    priorities: dict[str, int], start_after: dict[str, list[str]], gone: set[str], passed: float
) -> None:
    order = order_of(priorities, start_after)
    found = turns(order, gone, passed)
    standing = set(priorities) - gone
    assert {vm for vm, turn in found.items() if turn != Turn.GONE} == standing
    assert (Turn.END in found.values()) == (bool(standing) and passed >= SHUTDOWN.deadline)
    assert not standing or set(found.values()) & {Turn.ASK, Turn.END}


@given(st.dictionaries(NAMES, st.integers(-2, 2)), st.sets(NAMES), st.floats(0, 99), st.floats(0, 50))
def test_who_was_asked_is_never_told_to_wait_again(
    priorities: dict[str, int], gone: set[str], passed: float, more: float
) -> None:
    order = order_of(priorities, {})
    before, after = turns(order, gone, passed), turns(order, gone, passed + more)
    assert all(after[vm] != Turn.WAIT for vm, turn in before.items() if turn == Turn.ASK)


@pytest.mark.parametrize(
    ("standing", "silent", "passed", "says"),
    [
        ([], [], 5, ""),
        (["web"], [], 5, "the host waits for web to stop, at most 110 s"),
        ([], ["r3", "r2"], 5, "the host waits for word from nodes r2, r3, at most 110 s"),
        (["web"], ["r2"], 105, "web to stop and for word from node r2, at most 10 s"),
        (["web"], ["r2"], 100 + HOST_GRACE, ""),
    ],
)
def test_a_host_stays_for_the_guests_of_all_others(
    standing: list[str], silent: list[str], passed: float, says: str
) -> None:
    said = host_waits(SHUTDOWN, standing, silent, passed)
    assert said.endswith(says) if says else not said


def test_hosts_stay_on_when_nobody_asked_for_it() -> None:
    assert "--power-off-hosts" in host_waits(ShutdownOrder(id="a", deadline=1), [], [], 500)
