"""How many more VMs fit, with and without a node in reserve."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from reconciler.planning.headroom import MOST, Cluster, Lost, headroom, losses
from reconciler.planning.placement import NamedConstraint, NodeView, VmDemand
from reconciler.resources.codec import decode
from reconciler.resources.placementconstraint import PlacementConstraintSpec

GIB = 2**30
NODES = tuple(NodeView(name=name, cpu=16, memory=8 * GIB) for name in ("r1", "r2", "r3"))
SMALL = VmDemand(name="small", cpu=1, memory=2 * GIB)


def vm(name: str, node: str | None, memory: int = 2, **more: Any) -> VmDemand:
    return VmDemand(name=name, cpu=1, memory=memory * GIB, node=node, **more)


def cluster(*vms: VmDemand, rules: tuple[NamedConstraint, ...] = ()) -> Cluster:
    return Cluster(nodes=NODES, vms=vms, constraints=rules)


def rule(kind: str, **spec: Any) -> NamedConstraint:
    return NamedConstraint(name="rule", spec=decode(PlacementConstraintSpec, {"type": kind, **spec}))


def test_an_empty_cluster_keeps_a_node_free() -> None:
    found = headroom(cluster(), SMALL)
    assert (found.fit, found.with_reserve, found.more) == (12, 8, False)
    assert found.then is not None
    assert len(found.then.vms) == 1
    assert [r.node for r in found.next] == ["r1", "r2", "r3"]
    assert "memory 2Gi short" in found.next[0].reason


def test_what_is_there_takes_up_room_and_so_does_what_waits() -> None:
    assert headroom(cluster(vm("a", "r1", 4), vm("b", None, 4)), SMALL).fit == 8


def test_a_cluster_that_survives_no_loss_has_no_room_in_reserve_and_says_why() -> None:
    full = cluster(vm("a", "r1", 6), vm("b", "r2", 6), vm("c", "r3", 6))
    found = headroom(full, SMALL)
    assert (found.fit, found.with_reserve) == (3, 0)
    assert found.short == (
        Lost(node="r1", vms=("a",)),
        Lost(node="r2", vms=("b",)),
        Lost(node="r3", vms=("c",)),
    )
    assert found.then == found.short[0]


def test_a_vm_that_can_run_nowhere_else_is_told_and_not_held_against_the_reserve() -> None:
    found = headroom(cluster(vm("a", "r1", homes=("r1",))), SMALL)
    assert found.pinned == (Lost(node="r1", pinned=("a",)),)
    assert found.with_reserve == 7


def test_constraints_on_labels_count_for_more_of_the_same() -> None:
    apart = rule("AntiAffinity", vms={"matchLabels": {"app": "web"}})
    web = replace(SMALL, name="web", labels={"app": "web"})
    found = headroom(cluster(replace(web, node="r1"), rules=(apart,)), web)
    assert (found.fit, found.with_reserve) == (2, 1)
    assert "apart from" in found.next[0].reason


def test_more_than_anybody_wants_to_know_is_not_counted() -> None:
    huge = Cluster(nodes=(NodeView(name="r1", cpu=9e9, memory=2**60),), vms=(), constraints=())
    found = headroom(huge, replace(SMALL, memory=1))
    assert (found.fit >= MOST, found.more, found.with_reserve) == (True, True, 0)


def test_counting_ends_when_nobody_wants_to_know_any_more() -> None:
    looks = iter([False, False, True, True, True])
    assert headroom(cluster(), SMALL, lambda: next(looks, True)).fit < 12


def test_a_node_without_vms_may_be_lost() -> None:
    assert losses(cluster(vm("a", "r1"))) == ()
