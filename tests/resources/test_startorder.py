"""The order that priorities and `startAfter` give together, cycles included."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from reconciler.resources.startorder import order_of

NAMES = st.sampled_from([f"v{n}" for n in range(8)])


def waves(priorities: dict[str, int], start_after: dict[str, list[str]]) -> list[list[str]]:
    order = order_of(priorities, start_after)
    return [sorted(v for v, p in order.places.items() if p.wave == n) for n in range(order.waves)]


def test_equal_vms_stop_together_and_the_less_important_before_them() -> None:
    assert waves({"a": 0, "b": 0, "c": 5, "d": -1}, {}) == [["d"], ["a", "b"], ["c"]]


def test_what_others_start_after_stops_last() -> None:
    chain = {"web": ["app"], "app": ["db"]}
    assert waves({"web": 0, "app": 0, "db": 0, "other": 0}, chain) == [["other", "web"], ["app"], ["db"]]


def test_a_vm_counts_for_the_most_important_one_that_starts_after_it() -> None:
    order = order_of({"web": 9, "db": 0, "batch": 5}, {"web": ["db"]})
    assert order.places["db"].weight == 9
    assert waves({"web": 9, "db": 0, "batch": 5}, {"web": ["db"]}) == [["batch"], ["web"], ["db"]]


def test_names_that_are_no_vm_are_passed_over() -> None:
    assert order_of({"web": 0}, {"web": ["gone"], "gone": ["web"]}).places["web"].after == ()


def test_a_cycle_is_named_and_still_has_an_order() -> None:
    order = order_of({"a": 0, "b": 0, "c": 0}, {"a": ["b"], "b": ["c"], "c": ["a"]})
    assert order.cycles == (("a", "b", "c"),)
    assert waves({"a": 0, "b": 0, "c": 0}, {"a": ["b"], "b": ["c"], "c": ["a"]}) == [["b"], ["c"], ["a"]]
    assert order_of({"a": 0}, {"a": ["a"]}).cycles == (("a",),)


def test_there_is_an_order_of_none() -> None:
    assert order_of({}, {}).waves == 0


def test_a_long_chain_is_no_recursion() -> None:
    names = [f"v{n:04}" for n in range(2000)]
    order = order_of(dict.fromkeys(names, 0), {b: [a] for a, b in pairwise(names)})
    assert order.waves == 2000
    assert order.places["v1999"].wave == 0


@given(st.dictionaries(NAMES, st.integers(-3, 3)), st.dictionaries(NAMES, st.lists(NAMES, max_size=3)))
def test_every_vm_stops_after_those_of_less_weight_and_those_that_start_after_it(
    priorities: dict[str, int], start_after: dict[str, list[str]]
) -> None:
    order = order_of(priorities, start_after)
    assert set(order.places) == set(priorities)
    for vm, place in order.places.items():
        assert place.weight >= priorities[vm]
        assert all(order.places[other].wave < place.wave for other in place.before)
        assert all(p.weight <= place.weight for p in order.places.values() if p.wave < place.wave)
    for cycle in order.cycles:
        following = (*cycle[1:], cycle[0])
        assert all(b in start_after[a] for a, b in zip(cycle, following, strict=True))
        assert cycle[0] == min(cycle)


@given(st.dictionaries(NAMES, st.lists(NAMES, max_size=3)))
def test_the_order_does_not_depend_on_who_is_named_first(
    start_after: dict[str, list[str]],
) -> None:
    priorities = {f"v{n}": n % 3 for n in range(8)}
    backwards = dict(reversed(priorities.items()))
    edges = {vm: list(reversed(others)) for vm, others in reversed(start_after.items())}
    assert order_of(priorities, start_after) == order_of(backwards, edges)
