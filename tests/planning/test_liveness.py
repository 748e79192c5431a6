"""What may be concluded about a node from what is heard of it."""

from __future__ import annotations

import pytest

from reconciler.planning.liveness import (
    Sight,
    Standing,
    judge,
    majority,
    mesh_peers,
    ordered,
    seen,
)
from reconciler.planning.timers import Timers
from reconciler.resources.membership import Heartbeat, Member, NodeHealth, NodeLease

TIMERS = Timers()


def lease(*, stopped: bool = False) -> NodeLease:
    return NodeLease(node="r2", boot_id="b", session=1, renewals=7, stopped=stopped)


def sight(**fields: object) -> Sight:
    return Sight(name="r2", rank=1, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("found", "standing", "words"),
    [
        (sight(heard=0.4, lease=lease(), lease_age=1.0), Standing.READY, ""),
        (sight(heard=0.4, lease=lease(), lease_age=9.0), Standing.DEGRADED, "silent in the store for 9.0 s"),
        (sight(heard=0.4), Standing.DEGRADED, "has no lease in the store"),
        (sight(heard=8.0, lease=lease(), lease_age=1.0), Standing.DEGRADED, "silent on the mesh for 8.0 s"),
        (sight(heard=8.0, lease=lease(), lease_age=9.0), Standing.SILENT, "silent on the mesh for 8.0 s"),
        (
            sight(heard=8.0, lease=lease(), lease_age=9.0, refused=2.0),
            Standing.DEGRADED,
            "its daemon is not running",
        ),
        (
            sight(heard=8.0, lease=lease(stopped=True), lease_age=9.0),
            Standing.STOPPED,
            "its daemon was stopped; its guests run on",
        ),
        (sight(), Standing.UNKNOWN, "never heard of"),
    ],
)
def test_a_node_is_judged_by_both_channels(found: Sight, standing: Standing, words: str) -> None:
    judgement = judge("r1", found, TIMERS)
    assert judgement.standing is standing
    assert words in judgement.reason


def test_a_ready_node_s_own_complaints_are_passed_on() -> None:
    beat = Heartbeat(
        node="r2", boot_id="b", session=1, sequence=1, health=NodeHealth(problems=("libvirt is gone",))
    )
    judgement = judge("r1", sight(heard=0.1, heartbeat=beat, lease=lease()), TIMERS)
    assert (judgement.standing, judgement.reason) == (Standing.READY, "libvirt is gone")


def test_a_node_is_ready_to_itself() -> None:
    assert judge("r2", sight(), TIMERS).standing is Standing.READY


def test_the_hierarchy_is_by_rank_and_then_by_name() -> None:
    members = {
        "c": Member(address="", rank=0),
        "b": Member(address="", rank=1),
        "a": Member(address="", rank=1),
    }
    assert ordered(members) == ("c", "a", "b")


def test_up_to_seven_nodes_every_node_links_to_every_other() -> None:
    members = {f"r{number}": Member(address="", rank=number) for number in range(7)}
    assert len(mesh_peers("r6", members)) == 6


def test_in_a_larger_cluster_every_node_links_to_the_first_seven() -> None:
    members = {f"r{number:02}": Member(address="", rank=number) for number in range(50)}
    assert mesh_peers("r30", members) == tuple(f"r{number:02}" for number in range(7))
    assert len(mesh_peers("r03", members)) == 49


@pytest.mark.parametrize(("nodes", "needed"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (50, 26)])
def test_a_majority_is_more_than_half(nodes: int, needed: int) -> None:
    assert majority(nodes) == needed


def test_the_majority_counts_this_node_and_those_it_hears() -> None:
    sights = [Sight(name="r1", rank=0), sight(heard=2.9), Sight(name="r3", rank=2, heard=3.1)]
    assert seen("r1", sights, TIMERS) == ("r1", "r2")


def test_a_node_that_said_that_it_ends_counts_no_more_although_it_was_just_heard() -> None:
    beat = Heartbeat(node="r2", session=1, boot_id="b", sequence=9, eligible=True)
    gone = sight(heard=0.2, heartbeat=beat, lease=lease(stopped=True))
    assert judge("r1", gone, TIMERS).standing is Standing.STOPPED
    assert seen("r1", [Sight(name="r1", rank=0), gone], TIMERS) == ("r1",)


def test_a_node_that_is_heard_again_counts_before_its_new_lease_is_read() -> None:
    beat = Heartbeat(node="r2", session=2, boot_id="b", sequence=1)
    back = sight(heard=0.2, heartbeat=beat, lease=lease(stopped=True))
    assert seen("r1", [Sight(name="r1", rank=0), back], TIMERS) == ("r1", "r2")


def test_a_host_whose_daemon_has_just_connected_is_not_taken_for_silent() -> None:
    back = sight(heard=30.0, lease=lease(), lease_age=30.0, connected=0.1)
    assert judge("r1", back, TIMERS).standing is Standing.DEGRADED
    frozen = sight(heard=30.0, lease=lease(), lease_age=30.0, connected=31.0)
    assert judge("r1", frozen, TIMERS).standing is Standing.SILENT
