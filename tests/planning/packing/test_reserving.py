"""N+1: what gets a place gets it so that any one node may be lost, unless that costs what comes before."""

from __future__ import annotations

from dataclasses import replace

from reconciler.planning.demands import NamedConstraint, NodeView, VmDemand
from reconciler.planning.packing.plans import Balancing, Mode, Plan, Policy, losses_of, plan
from reconciler.resources.codec import decode
from reconciler.resources.placementconstraint import PlacementConstraintSpec

GIB = 2**30
NODES = [NodeView(name=f"r{n}", cpu=64, memory=8 * GIB) for n in (1, 2, 3)]
FULL = Policy(balancing=Balancing(mode=Mode.FULL))


def vm(name: str, gib: int, node: str | None = None) -> VmDemand:
    return VmDemand(name=name, cpu=1, memory=gib * GIB, node=node, labels={"app": name[0]})


def apart(enforcement: str) -> NamedConstraint:
    spec = {
        "type": "AntiAffinity",
        "vms": {"matchLabels": {"app": "s"}},
        "enforcement": enforcement,
        **({"weight": 10} if enforcement == "Preferred" else {}),
    }
    return NamedConstraint(name="apart", spec=decode(PlacementConstraintSpec, spec))


def after(vms: list[VmDemand], found: Plan) -> list[VmDemand]:
    return [replace(each, node=found.where.get(each.name, each.node)) for each in vms]


def homeless(vms: list[VmDemand], *constraints: NamedConstraint) -> list[str]:
    return sorted(name for left in losses_of(NODES, vms, constraints).values() for name in left)


BIG = vm("big", 6, "r1")
NEW = [BIG, vm("s1", 3), vm("s2", 3)]
"""Evenly spread, the small ones leave 5 GiB on two nodes each, and the big one would fit on neither."""


def test_what_is_new_leaves_room_for_the_largest_that_could_lose_its_node() -> None:
    assert homeless([BIG, vm("s1", 3, "r2"), vm("s2", 3, "r3")]) == ["big"]
    found = plan(NODES, NEW, [])
    assert found.where["s1"] == found.where["s2"] != "r1"
    assert homeless(after(NEW, found)) == []


def test_nothing_that_runs_is_moved_for_it_by_a_plan_that_fills() -> None:
    vms = [BIG, vm("s1", 3, "r2"), vm("s2", 3, "r3"), vm("t", 1)]
    found = plan(NODES, vms, [], Policy(balancing=Balancing(mode=Mode.MANUAL)))
    assert list(found.where) == ["t"]


def test_a_preferred_constraint_comes_before_it() -> None:
    found = plan(NODES, NEW, [apart("Preferred")])
    assert found.where["s1"] != found.where["s2"]


def test_a_required_one_too() -> None:
    found = plan(NODES, NEW, [apart("Required")])
    assert found.where["s1"] != found.where["s2"]


def test_balancing_begins_with_it_and_gives_it_up_for_nothing() -> None:
    vms = [BIG, vm("s1", 3, "r2"), vm("s2", 3, "r3")]
    found = plan(NODES, vms, [], FULL)
    assert [(step.vm, step.reason) for step in found.steps] == [("s1", "so that any one node may be lost")]
    assert homeless(after(vms, found)) == []
    assert plan(NODES, after(vms, found), [], FULL).steps == ()


def test_off_nodes_that_are_too_full_nothing_is_moved_for_it() -> None:
    partial = Policy(balancing=Balancing(mode=Mode.PARTIAL))
    assert plan(NODES, [BIG, vm("s1", 3, "r2"), vm("s2", 3, "r3")], [], partial).steps == ()
