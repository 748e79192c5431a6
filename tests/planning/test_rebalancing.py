"""Which move comes now, what a run waits for, and what ends it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.planning.demands import NamedConstraint, NodeView, VmDemand
from reconciler.planning.eviction import Guest
from reconciler.planning.rebalancing import (
    Place,
    Weather,
    advance,
    begun,
    cancelled,
    changes,
    draft,
    obstacle,
    outdated,
)
from reconciler.resources.codec import decode
from reconciler.resources.migrations import MigrationPhase, MigrationRecord
from reconciler.resources.placementconstraint import PlacementConstraintSpec
from reconciler.resources.rebalancing import (
    MoveState,
    RebalanceMove,
    RebalancePhase,
    RebalanceRecord,
    RebalanceScope,
)
from reconciler.resources.virtualmachine import EvictionStrategy

NOW = "2026-01-01T12:00:00Z"
FINE = Weather()
GIB = 1 << 30


def move(vm: str, turn: int, **changes: object) -> RebalanceMove:
    made = RebalanceMove(vm=vm, uid=f"u-{vm}", source="r1", target="r2", turn=turn, reason="")
    return replace(made, **changes)  # type: ignore[arg-type]


def at(node: str, *names: str, still: bool = True) -> dict[str, Place]:
    return {name: Place(uid=f"u-{name}", node=node, still=still) for name in names}


def migration(vm: str, phase: MigrationPhase, message: str = "") -> MigrationRecord:
    return MigrationRecord(
        id=f"m-{vm}", vm=vm, uid=f"u-{vm}", source="r1", target="r2", phase=phase, message=message
    )


RUN = RebalanceRecord(id="a", scope=RebalanceScope.FULL, moves=(move("a", 1), move("b", 1), move("c", 2)))
MOVING = begun(RUN, RUN.moves[:2], {"a": "m-a", "b": "m-b"})


def test_the_moves_of_a_turn_begin_together_and_the_next_when_all_have_arrived() -> None:
    after, due = advance(RUN, at("r1", "a", "b", "c"), {}, FINE, NOW)
    assert [each.vm for each in due] == ["a", "b"]
    assert after == RUN
    under_way = {
        "m-a": migration("a", MigrationPhase.SUCCEEDED),
        "m-b": migration("b", MigrationPhase.RUNNING),
    }
    half = {**at("r2", "a"), **at("r1", "b", "c")}
    after, due = advance(MOVING, half, under_way, FINE, NOW)
    assert ([each.state for each in after.moves], due) == (
        [MoveState.DONE, MoveState.MOVING, MoveState.WAITING],
        (),
    )
    done = {**under_way, "m-b": migration("b", MigrationPhase.SUCCEEDED)}
    after, due = advance(after, {**at("r2", "a", "b"), **at("r1", "c")}, done, FINE, NOW)
    assert [each.vm for each in due] == ["c"]
    last = begun(after, due, {"c": "m-c"})
    ended, due = advance(
        last, at("r2", "a", "b", "c"), {"m-c": migration("c", MigrationPhase.SUCCEEDED)}, FINE, NOW
    )
    assert (ended.phase, ended.finished, due) == (RebalancePhase.SUCCEEDED, NOW, ())


@pytest.mark.parametrize(
    ("weather", "told"),
    [
        (Weather(power_on=False), "the cluster's power is Off"),
        (Weather(fenced=("r3",)), "node r3 is fenced, or about to be"),
        (Weather(absent=("r2",)), "node r2 is not ready"),
        (Weather(leaving=("r2",)), "node r2 is being drained"),
        (Weather(busy=("web",)), "web is on its way to another node"),
    ],
)
def test_nothing_begins_while_anything_is_not_well(weather: Weather, told: str) -> None:
    after, due = advance(RUN, at("r1", "a", "b", "c"), {}, weather, NOW)
    assert (after.phase, after.message, due) == (RebalancePhase.RUNNING, f"it waits: {told}", ())
    assert obstacle(weather) == told
    assert obstacle(FINE) == ""


def test_what_is_under_way_is_waited_for_in_any_weather() -> None:
    both = {"m-a": migration("a", MigrationPhase.RUNNING), "m-b": migration("b", MigrationPhase.RUNNING)}
    after, due = advance(MOVING, at("r1", "a", "b", "c"), both, Weather(fenced=("r3",)), NOW)
    assert (after, due) == (MOVING, ())


def test_a_move_that_fails_ends_the_run_with_its_reason() -> None:
    both = {
        "m-a": migration("a", MigrationPhase.FAILED, "the target has no room"),
        "m-b": migration("b", MigrationPhase.RUNNING),
    }
    after, due = advance(MOVING, at("r1", "a", "b", "c"), both, FINE, NOW)
    assert (after.phase, due) == (RebalancePhase.FAILED, ())
    assert after.message == "a was not moved to r2: the target has no room"
    assert len(after.moves) == 3


@pytest.mark.parametrize("where", [{}, at("r3", "a"), {"a": Place(uid="another", node="r1", still=True)}])
def test_a_vm_that_is_not_where_the_plan_has_it_ends_the_run(where: dict[str, Place]) -> None:
    after, due = advance(RUN, {**where, **at("r1", "b", "c")}, {}, FINE, NOW)
    assert (after.phase, after.message, due) == (
        RebalancePhase.FAILED,
        "a does not run on r1 any more",
        (),
    )


def test_a_vm_that_is_not_at_rest_is_waited_for_and_one_that_went_by_itself_has_arrived() -> None:
    after, due = advance(RUN, {**at("r1", "a", still=False), **at("r1", "b", "c")}, {}, FINE, NOW)
    assert (after.phase, after.message, due) == (
        RebalancePhase.RUNNING,
        "it waits: a is not at rest on r1",
        (),
    )
    after, due = advance(RUN, {**at("r2", "a", "b"), **at("r1", "c")}, {}, FINE, NOW)
    assert [each.vm for each in due] == ["c"]


def test_moves_that_end_where_they_began_change_nothing() -> None:
    back = move("a", 2, source="r2", target="r1")
    assert not changes([move("a", 1), back])
    assert changes([move("a", 1), back, move("b", 3)])
    assert changes([move("a", 1), replace(back, target="r3")])
    assert not changes([])


def test_a_run_that_is_cancelled_is_over() -> None:
    ended = cancelled(MOVING, NOW)
    assert (ended.phase, ended.finished) == (RebalancePhase.CANCELLED, NOW)
    assert ended.moves == MOVING.moves


NODES = [NodeView(name=name, cpu=16, memory=64 * GIB) for name in ("r1", "r2", "r3")]


def guests(count: int) -> list[Guest]:
    return [
        Guest(
            demand=VmDemand(name=f"vm{n}", cpu=2, memory=8 * GIB, controller="dummy", node="r1"),
            strategy=EvictionStrategy.LIVE_MIGRATE_IF_POSSIBLE,
        )
        for n in range(count)
    ]


def test_only_what_can_be_migrated_live_is_moved_and_the_others_are_named() -> None:
    nodes = [replace(node, controllers=frozenset({"dummy"})) for node in NODES]
    some = guests(6)
    uids = {guest.demand.name: "u" for guest in some}
    free = draft(nodes, some, uids, [], RebalanceScope.FULL)
    assert len(free.moves) >= 3
    assert free.kept == {}
    tied = [replace(guest, immovable="it has a host device") for guest in some[:3]] + [
        replace(some[3], strategy=EvictionStrategy.NONE),
        replace(some[4], paused=True),
        some[5],
    ]
    found = draft(nodes, tied, uids, [], RebalanceScope.FULL)
    assert {each.vm for each in found.moves} <= {"vm5"}
    assert set(found.kept) == {"vm0", "vm1", "vm2", "vm3", "vm4"}
    assert found.kept["vm0"] == "it has a host device"


def test_a_repair_moves_nothing_for_balance_and_what_was_moved_rests() -> None:
    nodes = [replace(node, controllers=frozenset({"dummy"})) for node in NODES]
    some = guests(6)
    uids = {guest.demand.name: "u" for guest in some}
    assert draft(nodes, some, uids, [], RebalanceScope.REPAIR).moves == ()
    rested = frozenset(uids)
    assert draft(nodes, some, uids, [], RebalanceScope.FULL, rested).moves == ()


ROOMY = tuple(NodeView(name=name, cpu=16, memory=8 * GIB) for name in ("r1", "r2"))
TO_R2 = (move("a", 1),)


def sized(name: str, node: str, gib: int) -> Guest:
    demand = VmDemand(name=name, cpu=1, memory=gib * GIB, node=node)
    return Guest(demand=demand, strategy=EvictionStrategy.LIVE_MIGRATE)


def test_a_move_to_a_node_that_was_filled_after_the_plan_is_not_made() -> None:
    assert outdated(ROOMY, (sized("a", "r1", 1),), (), TO_R2) == ""
    why = outdated(ROOMY, (sized("a", "r1", 1), sized("new", "r2", 8)), (), TO_R2)
    assert why.startswith("node r2 does not take a any more: memory")


def test_a_rule_that_came_after_the_plan_counts() -> None:
    spec = {"type": "AntiAffinity", "enforcement": "Required", "vms": {"names": ["a", "b"]}}
    apart = NamedConstraint(name="apart", spec=decode(PlacementConstraintSpec, spec))
    now = (sized("a", "r1", 1), sized("b", "r2", 1))
    assert outdated(ROOMY, now, (), TO_R2) == ""
    assert "r2 does not take a any more" in outdated(ROOMY, now, (apart,), TO_R2)


def test_moves_of_one_turn_are_judged_together() -> None:
    now = (sized("a", "r1", 6), sized("b", "r2", 6))
    assert outdated(ROOMY, now, (), (*TO_R2, move("b", 1, source="r2", target="r1"))) == ""
    assert outdated(ROOMY, now, (), TO_R2) != ""
