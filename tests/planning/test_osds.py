"""Whose OSDs Ceph is told of: a majority must miss the node, one node speaks, power goes in a stall only."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.planning.judging import Judge
from reconciler.planning.liveness import Sight
from reconciler.planning.osds import (
    MOST,
    PERIOD,
    Gone,
    OsdVerdict,
    Unharmed,
    definitely_dead,
    judge_osds,
    osds_of,
    too_often,
)
from reconciler.planning.timers import Timers
from reconciler.resources.fencing import (
    ConfirmedDown,
    FenceCause,
    FenceRecord,
    PoweredOff,
    WatchdogExpired,
)
from reconciler.resources.membership import Heartbeat, NodeHealth, NodeLease

TIMERS = Timers()
STALL = 3.0


def there(name: str, hears: tuple[str, ...] = (), *, sequence: int = 100) -> Sight:
    beat = Heartbeat(
        node=name, boot_id="b", session=1, sequence=sequence, hears=hears, health=NodeHealth(store=True)
    )
    lease = NodeLease(node=name, boot_id="b", session=1, renewals=9)
    return Sight(name=name, rank=0, heard=0.1, heartbeat=beat, lease=lease, lease_age=0.5)


R1, R2 = there("r1", hears=("r2",)), there("r2", hears=("r1",))
R3 = replace(there("r3"), heard=3.2)
"""Silent for three seconds; its lease was young when Ceph began to stall."""


STOPPED = NodeLease(node="r3", boot_id="b", session=1, renewals=9, stopped=True)


def verdict(
    suspect: Sight = R3,
    *others: Sight,
    me: str = "r1",
    stalled: float = STALL,
    ran_for: float = 60.0,
    power_on: bool = True,
    owns: bool = True,
) -> OsdVerdict:
    sights = (*(others or (R1, R2)), suspect)
    judge = Judge(me=me, sights=sights, ran_for=ran_for, power_on=power_on)
    return judge_osds(judge, suspect, stalled, TIMERS, owns=owns)


def test_in_a_stall_the_majority_s_silence_is_enough_and_power_may_go() -> None:
    found = verdict()
    assert isinstance(found, Gone)
    assert found.power
    assert "as r1, r2 report" in found.reason
    assert "the store has not answered for 3.0 s" in found.reason


def test_while_the_store_answers_the_lease_must_stand_still_too_and_power_stays() -> None:
    assert verdict(stalled=0.5) == Unharmed(reason="its lease changes")
    assert verdict(replace(R3, lease_age=3.5), stalled=0.5) == Gone(
        reason="silent on the mesh for 3.2 s (as r1, r2 report), and its lease stands still"
    )


def test_a_node_without_vms_keeps_its_power() -> None:
    found = verdict(owns=False)
    assert isinstance(found, Gone)
    assert not found.power


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (verdict(replace(R3, heard=2.9)), ""),
        (verdict(replace(R3, heard=None)), ""),
        (verdict(R2, R1), ""),
        (verdict(replace(R3, refused=1.0)), "it is alive"),
        (verdict(replace(R3, lease=STOPPED)), "orderly"),
        (verdict(power_on=False), "power is Off"),
        (verdict(ran_for=2.0), "has itself run for 2.0 s"),
        (verdict(R3, R1, there("r2", hears=("r1", "r3"))), "only 1 of the nodes (r1)"),
        (verdict(R3, R1, there("r2", hears=("r1",), sequence=3)), "only 1 of the nodes (r1)"),
        (verdict(R3, R1), "only 1 of the nodes (r1)"),
        (verdict(me="r2"), "r1 tells Ceph"),
    ],
)
def test_nobody_is_harmed_by_less(found: OsdVerdict, why: str) -> None:
    assert isinstance(found, Unharmed)
    assert why in found.reason


def test_the_next_in_rank_speaks_when_the_first_is_the_silent_one() -> None:
    silent = replace(there("r1"), heard=3.2)
    judge = Judge(
        me="r2", sights=(silent, there("r2", hears=("r3",)), there("r3", hears=("r2",))), ran_for=60.0
    )
    assert isinstance(judge_osds(judge, silent, STALL, TIMERS, owns=True), Gone)
    other = replace(judge, me="r3")
    assert judge_osds(other, silent, STALL, TIMERS, owns=True) == Unharmed(reason="r2 tells Ceph")


def test_osds_are_found_by_their_address_and_shared_addresses_are_nobody_s() -> None:
    known = {
        0: frozenset({"10.0.0.1"}),
        1: frozenset({"10.0.0.3", "10.1.0.3"}),
        2: frozenset({"10.0.0.3", "10.0.0.1"}),
        3: frozenset({"10.1.0.3"}),
    }
    assert osds_of(["10.0.0.3", "10.1.0.3"], ["10.0.0.1", "10.0.0.2"], known) == (1, 3)
    assert osds_of([], ["10.0.0.1"], known) == ()


def test_an_osd_that_comes_up_again_and_again_is_left_alone_for_a_while() -> None:
    assert not too_often([0.0, 10.0], 20.0)
    assert too_often([0.0, 10.0, 20.0], 30.0)
    assert not too_often([0.0, 10.0, 20.0], 5.0 + PERIOD)
    assert MOST < 5, "Ceph's OSDs end after five in ten minutes"


def test_only_an_agent_or_a_person_proves_that_nothing_of_it_serves_any_more() -> None:
    record = FenceRecord(
        id="i",
        node="r3",
        incident="r3-5",
        cause=FenceCause.SILENT,
        reason="silent",
        epoch=1,
        session=5,
        boot_id="b",
        machine_id="m",
        began="",
    )
    assert not definitely_dead(None)
    assert not definitely_dead(record)
    expired = WatchdogExpired(device="/dev/watchdog", seconds=9)
    assert not definitely_dead(replace(record, watchdog=(expired,)))
    assert definitely_dead(replace(record, powered_off=(PoweredOff(agent="fence_x"),)))
    assert definitely_dead(
        replace(record, confirmed=(ConfirmedDown(incident="r3-5", boot_id="b", by="ann"),))
    )
