"""How many migrations are under way at once, which go first, and where to."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.planning.demands import NodeView, VmDemand
from reconciler.planning.migration_turns import (
    choose_target,
    in_order,
    migration_name,
    target_problem,
    turn_of,
)
from reconciler.resources.infrastructure import MigrationPolicy
from reconciler.resources.kinds import valid_name
from reconciler.resources.migrations import MigrationPhase, MigrationRecord

GIB = 2**30


def record(id: str, source: str = "r1", target: str = "r2", phase: str = "Running") -> MigrationRecord:
    return MigrationRecord(
        id=id, vm=id, uid="u", source=source, target=target, phase=MigrationPhase(phase), requested=f"t-{id}"
    )


NEW = record("new", phase="Pending")


@pytest.mark.parametrize(
    ("busy", "says"),
    [
        ([], ""),
        ([record("a")], ""),
        ([record("a"), record("b", target="r3")], "2 migrations are leaving node r1 (migration.outgoing)"),
        ([record("a", source="r3"), record("b", source="r4")], "2 migrations are on the way to node r2"),
        ([record(n, f"r{n}", f"s{n}") for n in "3456"], "4 migrations are under way"),
        ([record("a", phase="Pending"), record("b", phase="Succeeded"), record("c", phase="Failed")], ""),
        ([NEW], ""),
    ],
)
def test_no_more_go_at_once_than_the_setting_says(busy: list[MigrationRecord], says: str) -> None:
    said = turn_of(NEW, busy, MigrationPolicy())
    assert said.startswith("it waits for its turn: ") if says else not said
    assert says in said


def test_the_important_go_first_then_who_asked_first() -> None:
    waiting = [record("b", phase="Pending"), record("a", phase="Pending"), record("c", phase="Pending")]
    going = record("z")
    found = in_order([*waiting, going], {"c": 5})
    assert [each.id for each in found] == ["z", "c", "a", "b"]


def node(name: str, **changes: object) -> NodeView:
    base = NodeView(name=name, cpu=8, memory=8 * GIB, controllers=frozenset({"dummy"}), labels={"node": name})
    return replace(base, **changes)  # type: ignore[arg-type]


def vm(name: str, on: str, memory: int = GIB) -> VmDemand:
    return VmDemand(name=name, cpu=1, memory=memory, controller="dummy", node=on)


def test_the_planner_chooses_and_never_the_node_where_it_is() -> None:
    nodes = [node("r1"), node("r2"), node("r3")]
    assert choose_target(nodes, [vm("web", "r1"), vm("db", "r2")], [], "web") == ("r3", "")
    assert choose_target(nodes[:1], [vm("web", "r1")], [], "web")[0] == ""


def test_a_node_that_is_asked_for_has_to_take_it() -> None:
    nodes = [node("r1"), node("r2", memory=GIB), node("r3", refuses="cordoned (unschedulable)")]
    demands = [vm("web", "r1", 2 * GIB)]
    assert choose_target(nodes, demands, [], "web", "r1") == ("", "it is on node r1 already")
    assert choose_target(nodes, demands, [], "web", "r9") == ("", "there is no node 'r9'")
    assert "node r2 does not take it: " in choose_target(nodes, demands, [], "web", "r2")[1]
    assert "cordoned" in choose_target(nodes, demands, [], "web", "r3")[1]
    assert choose_target(nodes, demands, [], "db")[1] == "it does not run"
    assert choose_target([node("r1"), node("r2")], demands, [], "web", "r2") == ("r2", "")


def test_a_target_that_takes_nothing_any_more_is_named() -> None:
    nodes = [node("r1"), node("r2", refuses="in maintenance")]
    assert target_problem(NEW, nodes) == "node r2 takes no VMs: in maintenance"
    assert target_problem(NEW, nodes[:1]) == "node r2 is not known"
    assert target_problem(NEW, [node("r1"), node("r2")]) == ""


@pytest.mark.parametrize("name", ["web", "a" * 63, "x" * 53 + "-.y"])
def test_a_name_is_one_and_its_own(name: str) -> None:
    found = migration_name(name, "seed")
    assert valid_name(found)
    assert found == migration_name(name, "seed") != migration_name(name, "another")
