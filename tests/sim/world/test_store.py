"""The way to the simulated store: cut, stalled and open again; late writes; watches that are woken."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from reconciler.resources.errors import OutcomeUnknown, StoreUnavailable
from reconciler.resources.transactions import Changes, Committed, Conflict, NotApplied
from reconciler.sim.world import NodePorts, World
from reconciler.testing.store_harness import txn


async def idle(ports: NodePorts) -> None:
    await asyncio.Event().wait()


@pytest.fixture
def world() -> Iterator[World]:
    with World(seed=1) as world:
        for name in "ab":
            world.add(name, idle)
        world.power_on()
        yield world


def calls(
    world: World, node: str, work: Callable[[NodePorts], Coroutine[Any, Any, Any]]
) -> tuple[Any, float]:
    """The result or the exception, and the seconds it took."""
    began = world.now

    async def caught(ports: NodePorts) -> Any:
        try:
            return await work(ports)
        except (StoreUnavailable, OutcomeUnknown) as error:
            return error

    return world.call(node, caught), world.now - began


def value(world: World, key: str = "k") -> bytes | None:
    item = world.storage.cluster.get([key]).get(key)
    return item.value if item is not None else None


def test_a_call_takes_a_millisecond_or_two(world: World) -> None:
    result, took = calls(world, "a", lambda ports: ports.store.txn(txn({"k": b"1"})))
    assert result == Committed(revision=1)
    assert 0.001 < took < 0.005


def test_what_is_sent_into_a_cut_certainly_has_no_effect(world: World) -> None:
    world.storage.cut("a")
    result, took = calls(world, "a", lambda ports: ports.store.txn(txn({"k": b"1"}), timeout=2))
    assert isinstance(result, StoreUnavailable)
    assert took == pytest.approx(2)
    assert isinstance(calls(world, "a", lambda ports: ports.store.list("", timeout=1))[0], StoreUnavailable)
    assert calls(world, "b", lambda ports: ports.store.list(""))[0].items == ()
    world.storage.heal("a")
    world.run_for(5)
    assert value(world) is None


def test_what_was_under_way_when_the_cut_came_may_have_happened(world: World) -> None:
    outcomes = set()
    for number in range(40):
        transaction = txn({f"k{number}": b"1"})
        world.at(world.now + number * 0.0001, lambda: world.storage.cut("a"))
        result, _ = calls(world, "a", lambda ports, sent=transaction: ports.store.txn(sent, timeout=1))  # type: ignore[misc]
        world.storage.heal()
        if isinstance(result, OutcomeUnknown):
            outcomes.add("unknown, " + ("happened" if value(world, f"k{number}") else "lost"))
    assert outcomes == {"unknown, happened", "unknown, lost"}


def test_a_stalled_write_lands_after_its_caller_has_given_up(world: World) -> None:
    world.storage.stall("a")
    result, _ = calls(world, "a", lambda ports: ports.store.txn(txn({"k": b"1"}), timeout=2))
    assert isinstance(result, OutcomeUnknown)
    assert value(world) is None
    world.storage.heal("a")
    world.run_for(1)
    assert value(world) == b"1"


def test_a_stalled_write_that_was_resolved_never_lands(world: World) -> None:
    late = txn({"k": b"late"})
    world.storage.stall("a")
    calls(world, "a", lambda ports: ports.store.txn(late, timeout=1))
    assert calls(world, "b", lambda ports: ports.store.resolve(late.id))[0] == NotApplied()
    world.storage.heal()
    world.run_for(5)
    assert value(world) is None
    assert calls(world, "b", lambda ports: ports.store.txn(late))[0] == Committed(revision=1)


def test_a_stalled_write_that_landed_resolves_to_its_revision(world: World) -> None:
    late = txn({"k": b"late"})
    world.storage.stall()
    calls(world, "a", lambda ports: ports.store.txn(late, timeout=1))
    world.storage.heal()
    world.run_for(1)
    assert calls(world, "a", lambda ports: ports.store.resolve(late.id))[0] == Committed(revision=1)


def test_a_stalled_write_of_a_dead_node_lands_and_still_compares(world: World) -> None:
    world.storage.stall("a")
    world.node("a").spawn(lambda ports: ports.store.txn(txn({"k": b"a"}, compares={"k": 0})))
    world.node("a").spawn(lambda ports: ports.store.txn(txn({"other": b"a"})))
    world.run_for(0.1)
    world.node("a").power_off()
    calls(world, "b", lambda ports: ports.store.txn(txn({"k": b"b"})))
    world.storage.heal("a")
    world.run_for(1)
    assert (value(world), value(world, "other")) == (b"b", b"a")


def test_a_stall_shorter_than_the_deadline_is_only_slow(world: World) -> None:
    world.storage.stall("a")
    world.at(world.now + 1, lambda: world.storage.heal("a"))
    result, took = calls(world, "a", lambda ports: ports.store.txn(txn({"k": b"1"}, compares={"k": 3})))
    assert result == Conflict(keys=("k",))
    assert 1 < took < 1.6


def test_a_commit_wakes_the_watchers_of_all_nodes_at_once(world: World) -> None:
    tasks = [world.node(name).spawn(lambda ports: ports.store.watch(0, timeout=60)) for name in "ab"]
    world.run_for(10)
    calls(world, "a", lambda ports: ports.store.txn(txn({"k": b"1"})))
    took = world.run_until(lambda: all(task.done() for task in tasks))
    assert took < 0.005
    assert [[event.key for event in task.result().events] for task in tasks] == [["k"], ["k"]]


def test_a_watch_without_news_costs_no_events(world: World) -> None:
    world.run_for(1)
    task = world.node("a").spawn(lambda ports: ports.store.watch(0, timeout=100))
    world.run_for(1)
    looks = 0

    def look() -> None:
        nonlocal looks
        looks += 1

    world.always(look)
    world.run_for(98)
    assert looks == 0
    world.run_for(2)
    assert task.result() == Changes(events=(), revision=0)


@pytest.mark.parametrize("fault", ["cut", "stall"])
def test_a_watch_whose_way_is_lost_says_so_in_time(world: World, fault: str) -> None:
    world.at(world.now + 1, lambda: getattr(world.storage, fault)("a"))
    result, took = calls(world, "a", lambda ports: ports.store.watch(0, timeout=60))
    assert isinstance(result, StoreUnavailable)
    assert took == pytest.approx(3)


def test_a_watch_survives_a_short_cut_and_misses_nothing(world: World) -> None:
    world.at(world.now + 1, lambda: world.storage.cut("a"))
    world.at(world.now + 1.5, lambda: world.node("b").spawn(lambda ports: ports.store.txn(txn({"k": b"1"}))))
    world.at(world.now + 2, lambda: world.storage.heal("a"))
    result, took = calls(world, "a", lambda ports: ports.store.watch(0, timeout=60))
    assert [event.key for event in result.events] == ["k"]
    assert took < 3.1


def test_a_watch_that_is_cancelled_leaves_nothing_behind(world: World) -> None:
    task = world.node("a").spawn(lambda ports: ports.store.watch(0, timeout=60))
    world.run_for(1)
    world.node("a").loop.call_soon(task.cancel)
    world.run_for(1)
    assert task.cancelled()
    assert not world.storage._watchers


def test_leases_take_the_same_way(world: World) -> None:
    calls(world, "a", lambda ports: ports.leases.renew("a", b"1", timeout=2))
    assert calls(world, "b", lambda ports: ports.leases.read(timeout=2))[0] == {"a": b"1"}
    world.storage.cut("a")
    result, took = calls(world, "a", lambda ports: ports.leases.renew("a", b"2", timeout=2))
    assert isinstance(result, StoreUnavailable)
    assert took == pytest.approx(2)
    assert isinstance(calls(world, "a", lambda ports: ports.leases.read(timeout=2))[0], StoreUnavailable)


def test_stalled_renewals_land_in_the_order_of_sending(world: World) -> None:
    world.storage.stall("a")
    for number in range(20):
        renewal = b"%d" % number
        calls(world, "a", lambda ports, value=renewal: ports.leases.renew("a", value, timeout=0.1))  # type: ignore[misc]
    world.storage.heal()
    world.run_for(2)
    assert world.storage.leases == {"a": b"19"}
