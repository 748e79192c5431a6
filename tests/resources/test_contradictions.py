"""Constraints that cannot all be kept are found, with who is to blame; what can be kept is never reported."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.resources.codec import decode
from reconciler.resources.contradictions import Contradiction, Guest, Rule, contradictions
from reconciler.resources.placementconstraint import ConstraintType, PlacementConstraintSpec

HOSTS: dict[str, dict[str, str]] = {"r1": {"zone": "a"}, "r2": {"zone": "a"}, "r3": {"zone": "b"}}


def rule(name: str, type: str, *vms: str, nodes: tuple[str, ...] = (), **more: Any) -> Rule:
    spec = {"type": type, "vms": {"names": list(vms)}, **more}
    if nodes:
        spec["nodes"] = {"names": list(nodes)}
    return Rule(name=name, spec=decode(PlacementConstraintSpec, spec))


def found(
    *rules: Rule, vms: str = "a b c d e", hosts: Mapping[str, Mapping[str, str]] | None = None
) -> list[tuple[tuple[str, ...], str, bool]]:
    guests = [Guest(name=name) for name in vms.split()]
    return [(each.rules, each.why, each.certain) for each in contradictions(rules, guests, hosts)]


def test_together_through_others_and_apart_names_every_constraint_on_the_way() -> None:
    rules = (
        rule("x", "Affinity", "a", "b"),
        rule("y", "Affinity", "b", "c"),
        rule("z", "AntiAffinity", "a", "c"),
    )
    assert found(*rules) == [(("x", "y", "z"), "a and c must share a node and must not", True)]


def test_sharing_a_node_is_sharing_a_zone_but_not_the_other_way_round() -> None:
    apart_zones = rule("apart", "AntiAffinity", "a", "b", topologyKey="zone")
    same_zone = rule("same", "Affinity", "a", "b", topologyKey="zone")
    same_node = rule("same", "Affinity", "a", "b")
    why = "a and b must share a value of zone and must not"
    assert found(same_node, apart_zones, hosts=HOSTS) == [(("same", "apart"), why, False)]
    assert found(same_zone, apart_zones) == [(("same", "apart"), why, True)]
    unlabelled = {**HOSTS, "r4": dict[str, str]()}
    assert found(same_node, apart_zones) == found(same_node, apart_zones, hosts=unlabelled) == []
    assert found(same_zone, rule("apart", "AntiAffinity", "a", "b"), hosts=HOSTS) == []


def test_vms_that_must_share_a_node_and_are_bound_to_different_ones() -> None:
    rules = (
        rule("a-on-1", "NodeAffinity", "a", nodes=("r1",)),
        rule("b-on-2", "NodeAffinity", "b", nodes=("r2",)),
        rule("same", "Affinity", "a", "b"),
    )
    assert found(*rules) == [
        (("a-on-1", "b-on-2", "same"), "no node satisfies them for a and b, which must share one", True)
    ]


def test_a_required_node_that_does_not_exist_is_told_once_the_nodes_are_known() -> None:
    on_nine = rule("on-nine", "NodeAffinity", "a", nodes=("r9",))
    assert found(on_nine) == []
    assert found(on_nine, hosts=HOSTS) == [(("on-nine",), "there is no node 'r9' (nodes: r1, r2, r3)", False)]
    assert found(rule("off", "NodeAntiAffinity", "a", nodes=("r1", "r2", "r3")), hosts=HOSTS) == [
        (("off",), "there is no node besides those that it excludes (nodes: r1, r2, r3)", False)
    ]


def test_a_node_selector_that_no_node_has_blames_the_vm_itself() -> None:
    guest = Guest(name="a", node_selector={"disk": "ssd"})
    (only,) = contradictions([], [guest], HOSTS)
    assert (only.rules, only.selectors, only.vms) == ((), ("a",), ("a",))
    assert only.why == "there is no node with the labels of its nodeSelector (disk=ssd) (nodes: r1, r2, r3)"
    assert contradictions([], [guest], None) == ()


def test_more_vms_apart_than_nodes() -> None:
    apart = rule("apart", "AntiAffinity", "a", "b", "c", "d")
    assert found(apart) == []
    assert found(apart, hosts=HOSTS) == [
        (
            ("apart",),
            "a, b, c and d (4 VMs) must each have a node of their own, and only r1, r2 and r3 can take them",
            False,
        )
    ]
    assert found(apart, vms="a b c", hosts=HOSTS) == []


def test_apart_and_all_bound_to_too_few_nodes_is_certain_and_names_who_binds() -> None:
    apart = rule("apart", "AntiAffinity", "a", "b", "c")
    bound = rule("bound", "NodeAffinity", "b", "c", nodes=("r1",))
    assert found(apart, bound) == [
        (
            ("apart", "bound"),
            "b and c (2 VMs) must each have a node of their own, and only r1 can take them",
            True,
        )
    ]


def test_a_spread_of_which_too_many_are_bound_to_a_part_or_to_each_other() -> None:
    spread = rule("spread", "Spread", "a", "b", "c", "d", topologyKey="zone", maxSkew=1)
    bound = rule("bound", "NodeAffinity", "a", "b", "c", nodes=("r1", "r2"))
    assert found(spread, hosts=HOSTS) == []
    assert found(spread, rule("all", "NodeAffinity", "a", "b", "c", "d", nodes=("r1",)), hosts=HOSTS) == []
    assert found(spread, bound, hosts=HOSTS) == [
        (
            ("spread", "bound"),
            "a, b and c can be at a only, too many for what can be elsewhere (maxSkew 1)",
            False,
        )
    ]
    same = rule("same", "Affinity", "a", "b", "c")
    assert found(spread, same, hosts=HOSTS) == [
        (
            ("spread", "same"),
            "a, b and c must be together, which is more than the others can even out (maxSkew 1)",
            False,
        )
    ]


def test_what_no_node_could_keep_is_told_before_what_these_nodes_cannot() -> None:
    rules = [
        rule("in", "NodeAffinity", "a", nodes=("r1",)),
        rule("out", "NodeAntiAffinity", "a", nodes=("r1",)),
        rule("same", "Affinity", "a", "b"),
        rule("zones", "AntiAffinity", "a", "b", topologyKey="zone"),
    ]
    certain = found(*rules)
    assert [(names, sure) for names, _, sure in certain] == [(("in", "out"), True)]
    assert found(*rules, hosts=HOSTS) == certain


def test_a_topology_that_no_node_is_labelled_with() -> None:
    for kind in ("Affinity", "Spread"):
        assert found(rule("x", kind, "a", topologyKey="rack"), hosts=HOSTS) == [
            (("x",), "no node has the label rack (nodes: r1, r2, r3)", False)
        ]


def test_preferred_constraints_contradict_nothing() -> None:
    assert (
        found(rule("x", "Affinity", "a", "b"), rule("y", "AntiAffinity", "a", "b", enforcement="Preferred"))
        == []
    )


RULES = st.lists(
    st.builds(
        lambda index, kind, vms, nodes, key: rule(
            f"{kind}{index}", kind, *sorted(vms), nodes=tuple(sorted(nodes)), topologyKey=key
        ),
        st.integers(0, 99),
        st.sampled_from(["Affinity", "AntiAffinity", "NodeAffinity", "NodeAntiAffinity"]),
        st.sets(st.sampled_from("abcd"), min_size=1),
        st.sets(st.sampled_from(["r1", "r2", "r3"]), min_size=1),
        st.sampled_from(["node", "zone"]),
    ),
    max_size=4,
    unique_by=lambda each: each.name,
)


@settings(max_examples=150, deadline=None)
@given(rules=RULES)
def test_what_is_reported_really_has_no_solution(rules: list[Rule]) -> None:
    guests = [Guest(name=name) for name in "abcd"]
    for each in contradictions(rules, guests, HOSTS):
        blamed = [rule for rule in rules if rule.name in each.rules]
        assert not any(
            _kept(blamed, dict(zip("abcd", nodes, strict=True))) for nodes in product(HOSTS, repeat=4)
        )
        assert each.vms
        assert each.rules


@settings(max_examples=150, deadline=None)
@given(rules=RULES)
def test_without_knowing_the_nodes_nothing_is_reported_that_some_nodes_could_keep(rules: list[Rule]) -> None:
    guests = [Guest(name=name) for name in "abcd"]
    certain = contradictions(rules, guests, None)
    assert all(each.certain for each in certain)
    known: tuple[Contradiction, ...] = contradictions(rules, guests, HOSTS)
    assert [each for each in known if each.certain] == list(certain)


def _kept(rules: list[Rule], at: dict[str, str]) -> bool:
    return all(_keeps(rule.spec, at) for rule in rules)


def _keeps(spec: PlacementConstraintSpec, at: dict[str, str]) -> bool:
    mine = [at[name] for name in spec.vms.names]
    places = [node if spec.topology_key == "node" else HOSTS[node]["zone"] for node in mine]
    match spec.type:
        case ConstraintType.AFFINITY:
            return len(set(places)) == 1
        case ConstraintType.ANTI_AFFINITY:
            return len(set(places)) == len(places)
        case ConstraintType.NODE_AFFINITY:
            return all(node in spec.nodes.names for node in mine)
        case _:
            return not any(node in spec.nodes.names for node in mine)
