"""Where VMs go, and why not elsewhere."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.planning.placement import NamedConstraint, NodeView, VmDemand, place
from reconciler.resources.codec import decode
from reconciler.resources.domains import HostNetworks, host_networks
from reconciler.resources.infrastructure import Taint
from reconciler.resources.placementconstraint import PlacementConstraintSpec
from reconciler.resources.virtualmachine import Toleration

GIB = 2**30
R1 = NodeView(name="r1", cpu=8, memory=16 * GIB)
R2 = NodeView(name="r2", cpu=8, memory=8 * GIB)


def vm(name: str, **changes: object) -> VmDemand:
    return replace(VmDemand(name=name, cpu=2, memory=4 * GIB), **changes)  # type: ignore[arg-type]


def constraint(kind: str, **more: object) -> NamedConstraint:
    spec = decode(PlacementConstraintSpec, {"type": kind, "vms": {"names": ["a", "b"]}, **more})
    return NamedConstraint(name="together", spec=spec)


def test_a_vm_goes_where_most_memory_is_free() -> None:
    assert place([R1, R2], [vm("a")], []).bindings == {"a": "r1"}


def test_what_does_not_fit_says_how_much_is_short_on_each_node() -> None:
    placement = place([R1, R2], [vm("a", memory=20 * GIB, cpu=10)], [])
    assert placement.bindings == {}
    assert placement.reasons["a"] == (
        "r1: memory 4Gi short (16Gi free), 2 vCPU short (8 free); "
        "r2: memory 12Gi short (8Gi free), 2 vCPU short (8 free)"
    )


def test_a_vm_goes_back_to_the_node_that_alone_has_its_disks() -> None:
    assert place([R1, R2], [vm("a", homes=("r2",))], []).bindings == {"a": "r2"}
    away = place([R1, replace(R2, refuses="is silent")], [vm("a", homes=("r2",))], [])
    assert away.reasons["a"] == "r1: a disk image is on r2 only; r2: is silent"


def test_a_vm_whose_disks_are_on_two_nodes_fits_nowhere_and_says_so() -> None:
    placement = place([R1, R2], [vm("a", homes=("r1", "r2"))], [])
    assert placement.reasons["a"] == "r1: a disk image is on r2 only; r2: a disk image is on r1 only"


def test_a_vm_goes_where_its_bridges_and_networks_are() -> None:
    wired = vm("a", bridges=("br0", "br1"), networks=("lan",))
    here = replace(R1, networks={"libvirt": HostNetworks(bridges=("br0", "br1"), networks=("lan",))})
    there = replace(R2, networks={"libvirt": HostNetworks(bridges=("br0",), networks=())})
    assert place([here, there], [wired], []).bindings == {"a": "r1"}
    assert place([replace(here, refuses="is silent"), there], [wired], []).reasons["a"] == (
        "r1: is silent; r2: has no bridge 'br1' (has br0), has no active network 'lan' (has none)"
    )


def test_what_is_not_known_of_a_nodes_networks_keeps_nothing_away() -> None:
    wired = vm("a", bridges=("br0",), networks=("lan",))
    for networks in ({}, {"libvirt": host_networks(None, None)}, {"dummy": HostNetworks()}):
        assert place([replace(R1, networks=networks)], [wired], []).bindings == {"a": "r1"}


def test_vms_that_differ_in_their_bridges_only_go_different_ways() -> None:
    nodes = [
        replace(R1, networks={"libvirt": HostNetworks(bridges=("br0",))}),
        replace(R2, networks={"libvirt": HostNetworks(bridges=("br1",))}),
    ]
    vms = [vm("a", bridges=("br1",)), vm("b", bridges=("br0",)), vm("c", bridges=("br1",))]
    assert place(nodes, vms, []).bindings == {"a": "r2", "b": "r1", "c": "r2"}


def test_higher_priority_comes_first_when_room_is_short() -> None:
    vms = [vm("a", memory=7 * GIB), vm("z", memory=7 * GIB, priority=10)]
    placement = place([R2], vms, [])
    assert placement.bindings == {"z": "r2"}


def test_a_node_that_refuses_is_named_with_its_reason() -> None:
    placement = place([replace(R1, refuses="in maintenance")], [vm("a")], [])
    assert placement.reasons["a"] == "r1: in maintenance"


def test_selectors_taints_and_controllers_are_hard() -> None:
    gpu = replace(R1, taints=(Taint(key="gpu"),), labels={"zone": "a"}, controllers=frozenset({"libvirt"}))
    assert "taint gpu" in place([gpu], [vm("a")], []).reasons["a"]
    tolerant = vm("a", tolerations=(Toleration(key="gpu"),))
    assert place([gpu], [tolerant], []).bindings == {"a": "r1"}
    assert "zone=b" in place([gpu], [replace(tolerant, node_selector={"zone": "b"})], []).reasons["a"]
    assert "controller" in place([gpu], [replace(tolerant, controller="dummy")], []).reasons["a"]


def test_apart_means_on_different_nodes_and_the_constraint_is_named() -> None:
    apart = constraint("AntiAffinity")
    placement = place([R1, R2], [vm("a"), vm("b")], [apart])
    assert sorted(placement.bindings.values()) == ["r1", "r2"]
    alone = place([R1], [vm("a"), vm("b")], [apart])
    assert alone.reasons["b"] == "r1: apart from a (together)"


def test_together_follows_the_one_that_is_placed() -> None:
    assert place([R1, R2], [vm("a", node="r2"), vm("b")], [constraint("Affinity")]).bindings == {"b": "r2"}


def test_node_constraints_bind_and_forbid() -> None:
    only = constraint("NodeAffinity", nodes={"names": ["r2"]})
    never = constraint("NodeAntiAffinity", nodes={"names": ["r1"]})
    assert place([R1, R2], [vm("a")], [only]).bindings == {"a": "r2"}
    assert place([R1, R2], [vm("a")], [never]).bindings == {"a": "r2"}


def test_preferred_constraints_never_keep_a_vm_from_running() -> None:
    soft = constraint("NodeAffinity", nodes={"names": ["r9"]}, enforcement="Preferred")
    assert "a" in place([R1], [vm("a")], [soft]).bindings


@settings(deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 8), st.integers(1, 12), st.integers(0, 3)), max_size=30),
    nodes=st.lists(st.tuples(st.integers(1, 16), st.integers(1, 32)), min_size=1, max_size=5),
)
def test_capacity_is_never_exceeded_and_everybody_gets_an_answer(
    sizes: list[tuple[int, int, int]], nodes: list[tuple[int, int]]
) -> None:
    views = [NodeView(name=f"n{i}", cpu=c, memory=m * GIB) for i, (c, m) in enumerate(nodes)]
    vms = [VmDemand(name=f"v{i}", cpu=c, memory=m * GIB, priority=p) for i, (c, m, p) in enumerate(sizes)]
    placement = place(views, vms, [])
    assert set(placement.reasons) == {v.name for v in vms}
    assert placement == place(views, list(reversed(vms)), [])
    for node in views:
        here = [v for v in vms if placement.bindings.get(v.name) == node.name]
        assert sum(v.cpu for v in here) <= node.cpu
        assert sum(v.memory for v in here) <= node.memory
