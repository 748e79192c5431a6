"""Who may be fenced: silence that is proven, by a judge that was not blind."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.planning.judging import (
    Candidate,
    Judge,
    Spared,
    Suspect,
    Verdict,
    Watched,
    judge_node,
    linked,
    votes,
)
from reconciler.planning.liveness import Sight
from reconciler.planning.timers import Timers
from reconciler.resources.fencing import FenceCause
from reconciler.resources.membership import Heartbeat, NodeHealth, NodeLease

TIMERS = Timers()


def beat(name: str, hears: tuple[str, ...], *, sequence: int = 100, store: bool = True) -> Heartbeat:
    health = NodeHealth(store=store)
    return Heartbeat(node=name, boot_id="b", session=1, sequence=sequence, hears=hears, health=health)


def lease(name: str, *, stopped: bool = False) -> NodeLease:
    return NodeLease(node=name, boot_id="b", session=1, renewals=9, stopped=stopped)


def there(name: str, hears: tuple[str, ...] = (), **fields: object) -> Sight:
    known: dict[str, object] = {
        "heard": 0.1,
        "heartbeat": beat(name, hears),
        "lease": lease(name),
        "lease_age": 0.5,
        **fields,
    }
    return Sight(name=name, rank=0, **known)  # type: ignore[arg-type]


def gone(name: str, **fields: object) -> Sight:
    return there(name, **{"heard": 5.0, "lease_age": 5.0, **fields})


def verdict(
    suspect: Sight,
    *others: Sight,
    ran_for: float = 60.0,
    renewals: int = 4,
    owns: bool = True,
    empty: bool = False,
    off: bool = False,
    power_on: bool = True,
    timers: Timers = TIMERS,
) -> Verdict:
    """r1 judges."""
    judge = Judge(me="r1", sights=(there("r1"), *others, suspect), ran_for=ran_for, power_on=power_on)
    seen = Suspect(sight=suspect, renewals=renewals, owns=owns, empty=empty, off=off)
    return judge_node(judge, seen, timers)


R2 = there("r2", hears=("r1",))


def test_a_node_that_a_majority_misses_and_whose_lease_stands_still_is_a_candidate() -> None:
    found = verdict(gone("r3"), R2)
    assert isinstance(found, Candidate)
    assert found.cause is FenceCause.SILENT
    assert "silent on the mesh for 5.0 s (as r1, r2 report)" in found.reason
    assert "its lease has not changed for 5.0 s" in found.reason


def test_silence_on_one_channel_costs_nothing() -> None:
    assert verdict(gone("r3", lease_age=1.0), R2) == Spared()
    found = verdict(there("r3", lease_age=10.0), R2)
    assert isinstance(found, Watched)
    assert "keeps its VMs" in found.reason


def test_a_node_that_another_one_still_hears_is_not_fenced() -> None:
    found = verdict(gone("r3"), there("r2", hears=("r1", "r3")))
    assert isinstance(found, Watched)
    assert "only 1 of the nodes (r1)" in found.reason


def test_a_peer_that_has_only_just_started_has_no_voice() -> None:
    young = there("r2", heartbeat=beat("r2", ("r1",), sequence=10))
    assert isinstance(verdict(gone("r3"), young), Watched)


def test_a_peer_that_is_silent_itself_has_no_voice() -> None:
    assert isinstance(verdict(gone("r3"), gone("r2")), Watched)


def test_of_two_nodes_none_is_ever_fenced() -> None:
    assert isinstance(verdict(gone("r2")), Watched)


@pytest.mark.parametrize("ran_for", [0.0, 1.0, 3.9])
def test_a_judge_that_was_frozen_until_now_fences_nobody(ran_for: float) -> None:
    found = verdict(gone("r3", heard=60.0, lease_age=60.0), R2, ran_for=ran_for)
    assert isinstance(found, Watched)
    assert "this node has itself run" in found.reason


@pytest.mark.parametrize("renewals", [0, 1])
def test_a_stalled_store_makes_nobody_a_candidate(renewals: int) -> None:
    found = verdict(gone("r3"), R2, renewals=renewals)
    assert isinstance(found, Watched)
    assert "stalled" in found.reason


def test_an_orderly_stop_is_never_fenced_however_long_it_lasts() -> None:
    stopped = gone("r3", lease=lease("r3", stopped=True), heard=9_999.0, lease_age=9_999.0)
    found = verdict(stopped, R2)
    assert isinstance(found, Spared)
    assert "orderly" in found.reason


def test_nobody_is_fenced_while_the_power_is_off() -> None:
    assert isinstance(verdict(gone("r3"), R2, power_on=False), Spared)


def test_a_silent_node_on_which_nothing_runs_is_left_alone() -> None:
    assert isinstance(verdict(gone("r3"), R2, owns=False), Spared)


def test_a_node_that_never_came_back_after_a_cold_start_is_a_candidate() -> None:
    found = verdict(gone("r3", heard=None, heartbeat=None), R2)
    assert isinstance(found, Candidate)
    assert "never heard" in found.reason


def test_a_node_without_a_lease_is_watched_first() -> None:
    fresh = gone("r3", heard=None, heartbeat=None, lease=None, lease_age=2.0)
    assert isinstance(verdict(fresh, R2), Watched)
    assert isinstance(verdict(replace(fresh, lease_age=20.0), R2), Candidate)


@pytest.mark.parametrize(("age", "fenced"), [(10.0, False), (119.0, False), (120.0, True), (500.0, True)])
def test_a_host_that_refuses_connections_is_alive_and_has_a_longer_grace(age: float, fenced: bool) -> None:
    found = verdict(gone("r3", heard=age, lease_age=age, refused=0.2), R2)
    assert isinstance(found, Candidate if fenced else Watched)
    if isinstance(found, Candidate):
        assert found.cause is FenceCause.DAEMON_GONE


def test_with_no_daemon_grace_people_are_told_and_nobody_is_fenced() -> None:
    found = verdict(gone("r3", lease_age=9_999.0, refused=0.2), R2, timers=Timers(daemon_grace=0.0))
    assert isinstance(found, Watched)
    assert "only people are told" in found.reason


def test_a_node_cut_from_the_store_only_is_fenced_once_it_says_that_its_guests_are_gone() -> None:
    cut = there("r3", heartbeat=beat("r3", ("r1",), store=False), lease_age=16.0)
    assert isinstance(verdict(cut, R2), Watched)
    found = verdict(cut, R2, empty=True)
    assert isinstance(found, Candidate)
    assert found.cause is FenceCause.STORAGE_LOST


def test_a_node_cut_from_the_store_that_does_not_end_its_guests_is_fenced_after_twice_the_time() -> None:
    cut = there("r3", heartbeat=beat("r3", ("r1",), store=False), lease_age=31.0)
    assert isinstance(verdict(cut, R2), Candidate)


def test_a_lease_that_stands_still_while_its_node_says_that_its_store_is_fine_is_watched() -> None:
    assert isinstance(verdict(there("r3", lease_age=500.0), R2), Watched)


def test_in_a_large_cluster_only_those_that_link_to_the_node_have_a_voice() -> None:
    order = [f"r{number}" for number in range(1, 21)]
    assert linked("r1", "r20", order)
    assert not linked("r15", "r20", order)
    sights = tuple(there(name) if name != "r20" else gone(name) for name in order)
    found, needed = votes(Judge(me="r1", sights=sights, ran_for=60.0), "r20", TIMERS)
    assert found == tuple(order[:7])
    assert needed == 5


ages = st.floats(0.0, 300.0)


@given(
    heard=st.none() | ages,
    lease_age=ages,
    refused=st.none() | ages,
    stopped=st.booleans(),
    renewals=st.integers(0, 5),
    ran_for=ages,
    power=st.booleans(),
    other=st.booleans(),
)
def test_whoever_is_fenced_was_silent_in_the_store_to_a_judge_that_could_see(
    heard: float | None,
    lease_age: float,
    refused: float | None,
    stopped: bool,
    renewals: int,
    ran_for: float,
    power: bool,
    other: bool,
) -> None:
    suspect = there(
        "r3", heard=heard, lease_age=lease_age, refused=refused, lease=lease("r3", stopped=stopped)
    )
    peer = there("r2", hears=("r3",) if other else ())
    found = verdict(suspect, peer, renewals=renewals, ran_for=ran_for, power_on=power)
    if not isinstance(found, Candidate):
        return
    assert lease_age > TIMERS.lease_silent
    assert renewals >= 2
    assert ran_for >= 4.0
    assert power
    assert not stopped
    if found.cause is not FenceCause.STORAGE_LOST:
        assert heard is None or heard > TIMERS.mesh_silent
        assert not other
    if found.cause is FenceCause.SILENT:
        assert refused is None


def test_a_host_that_was_switched_off_in_a_stall_is_a_candidate_at_once() -> None:
    # After a stall of the store the lease's age begins anew, and nothing of one's own was renewed meanwhile.
    silent = gone("r3", lease_age=0.1)
    assert isinstance(verdict(silent, R2, renewals=0), Spared)
    found = verdict(silent, R2, renewals=0, off=True)
    assert isinstance(found, Candidate)
    assert "its host was switched off" in found.reason


@pytest.mark.parametrize(
    ("suspect", "other", "fields"),
    [
        (there("r3"), R2, {}),
        (gone("r3", lease_age=0.1), there("r2", hears=("r1", "r3")), {}),
        (gone("r3", lease_age=0.1), R2, {"power_on": False}),
        (gone("r3", lease_age=0.1), R2, {"owns": False}),
        (gone("r3", lease=lease("r3", stopped=True)), R2, {}),
    ],
)
def test_a_host_that_was_switched_off_needs_everything_else(
    suspect: Sight, other: Sight, fields: dict[str, bool]
) -> None:
    found = verdict(suspect, other, off=True, **fields)  # type: ignore[arg-type]
    assert not isinstance(found, Candidate)
