"""Who leaves a drained node, how, and who waits for what; and the record of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.planning.demands import NodeView, VmDemand
from reconciler.planning.drains import drain_status
from reconciler.planning.eviction import (
    NEXT,
    PAUSED,
    STAYS,
    Evictions,
    Guest,
    Held,
    Move,
    Way,
    plan_evictions,
    way_of,
)
from reconciler.planning.node_intents import InForce
from reconciler.resources.infrastructure import NodeSpec
from reconciler.resources.status import DrainWait, NodeMasterStatus
from reconciler.resources.virtualmachine import EvictionStrategy

GIB = 2**30
R1, R2, R3 = (NodeView(name=name, cpu=32, memory=8 * GIB) for name in ("r1", "r2", "r3"))
DRAINED = replace(R1, refuses="cordoned", leaving=True)
IF_POSSIBLE = EvictionStrategy.LIVE_MIGRATE_IF_POSSIBLE


def guest(
    name: str,
    node: str | None = "r1",
    gib: int = 1,
    *,
    strategy: EvictionStrategy = EvictionStrategy.STOP,
    priority: int = 0,
    leaving: str | None = None,
    paused: bool = False,
    immovable: str = "",
    selector: dict[str, str] | None = None,
) -> Guest:
    demand = VmDemand(
        name=name, cpu=1, memory=gib * GIB, priority=priority, node=node, node_selector=selector or {}
    )
    if leaving:
        demand = replace(demand, fixed="it is on its way")
    return Guest(demand=demand, strategy=strategy, paused=paused, immovable=immovable, leaving=leaving)


@pytest.mark.parametrize(
    ("strategy", "immovable", "paused", "way"),
    [
        (EvictionStrategy.STOP, "", False, (Way.RESTART, "")),
        (EvictionStrategy.STOP, "", True, (None, PAUSED)),
        (EvictionStrategy.NONE, "", False, (None, STAYS)),
        (EvictionStrategy.LIVE_MIGRATE, "", True, (Way.MIGRATE, "")),
        (
            EvictionStrategy.LIVE_MIGRATE,
            "its disk is on r1",
            False,
            (None, "it cannot be migrated: its disk is on r1"),
        ),
        (IF_POSSIBLE, "", False, (Way.MIGRATE, "")),
        (IF_POSSIBLE, "it has a local disk", False, (Way.RESTART, "")),
        (IF_POSSIBLE, "it has a local disk", True, (None, PAUSED)),
    ],
)
def test_a_vm_leaves_as_its_strategy_says(
    strategy: EvictionStrategy, immovable: str, paused: bool, way: tuple[Way | None, str]
) -> None:
    assert way_of(guest("web", strategy=strategy, immovable=immovable, paused=paused)) == way


def test_what_was_migrated_in_vain_is_restarted_only_if_its_strategy_lets_it() -> None:
    for strategy, way in (
        (EvictionStrategy.LIVE_MIGRATE, Way.MIGRATE),
        (EvictionStrategy.LIVE_MIGRATE_IF_POSSIBLE, Way.RESTART),
    ):
        assert way_of(replace(guest("web", strategy=strategy), failed="it took too long")) == (way, "")


def test_nothing_moves_while_no_node_is_drained() -> None:
    assert plan_evictions([R1, R2], [guest("web")], []) == Evictions()


def test_each_leaves_for_a_node_with_room_the_important_first() -> None:
    found = plan_evictions([DRAINED, R2, R3], [guest("a"), guest("b", priority=5), guest("c", "r2")], [])
    assert [(m.vm, m.source, m.way) for m in found.moves] == [
        ("b", "r1", Way.RESTART),
        ("a", "r1", Way.RESTART),
    ]
    assert {m.target for m in found.moves} <= {"r2", "r3"}
    assert found.held == ()


def test_who_finds_no_place_stays_and_is_told_why() -> None:
    found = plan_evictions([DRAINED, R2], [guest("big", gib=6), guest("other", "r2", gib=4)], [])
    assert found.moves == ()
    assert found.held == (
        Held(vm="big", node="r1", reason="no other node takes it: r2: memory 2Gi short (4Gi free)"),
    )
    alone = plan_evictions([DRAINED], [guest("web")], [])
    assert [held.reason for held in alone.held] == ["there is no other node"]


def test_nothing_else_is_moved_to_make_room() -> None:
    crowd = [guest("big", gib=6), guest("x", "r2", gib=4), guest("y", "r3", gib=4)]
    assert plan_evictions([DRAINED, R2, R3], crowd, []).moves == ()


def test_only_so_many_leave_at_once() -> None:
    crowd = [*(guest(f"vm{number}") for number in range(5)), guest("gone", "r2", leaving="r1")]
    found = plan_evictions([replace(DRAINED, parallel=3), R2, R3], crowd, [])
    assert [move.vm for move in found.moves] == ["vm0", "vm1"]
    assert [(held.vm, held.reason) for held in found.held] == [(f"vm{n}", NEXT) for n in (2, 3, 4)]


def test_who_is_being_stopped_already_is_left_alone() -> None:
    stopping = guest("web")
    stopping = replace(stopping, demand=replace(stopping.demand, going=True))
    assert plan_evictions([DRAINED, R2], [stopping], []) == Evictions()


def test_those_that_went_come_back_when_there_is_room() -> None:
    home = replace(R1, recalls=frozenset({"a", "b", "wide", "gone", "here"}))
    crowd = [
        guest("a", "r2", priority=1),
        guest("b", "r3", selector={"node": "r3"}),
        guest("wide", "r2", gib=9),
        guest("here", "r1"),
        guest("other", "r2"),
    ]
    found = plan_evictions([home, R2, R3], crowd, [])
    assert found.moves == (
        Move(vm="a", source="r2", target="r1", way=Way.RESTART, reason="it left r1 for a drain"),
    )
    assert [held.vm for held in found.held] == ["b", "wide"]
    assert all(held.reason.startswith("it cannot go back: ") for held in found.held)


def test_nothing_comes_back_to_a_node_that_takes_nothing() -> None:
    closed = replace(R1, recalls=frozenset({"a"}), refuses="not ready")
    assert plan_evictions([closed, R2], [guest("a", "r2")], []) == Evictions()


def record(asked: InForce, before: NodeMasterStatus | None, *guests: Guest) -> NodeMasterStatus | None:
    nodes = [DRAINED if asked.drain else R1, R2]
    return drain_status("r1", before, asked, guests, plan_evictions(nodes, guests, []), "now")


DRAIN = InForce(spec=NodeSpec(unschedulable=True), drain="id1")
OVER = InForce(spec=NodeSpec())


def test_a_drain_is_recorded_from_its_beginning_to_its_end() -> None:
    began = record(DRAIN, None, guest("web"), guest("kept", strategy=EvictionStrategy.NONE))
    assert began == NodeMasterStatus(
        uid="r1",
        drain="id1",
        started="now",
        away=("web",),
        waiting=(
            DrainWait(vm="kept", reason=STAYS),
            DrainWait(vm="web", reason="it goes to r2", going=True),
        ),
    )
    assert record(DRAIN, began, guest("web", "r2", leaving="r1"))
    done = record(DRAIN, began, guest("web", "r2"))
    assert done == replace(began, finished="now", waiting=())
    assert record(OVER, done, guest("web", "r2")) == replace(done, away=())


def test_a_drain_that_was_not_finished_was_cancelled() -> None:
    began = NodeMasterStatus(uid="r1", drain="id1", started="then", away=("web",))
    over = record(OVER, began, guest("web", "r2"))
    assert over == replace(began, finished="now", cancelled=True, away=())
    again = record(DRAIN, over, guest("web", "r2"))
    assert again is not None
    assert (again.started, again.cancelled) == ("now", False)


def test_who_is_back_or_does_not_run_any_more_is_not_awaited() -> None:
    began = NodeMasterStatus(uid="r1", drain="id1", started="then", finished="then", away=("a", "b", "c"))
    back = replace(OVER, bring_back=True)
    found = record(back, began, guest("a"), guest("c", "r2"))
    assert found == replace(began, away=("c",))


def test_a_node_that_was_never_drained_has_no_record() -> None:
    assert record(OVER, None, guest("web")) is None
