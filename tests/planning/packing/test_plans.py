"""The planner by name: fill, repair, balance, eviction, and the words for all of it."""

from __future__ import annotations

from dataclasses import replace

from reconciler.planning.demands import FailedOn, NamedConstraint, NodeView, VmDemand
from reconciler.planning.packing.plans import (
    Balancing,
    Kind,
    Mode,
    Policy,
    losses_of,
    plan,
    refusals_of,
    told,
)
from reconciler.resources.codec import decode
from reconciler.resources.infrastructure import Taint
from reconciler.resources.placementconstraint import PlacementConstraintSpec

GIB = 2**30
NODES = [NodeView(name=f"r{n}", cpu=8, memory=16 * GIB, labels={"rack": f"k{n % 2}"}) for n in (1, 2, 3)]
R1, R2, R3 = NODES
FULL = Policy(balancing=Balancing(mode=Mode.FULL))


def vm(name: str, node: str | None = None, **changes: object) -> VmDemand:
    base = VmDemand(name=name, cpu=2, memory=4 * GIB, node=node, labels={"app": "web"})
    return replace(base, **changes)  # type: ignore[arg-type]


def rule(type_: str, **more: object) -> NamedConstraint:
    spec = decode(PlacementConstraintSpec, {"type": type_, "vms": {"matchLabels": {"app": "web"}}, **more})
    return NamedConstraint(name=f"web-{type_.lower()}", spec=spec)


def test_vms_are_spread_over_the_nodes() -> None:
    found = plan(NODES, [vm(name) for name in "abc"], [])
    assert sorted(filter(None, found.where.values())) == ["r1", "r2", "r3"]
    assert all(step.kind is Kind.PLACE for step in found.steps)


def test_who_gets_no_place_is_told_why_by_node() -> None:
    big = vm("big1", "r1", memory=13 * GIB, labels={})
    nodes = [R1, R2, replace(R3, refuses="in maintenance")]
    web2 = vm("web2", "r2")
    found = plan(nodes, [big, web2, vm("web1")], [rule("AntiAffinity")], Policy(repair=False))
    assert told(found.refused["web1"]) == (
        "r1: memory 1Gi short (3Gi free); r2: apart from web2 (web-antiaffinity); r3: in maintenance"
    )


def test_all_that_keeps_a_node_from_taking_a_vm_is_told_what_is_hardest_to_change_first() -> None:
    full = vm("full", "r1", cpu=7, memory=13 * GIB)
    nodes = [replace(R1, refuses="in maintenance", taints=(Taint(key="gpu"),))]
    avoid = rule("NodeAntiAffinity", nodes={"names": ["r1"]})
    found = plan(nodes, [full, vm("web1")], [rule("AntiAffinity"), avoid], Policy(repair=False))
    assert told(found.refused["web1"]) == (
        "r1: in maintenance, taint gpu is not tolerated, among the nodes to avoid (web-nodeantiaffinity), "
        "apart from full (web-antiaffinity), memory 1Gi short (3Gi free), 1 vCPU short (1 free)"
    )


def test_of_nodes_that_refuse_alike_the_one_with_fewest_other_reasons_is_named() -> None:
    taint = (Taint(key="gpu"),)
    nodes = [replace(R1, name=f"n{number:02}", memory=GIB, taints=taint) for number in range(30)]
    nodes[7] = replace(nodes[7], memory=8 * GIB)
    refused = plan(nodes, [vm("a")], []).refused["a"]
    assert told(refused) == "n07 and 29 more: taint gpu is not tolerated"


