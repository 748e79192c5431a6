"""Nodes that stop their guests each for itself, hearing of each other late or never; guests that hang."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.planning.shutdown import LAST_SHARE, Turn, stop_turns
from reconciler.resources.shutdowns import ShutdownOrder
from reconciler.resources.startorder import Order, order_of

DEADLINE = 60
SHUTDOWN = ShutdownOrder(id="a", deadline=float(DEADLINE))
VMS = [f"v{n:02}" for n in range(20)]
NODES = 3
NEVER = 10**6


@dataclass(kw_only=True)
class Site:
    """Seconds are steps. `takes`: how long a guest takes to power off; `delay`: how long word of it takes to
    the other nodes; `late`: when each node heard of the shutdown."""

    order: Order
    takes: dict[str, int]
    delay: int
    late: list[int]
    asked: dict[str, int] = field(default_factory=dict)
    gone: dict[str, int] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)

    def step(self, now: int) -> None:
        for vm, since in self.asked.items():
            if vm not in self.gone and now - since >= self.takes[vm]:
                self.gone[vm] = now
        for node in range(NODES):
            if now >= self.late[node]:
                self._act(node, now)

    def _act(self, node: int, now: int) -> None:
        known = {vm for vm, at in self.gone.items() if node_of(vm) == node or now - at >= self.delay}
        for vm, found in stop_turns(self.order, known, SHUTDOWN, now - self.late[node]).items():
            if node_of(vm) != node:
                continue
            if found.turn is Turn.ASK:
                self.asked.setdefault(vm, now)
            elif found.turn is Turn.END:
                self.gone[vm] = now
                self.ended.add(vm)


def node_of(vm: str) -> int:
    return int(vm[1:]) % NODES


def run(site: Site) -> Site:
    for now in range(DEADLINE + max(site.late) + 2):
        site.step(now)
    return site


TAKES = st.lists(st.sampled_from([0, 1, 4, NEVER]), min_size=20, max_size=20)
PRIORITIES = st.lists(st.integers(0, 2), min_size=20, max_size=20)
AFTER = st.dictionaries(st.sampled_from(VMS), st.lists(st.sampled_from(VMS), max_size=2), max_size=6)
LATE = st.lists(st.integers(0, 20), min_size=NODES, max_size=NODES)


@settings(max_examples=40)
@given(TAKES, PRIORITIES, AFTER, st.sampled_from([0, 2, NEVER]), LATE)
def test_every_guest_is_asked_by_half_the_deadline_and_gone_at_the_deadline(
    takes: list[int], priorities: list[int], after: dict[str, list[str]], delay: int, late: list[int]
) -> None:
    order = order_of(dict(zip(VMS, priorities, strict=True)), after)
    site = run(Site(order=order, takes=dict(zip(VMS, takes, strict=True)), delay=delay, late=late))
    for vm in VMS:
        heard = late[node_of(vm)]
        assert site.asked[vm] - heard <= DEADLINE * LAST_SHARE
        assert site.gone[vm] - heard <= DEADLINE
    assert site.ended == {vm for vm, time in zip(VMS, takes, strict=True) if time == NEVER}


@settings(max_examples=40)
@given(PRIORITIES, AFTER)
def test_the_order_is_kept_exactly_while_guests_are_quick_and_nodes_hear_of_each_other(
    priorities: list[int], after: dict[str, list[str]]
) -> None:
    order = order_of(dict(zip(VMS, priorities, strict=True)), after)
    site = run(Site(order=order, takes=dict.fromkeys(VMS, 0), delay=0, late=[0] * NODES))
    for vm, place in order.places.items():
        assert all(site.gone[other] <= site.asked[vm] for other in place.before)
        less = [other for other in VMS if order.places[other].weight < place.weight]
        assert all(site.gone[other] <= site.asked[vm] for other in less)
    assert not site.ended


def test_equal_guests_of_all_nodes_are_gone_as_soon_as_the_slowest() -> None:
    order = order_of(dict.fromkeys(VMS, 0), {})
    site = run(Site(order=order, takes=dict.fromkeys(VMS, 4), delay=NEVER, late=[0, 0, 1]))
    assert max(site.gone.values()) == 5
