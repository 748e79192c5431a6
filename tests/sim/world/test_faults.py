"""Faults as text, at random from a seed, and always healed at the end."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from reconciler.ports.transport import LinkState
from reconciler.resources.errors import StoreError
from reconciler.sim.world import VERBS, BadScript, Fault, NodePorts, RandomFaults, Reach, World, parse

SCRIPT = """
# two faults and a cure
1      cut a b
2.5    delay a c 0.2 0.1   # slow
4      heal
"""


async def member(ports: NodePorts) -> None:
    """Links to all others, and reads the store twice a second."""

    async def read() -> None:
        while True:
            with contextlib.suppress(StoreError):
                await ports.store.list("")
            await asyncio.sleep(0.5)

    names = ports.disk["peers"]
    ports.transport.connect({name: where for name, where in names.items() if name != ports.name})
    async with asyncio.TaskGroup() as group:
        group.create_task(ports.transport.run())
        group.create_task(read())


def build(seed: int = 1, names: str = "abc") -> World:
    world = World(seed=seed)
    for name in names:
        world.add(name, member)
    peers = {node.name: node.endpoint for node in world.nodes}
    for node in world.nodes:
        node.disk["peers"] = peers
    world.power_on()
    return world


def is_well(world: World) -> bool:
    links = [link for node in world.nodes for link in node.transport.links().values()]
    return (
        all(node.on and node.running and not node.paused and node.rate == 1 for node in world.nodes)
        and all(world.storage.reach(name) is Reach.OPEN for name in world.names)
        and all(link.state is LinkState.CONNECTED for link in links)
    )


def test_a_script_is_one_fault_a_line() -> None:
    assert parse(SCRIPT) == (
        Fault(at=1.0, verb="cut", words=("a", "b")),
        Fault(at=2.5, verb="delay", words=("a", "c", "0.2", "0.1")),
        Fault(at=4.0, verb="heal"),
    )
    assert parse("\n".join(map(str, parse(SCRIPT)))) == parse(SCRIPT)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("1 cutt a b", "line 1: 'cutt' is no fault; did you mean cut?"),
        ("1", "line 1: '' is no fault; there are cut, one-way"),
        ("1 cut a", "line 1: write: cut A B"),
        ("1 heal now", "line 1: write: heal"),
        ("soon cut a b", "line 1: 'soon' is no number of seconds"),
    ],
)
def test_a_line_that_is_no_fault_is_refused_with_what_to_write(line: str, complaint: str) -> None:
    with pytest.raises(BadScript) as caught:
        parse(line)
    assert str(caught.value).startswith(complaint)


def test_a_played_script_happens_when_it_says() -> None:
    with build() as world:
        world.run_for(10)
        assert world.faults.play(parse(SCRIPT)) == 14
        world.run_for(5)
        happened = [(round(line.at, 3), line.text) for line in world.log if not line.node and line.at >= 10]
        assert happened == [
            (11.0, "cut: a - b"),
            (12.5, "delay: a - c by 0.2 s, up to 0.1 s more"),
            (14.0, "heal: the network"),
            (14.0, "store: open for all"),
        ]


def test_every_fault_can_be_done_at_any_time_and_is_healed() -> None:
    words = {
        "halves": "a b,c",
        "bridge": "a b c",
        "delay": "a b 0.1",
        "flap": "a b 2",
        "jump": "a -5",
        "drift": "a 1.1",
        "heal": "",
        "cut": "a b",
        "one-way": "a b",
        "heal-network": "a b",
    }
    for first in VERBS:
        with build() as world:
            world.run_for(5)
            for verb in (first, *reversed(list(VERBS)), first):
                world.faults.do(f"{verb} {words.get(verb, 'a')}")
                world.run_for(0.7)
            world.faults.heal()
            world.run_until(lambda world=world: is_well(world), limit=10, what="all is well")  # type: ignore[misc]


def test_random_faults_are_the_same_for_the_same_seed() -> None:
    plan = RandomFaults(seed=5, density=1.0, seconds=100)
    assert plan.schedule("abc") == plan.schedule("abc")
    assert plan.schedule("abc") != RandomFaults(seed=6, density=1.0, seconds=100).schedule("abc")
    assert 50 < len(plan.schedule("abc")) < 400


def test_random_faults_are_of_every_kind_in_time_and_healed_at_the_end() -> None:
    schedule = RandomFaults(seed=1, density=1.0, seconds=1000).schedule("abc")
    assert {fault.verb for fault in schedule} == set(VERBS)
    assert [fault.at for fault in schedule] == sorted(fault.at for fault in schedule)
    assert schedule[-1] == Fault(at=1000, verb="heal")


@pytest.mark.parametrize("names", ["a", "ab"])
def test_random_faults_for_few_nodes_name_only_those(names: str) -> None:
    words = {word for fault in RandomFaults(seed=1, seconds=300).schedule(names) for word in fault.words}
    assert not words & set("cd")


def test_a_plan_prints_what_makes_it_again() -> None:
    plan = RandomFaults(seed=9, density=0.7, seconds=33)
    assert eval(str(plan)) == plan
    with build() as world:
        world.faults.play(plan.schedule(world.names), reproducer=str(plan))
        assert world.log.said(str(plan))
        assert world.reproducer == f"World(seed=1), {plan}"


@pytest.mark.parametrize("seed", range(8))
def test_after_dense_random_faults_everything_is_well_again(seed: int) -> None:
    with build(seed) as world:
        world.run_for(5)
        plan = RandomFaults(seed=seed, density=1.0, seconds=120)
        world.run_for(world.faults.play(plan.schedule(world.names), reproducer=str(plan)) - world.now)
        world.run_until(lambda: is_well(world), limit=10, what="all is well")