def test_many_nodes_that_refuse_alike_are_told_together() -> None:
    nodes = [replace(R1, name=f"n{number:02}", memory=number * GIB // 10) for number in range(30)]
    assert told(plan(nodes, [vm("a")], []).refused["a"]) == "n29 and 29 more: memory 1.1Gi short (2.9Gi free)"


def test_with_nothing_violated_nothing_is_moved() -> None:
    assert plan(NODES, [vm(name, "r1") for name in "abc"], []).steps == ()


def test_of_two_that_must_be_apart_one_moves() -> None:
    steps = plan(NODES, [vm("a", "r1"), vm("b", "r1"), vm("c", "r2")], [rule("AntiAffinity")]).steps
    assert [(step.kind, step.target) for step in steps] == [(Kind.MOVE, "r3")]


def test_who_cannot_be_moved_stays_and_the_other_goes() -> None:
    vms = [vm("a", "r1"), vm("b", "r1", fixed="a migration runs")]
    assert [step.vm for step in plan(NODES, vms, [rule("AntiAffinity")]).steps] == ["a"]


def test_an_over_full_node_gives_up_the_fewest() -> None:
    vms = [vm("a", "r1", memory=12 * GIB), vm("b", "r1", memory=2 * GIB), vm("c", "r1", memory=4 * GIB)]
    assert [step.vm for step in plan(NODES, vms, []).steps] == ["b"]


def test_a_node_that_is_left_is_emptied_and_those_that_belong_together_go_together() -> None:
    nodes = [replace(R1, leaving=True, refuses="is drained"), R2, R3]
    vms = [vm("a", "r1"), vm("b", "r1"), vm("c", "r1", labels={})]
    steps = plan(nodes, vms, [rule("Affinity")]).steps
    turns = {step.vm: step.turn for step in steps}
    assert turns["a"] == turns["b"] != turns["c"]
    assert len({step.target for step in steps if step.vm in "ab"}) == 1


def test_who_cannot_leave_a_drained_node_stays_and_is_told_why() -> None:
    nodes = [replace(R1, leaving=True, refuses="is drained"), replace(R2, memory=GIB)]
    found = plan(nodes, [vm("a", "r1")], [])
    assert found.steps == ()
    assert told(found.stays["a"]) == "r2: memory 3Gi short (1Gi free)"


def test_room_is_made_by_moving_one_that_fits_elsewhere() -> None:
    vms = [vm("a", "r1", memory=10 * GIB), vm("b", "r2", memory=10 * GIB), vm("c", "r1")]
    vms += [vm("d", "r3", memory=9 * GIB), vm("big", memory=7 * GIB)]
    nodes = [replace(node, memory=14 * GIB) for node in NODES]
    nodes[1] = replace(R2, memory=14 * GIB)
    found = plan(nodes, [*vms, vm("e", "r3", memory=2 * GIB)], [])
    assert found.refused.keys() == {"big"}
    roomier = plan(
        [*nodes[:2], replace(nodes[2], memory=16 * GIB)], [*vms, vm("e", "r3", memory=2 * GIB)], []
    )
    assert [(s.kind, s.vm) for s in roomier.steps] == [(Kind.MOVE, "e"), (Kind.PLACE, "big")]


def test_as_many_are_moved_as_a_drain_of_a_full_cluster_needs() -> None:
    """Each fits only where the next one is: five others have to move, the last one first."""
    nodes = [NodeView(name=f"r{n}", cpu=100, memory=(13 - n) * GIB) for n in range(7)]
    nodes[0] = replace(nodes[0], leaving=True, refuses="is drained")
    chain = [vm(f"v{n}", f"r{n}", cpu=1, memory=(12 - n) * GIB) for n in range(6)]
    found = plan(nodes, chain, [])
    assert found.where == {f"v{n}": f"r{n + 1}" for n in range(6)}
    assert [step.vm for step in found.steps] == ["v5", "v4", "v3", "v2", "v1", "v0"]


def test_a_vm_takes_along_those_that_it_must_be_with() -> None:
    """The first is placed by its priority where the second, which needs rack k0, could not follow."""
    vms = [vm("first", priority=5), vm("second", node_selector={"rack": "k0"})]
    found = plan(NODES, vms, [rule("Affinity")], Policy(repair=False))
    assert found.where == {"first": "r2", "second": "r2"}


def test_who_was_moved_to_make_room_and_need_not_be_stays() -> None:
    vms = [vm("a", "r1", memory=6 * GIB), vm("b", "r2", memory=6 * GIB), vm("c", "r3", memory=6 * GIB)]
    found = plan(NODES, [*vms, vm("d", memory=10 * GIB), vm("e", memory=10 * GIB)], [])
    assert found.refused == {}
    assert all(step.kind is Kind.PLACE for step in found.steps)


def test_a_vm_on_a_node_of_which_nothing_is_known_is_left_alone() -> None:
    found = plan(NODES, [vm("a", "r9"), vm("b")], [rule("Affinity")])
    assert found.steps == ()
    assert "together with a on r9" in told(found.refused["b"])


def test_spread_counts_domains_by_label() -> None:
    vms = [vm("a", "r1"), vm("b", "r3"), vm("c")]
    spread = rule("Spread", topologyKey="rack", maxSkew=1)
    assert plan(NODES, vms, [spread], Policy(repair=False)).where == {"c": "r2"}


def test_preferred_constraints_choose_among_nodes_that_fit() -> None:
    soft = rule("NodeAffinity", enforcement="Preferred", nodes={"names": ["r2"]})
    vms = [vm("x", "r2", labels={}), vm("a")]
    assert plan(NODES, vms, [soft]).where == {"a": "r2"}


def test_only_preemption_stops_what_runs_and_only_the_lower() -> None:
    low = [vm(f"low{n}", f"r{n}", memory=16 * GIB, priority=n) for n in (1, 2, 3)]
    high = vm("high", memory=16 * GIB, priority=2)
    assert plan(NODES, [*low, high], []).steps == ()
    found = plan(NODES, [*low, replace(high, preemption=True)], [])
    assert [(s.kind, s.vm, s.source, s.target, s.awaits) for s in found.steps] == [
        (Kind.EVICT, "low1", "r1", None, ()),
        (Kind.PLACE, "high", None, "r1", ("low1",)),
    ]


def test_a_vm_is_tried_where_it_failed_only_when_it_is_nowhere_and_fits_nowhere_else() -> None:
    failed = {"r1": FailedOn(count=3, why="it failed there"), "r2": FailedOn(count=4, why="there, too")}
    assert plan(NODES, [vm("a", failed=failed)], []).where == {"a": "r3"}
    assert plan(NODES[:2], [vm("a", failed=failed)], []).where == {"a": "r1"}
    assert plan(NODES[:2], [vm("a", "r2", failed=failed, leaves=True)], []).steps == ()


def test_balance_moves_few_and_stops_when_it_is_not_worth_it() -> None:
    vms = [vm(name, "r1") for name in "abcd"]
    found = plan(NODES, vms, [], FULL)
    assert [step.target for step in found.steps].count("r1") == 0
    assert 1 < len(found.steps) < 4
    assert found.uneven[1] < found.uneven[0] / 4
    assert plan(NODES, [replace(v, node=found.where.get(v.name, v.node)) for v in vms], [], FULL).steps == ()


def test_balance_lets_vms_change_places_where_no_single_move_is_worth_it() -> None:
    vms = [vm(name, "r1", cpu=1, memory=6 * GIB) for name in "ab"]
    vms += [vm("c", "r2", cpu=1, memory=5 * GIB), vm("d", "r2", cpu=1, memory=3 * GIB)]
    found = plan(NODES[:2], vms, [], FULL)
    assert {(step.source, step.target) for step in found.steps} == {("r1", "r2"), ("r2", "r1")}
    assert found.uneven[1] < found.uneven[0] / 3
    one_only = Policy(balancing=Balancing(mode=Mode.FULL, most=1))
    assert plan(NODES[:2], vms, [], one_only).steps == ()


def test_partial_balances_only_what_is_too_full_and_held_vms_stay() -> None:
    vms = [vm(name, "r1") for name in "abc"]
    partly = Policy(balancing=Balancing(mode=Mode.PARTIAL))
    assert plan(NODES, vms, [], partly).steps == ()
    full = [*vms, vm("d", "r1")]
    assert len(plan(NODES, full, [], partly).steps) == 1
    held = Policy(balancing=Balancing(mode=Mode.PARTIAL, held=frozenset("abcd")))
    assert plan(NODES, full, [], held).steps == ()


def test_losses_tell_who_would_have_no_place() -> None:
    vms = [vm("a", "r1", memory=10 * GIB), vm("b", "r2", memory=10 * GIB), vm("c", "r3", memory=4 * GIB)]
    assert losses_of(NODES, vms, []) == {"r1": (), "r2": (), "r3": ()}
    assert losses_of(NODES, [*vms, vm("d", "r3", memory=3 * GIB)], [])["r1"] == ("a",)


def test_refusals_of_a_placed_vm_tell_where_else_it_could_go() -> None:
    vms = [vm("a", "r1"), vm("b", "r2", memory=14 * GIB)]
    assert {n: why.words for n, why in refusals_of(NODES, vms, [], "a").items()} == {
        "r2": "memory 2Gi short (2Gi free)"
    }
