"""Contradictions and the planner agree: where one is found, the planner leaves one of the VMs that it names
without a place, whatever room there is."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from reconciler.planning.placement import NamedConstraint, NodeView, VmDemand, place
from reconciler.resources.codec import decode
from reconciler.resources.contradictions import Guest, Rule, contradictions
from reconciler.resources.placementconstraint import PlacementConstraintSpec

NODES = [
    NodeView(name=name, cpu=999, memory=2**50, labels={"node": name, **labels})
    for name, labels in {"r1": {"zone": "a"}, "r2": {"zone": "a"}, "r3": {"zone": "b"}, "r4": {}}.items()
]
VMS = "abcdef"
KINDS = ("Affinity", "AntiAffinity", "NodeAffinity", "NodeAntiAffinity", "Spread")


def rule(number: int, kind: str, vms: set[str], nodes: set[str], key: str) -> Rule:
    spec = {"type": kind, "vms": {"names": sorted(vms)}, "topologyKey": key}
    if kind.startswith("Node"):
        spec["nodes"] = {"names": sorted(nodes)}
    return Rule(name=f"rule{number}", spec=decode(PlacementConstraintSpec, spec))


RULES = st.lists(
    st.tuples(
        st.sampled_from(KINDS),
        st.sets(st.sampled_from(VMS), min_size=1),
        st.sets(st.sampled_from(["r1", "r2", "r3", "r4", "r9"]), min_size=1),
        st.sampled_from(["node", "zone", "rack"]),
    ),
    max_size=4,
).map(lambda found: [rule(number, *each) for number, each in enumerate(found)])


# c and f cannot both be placed, and c alone evens the Spread out.
ONE_OF_TWO = [
    rule(0, "AntiAffinity", {"c", "f"}, {"r1"}, "node"),
    rule(1, "NodeAffinity", {"c", "f"}, {"r1"}, "node"),
    rule(2, "Spread", {"a", "b", "c", "d", "e"}, {"r1"}, "node"),
]


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@example(rules=ONE_OF_TWO, selected={"a", "b"})
@given(rules=RULES, selected=st.sets(st.sampled_from(VMS)))
def test_where_a_contradiction_is_found_the_planner_finds_no_place(
    rules: list[Rule], selected: set[str]
) -> None:
    selector = {name: {"zone": "b"} for name in selected}
    guests = [Guest(name=name, node_selector=selector.get(name, {})) for name in VMS]
    found = contradictions(rules, guests, {node.name: node.labels for node in NODES})
    vms = [VmDemand(name=name, cpu=1, memory=1, node_selector=selector.get(name, {})) for name in VMS]
    constraints = [NamedConstraint(name=rule.name, spec=rule.spec) for rule in rules]
    placed = place(NODES, vms, constraints).bindings
    for each in found:
        assert set(each.vms) - placed.keys(), each
