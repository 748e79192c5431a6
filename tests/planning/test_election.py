"""Who is master, decided from what one node sees."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.planning.election import (
    Campaign,
    Decision,
    ElectionView,
    Hold,
    Idle,
    StepDown,
    elect,
    settle_seconds,
    vacancy,
)
from reconciler.planning.liveness import Sight
from reconciler.planning.timers import Timers
from reconciler.resources.membership import Heartbeat, NodeLease
from reconciler.resources.records import Epoch

TIMERS = Timers()


def beat(name: str, *, eligible: bool = True) -> Heartbeat:
    return Heartbeat(node=name, boot_id="b", session=1, sequence=1, eligible=eligible)


def lease(name: str, mastering: int | None = None, successor: str | None = None) -> NodeLease:
    return NodeLease(node=name, boot_id="b", session=1, renewals=1, mastering=mastering, successor=successor)


def there(name: str, *, mastering: int | None = None, eligible: bool = True, **fields: object) -> Sight:
    """A node that is heard on both channels."""
    settled: dict[str, object] = {
        "heard": 0.1,
        "heartbeat": beat(name, eligible=eligible),
        "lease": lease(name, mastering),
        "lease_age": 0.5,
        **fields,
    }
    return Sight(name=name, rank=int(name[1:]), **settled)  # type: ignore[arg-type]


def gone(name: str, *, mastering: int | None = None) -> Sight:
    return there(name, mastering=mastering, heard=20.0, lease_age=20.0)


def view(me: str, *sights: Sight, epoch: Epoch | None = None, **fields: object) -> ElectionView:
    return ElectionView(me=me, sights=sights, epoch=epoch, **fields)  # type: ignore[arg-type]


def reason(decision: Decision) -> str:
    assert not isinstance(decision, Hold)
    return decision.reason


R1 = Epoch(epoch=4, holder="r1")


def test_the_first_node_of_a_new_cluster_takes_the_first_epoch() -> None:
    assert elect(view("r1", there("r1"), there("r2"), gone("r3")), TIMERS) == Campaign(
        reason="there has been no master yet"
    )


def test_a_lone_node_is_its_own_majority() -> None:
    assert isinstance(elect(view("r1", there("r1")), TIMERS), Campaign)


def test_without_a_majority_nobody_tries() -> None:
    decision = elect(view("r1", there("r1"), gone("r2"), gone("r3")), TIMERS)
    assert decision == Idle(reason="no majority: 1 of 3 nodes are seen, 2 are needed")


def test_two_nodes_need_each_other() -> None:
    assert "2 are needed" in reason(elect(view("r1", there("r1"), gone("r2")), TIMERS))


def test_a_worse_rank_leaves_a_vacant_mastership_to_a_better_one() -> None:
    decision = elect(view("r2", there("r1"), there("r2"), there("r3")), TIMERS)
    assert reason(decision) == "there has been no master yet; leaving it to r1"


def test_but_not_for_ever() -> None:
    waited = view("r2", there("r1"), there("r2"), there("r3"), vacant_for=4.1)
    assert isinstance(elect(waited, TIMERS), Campaign)


def test_a_better_rank_that_is_there_and_not_fit_is_not_waited_for_long() -> None:
    waiting = view("r2", there("r1", eligible=False), there("r2"), there("r3"))
    assert isinstance(elect(waiting, TIMERS), Idle)
    assert isinstance(elect(replace(waiting, vacant_for=1.0), TIMERS), Campaign)


def test_a_master_whose_lease_changes_is_left_alone() -> None:
    decision = elect(view("r2", there("r1", mastering=4), there("r2"), there("r3"), epoch=R1), TIMERS)
    assert decision == Idle(reason="r1 is master")


def test_a_master_that_is_silent_in_the_store_is_replaced() -> None:
    decision = elect(view("r2", gone("r1", mastering=4), there("r2"), there("r3"), epoch=R1), TIMERS)
    assert decision == Campaign(reason="r1's lease has not changed for 20.0 s")


def test_a_master_that_only_the_mesh_lost_stays_master() -> None:
    cut = there("r1", mastering=4, heard=20.0)
    assert isinstance(elect(view("r2", cut, there("r2"), there("r3"), epoch=R1), TIMERS), Idle)


def test_a_master_that_gave_up_is_replaced_at_once_but_only_on_leases_read_since() -> None:
    given_up = view("r2", gone("r1"), there("r2"), there("r3"), epoch=R1)
    given_up = replace(given_up, sights=(replace(given_up.sights[0], lease_age=1.0), *given_up.sights[1:]))
    assert elect(given_up, TIMERS) == Campaign(reason="r1 has given up epoch 4")
    assert isinstance(elect(replace(given_up, leases_current=False), TIMERS), Idle)


def test_the_named_successor_goes_first() -> None:
    holder = there("r2", lease=lease("r2", successor="r1"))
    sights = (there("r1"), holder, there("r3"))
    epoch = Epoch(epoch=4, holder="r2")
    assert isinstance(elect(view("r1", *sights, epoch=epoch), TIMERS), Campaign)
    assert "leaving it to r1" in reason(elect(view("r2", *sights, epoch=epoch), TIMERS))
    assert "leaving it to r1" in reason(elect(view("r3", *sights, epoch=epoch), TIMERS))


def test_nobody_calls_a_mastership_vacant_while_holding_it() -> None:
    held = view("r1", there("r1", mastering=4), there("r2"), epoch=R1, holding=4, renewed=0.1)
    assert vacancy(held, TIMERS) == ""
    assert vacancy(replace(held, holding=None), TIMERS) == "epoch 4 was this node's own"


def test_a_node_that_has_a_problem_does_not_try() -> None:
    decision = elect(view("r1", there("r1"), there("r2"), problems=("the store does not answer",)), TIMERS)
    assert decision == Idle(reason="the store does not answer")


def holding(me: str, *sights: Sight, epoch: Epoch, **fields: object) -> Decision:
    return elect(view(me, *sights, epoch=epoch, holding=4, renewed=0.5, **fields), TIMERS)


R2 = Epoch(epoch=4, holder="r2")


def test_a_master_with_its_majority_stays() -> None:
    assert holding("r2", gone("r1"), there("r2"), there("r3"), epoch=R2) == Hold()


def test_a_master_without_a_majority_steps_down() -> None:
    assert "no majority" in reason(holding("r2", gone("r1"), there("r2"), gone("r3"), epoch=R2))


def test_a_master_whose_epoch_was_taken_steps_down() -> None:
    taken = Epoch(epoch=5, holder="r3")
    assert reason(holding("r2", gone("r1"), there("r2"), there("r3"), epoch=taken)) == "r3 took epoch 5"


def test_a_master_whose_lease_was_not_renewed_steps_down_before_it_may_be_replaced() -> None:
    stalled = elect(
        view("r2", gone("r1"), there("r2"), there("r3"), epoch=R2, holding=4, renewed=3.1), TIMERS
    )
    assert reason(stalled) == "its lease was not renewed for 3.1 s"
    assert TIMERS.master_steps_down < TIMERS.master_taken


def test_mastership_is_handed_to_a_better_rank_that_has_settled() -> None:
    settled = there("r1", eligible_for=10.0)
    decision = holding("r2", settled, there("r2"), there("r3"), epoch=R2)
    assert decision == StepDown(reason="r1 is of a better rank and fit", successor="r1")


@pytest.mark.parametrize(
    "better",
    [
        there("r1", eligible_for=9.9),
        there("r1", eligible_for=15.0, falls=2),
        there("r1", eligible_for=99.0, eligible=False),
        there("r1", eligible_for=99.0, lease_age=5.0),
        there("r1", eligible_for=99.0, heard=4.0),
    ],
    ids=["not yet", "fell twice", "not fit", "silent in the store", "silent on the mesh"],
)
def test_mastership_is_not_handed_to_a_node_that_is_not_there_for_good(better: Sight) -> None:
    assert holding("r2", better, there("r2"), there("r3"), epoch=R2) == Hold()


def test_a_worse_rank_never_gets_it_handed() -> None:
    sights = (there("r1"), there("r2", eligible_for=999.0))
    assert holding("r1", *sights, epoch=R1) == Hold()


def test_a_node_that_keeps_falling_must_settle_for_longer_each_time() -> None:
    waits = [settle_seconds(falls, TIMERS) for falls in range(9)]
    assert waits == [10, 10, 20, 40, 80, 160, 320, 320, 320]


def test_in_a_large_cluster_only_the_first_seven_can_be_master() -> None:
    sights = [there(f"r{number}") for number in range(1, 10)]
    assert "first 7" in reason(elect(view("r8", *sights), TIMERS))


@given(
    alive=st.sets(st.sampled_from(["r1", "r2", "r3", "r4", "r5"])),
    holder=st.sampled_from(["r1", "r2", "r3", "r4", "r5"]),
)
def test_of_the_nodes_that_see_the_same_at_most_one_tries_at_first(alive: set[str], holder: str) -> None:
    names = ["r1", "r2", "r3", "r4", "r5"]
    sights = [there(name) if name in alive else gone(name) for name in names]
    epoch = Epoch(epoch=4, holder=holder)
    tries = [
        name
        for name in sorted(alive)
        if isinstance(elect(view(name, *sights, epoch=epoch, vacant_for=2.0), TIMERS), Campaign)
    ]
    assert len(tries) <= 1
    assert (len(tries) == 1) == (len(alive) >= 3)


def test_a_master_whose_host_was_switched_off_is_followed_at_once() -> None:
    epoch = Epoch(epoch=7, holder="r1")
    dead = there("r1", mastering=7, heard=5.0, lease_age=0.1)
    others = (there("r2"), there("r3"))
    assert isinstance(elect(view("r2", dead, *others, epoch=epoch), TIMERS), Idle)
    decided = elect(view("r2", dead, *others, epoch=epoch, off=frozenset({"r1"})), TIMERS)
    assert decided == Campaign(reason="r1's host was switched off")


def test_a_master_that_is_heard_is_not_off_whatever_was_seen_before() -> None:
    epoch = Epoch(epoch=7, holder="r1")
    back = there("r1", mastering=7)
    assert vacancy(view("r2", back, there("r2"), epoch=epoch, off=frozenset({"r1"})), TIMERS) == ""
