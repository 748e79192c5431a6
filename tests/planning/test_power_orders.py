"""An order to shut down is in force until its end is heard of, in whatever order the news comes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from reconciler.planning.power_orders import in_force, merge, started
from reconciler.resources.codec import decode, encode
from reconciler.resources.shutdowns import PowerOrders, ShutdownOrder

IDS = st.sampled_from("abcd")
ORDERS = st.builds(
    ShutdownOrder,
    id=IDS,
    deadline=st.sampled_from([30.0, 300.0]),
    reason=st.sampled_from(["", "battery"]),
    power_off=st.booleans(),
    ceph_flags=st.booleans(),
)
KNOWN = st.builds(
    PowerOrders, orders=st.lists(ORDERS, max_size=3).map(tuple), ended=st.lists(IDS, max_size=2).map(tuple)
)
NONE = PowerOrders()


def order(id: str, deadline: float = 300.0, *, power_off: bool = False) -> ShutdownOrder:
    return ShutdownOrder(id=id, deadline=deadline, power_off=power_off)


def ordered(known: PowerOrders, order: ShutdownOrder) -> PowerOrders:
    return merge(known, PowerOrders(orders=(order,)))


def test_an_order_is_in_force_until_a_start_ends_it() -> None:
    known = ordered(NONE, order("a"))
    assert in_force(known) == order("a")
    assert in_force(started(known)) is None
    assert in_force(NONE) is None


def test_a_node_that_missed_the_end_drops_its_order() -> None:
    away = ordered(NONE, order("a"))
    assert in_force(merge(away, started(away))) is None


def test_an_order_that_the_start_had_not_heard_of_stays_in_force() -> None:
    there, elsewhere = ordered(NONE, order("a")), ordered(NONE, order("b"))
    assert in_force(merge(started(there), elsewhere)) == order("b")


def test_of_several_orders_the_strictest_of_each_is_obeyed() -> None:
    both = ordered(ordered(NONE, order("b", 30.0)), order("a", 300.0, power_off=True))
    assert in_force(both) == order("a", 30.0, power_off=True)


def test_what_is_known_survives_a_disk() -> None:
    known = ordered(started(ordered(NONE, order("a"))), order("b"))
    assert decode(PowerOrders, encode(known)) == known


@given(KNOWN, KNOWN, KNOWN)
def test_news_may_come_in_any_order_and_twice(a: PowerOrders, b: PowerOrders, c: PowerOrders) -> None:
    assert merge(a, b) == merge(b, a)
    assert merge(merge(a, b), c) == merge(a, merge(b, c))
    assert merge(merge(a, b), b) == merge(a, b)


@given(KNOWN, KNOWN)
def test_what_has_ended_never_comes_back(a: PowerOrders, b: PowerOrders) -> None:
    known = merge(started(a), b)
    assert not {each.id for each in known.orders} & {each.id for each in a.orders}
    assert set(a.ended) <= set(known.ended)
