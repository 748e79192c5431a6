"""A simulated host: power, process, disk and clocks."""

from __future__ import annotations

import asyncio
import logging

import pytest

from reconciler.ports.transport import LinkState, Message, Topic
from reconciler.sim.world import NodePorts, SimulationError, World

log = logging.getLogger("reconciler.example")


async def program(ports: NodePorts) -> None:
    ports.disk["starts"] = ports.disk.get("starts", 0) + 1
    ports.memory["starts"] = ports.memory.get("starts", 0) + 1
    ports.transport.listen(lambda sender, message: ports.memory.setdefault("heard", []).append(message.body))
    log.info("started on %s", ports.name)
    try:
        await ports.transport.run()
    finally:
        ports.disk["clean"] = ports.disk.get("clean", 0) + 1
        await asyncio.sleep(0.5)


def build(world: World, names: str = "ab") -> None:
    for name in names:
        world.add(name, program)
    world.power_on()
    world.run_for(0.1)
    for node in world.nodes:
        node.transport.connect({peer.name: peer.endpoint for peer in world.nodes if peer is not node})
    world.run_for(5)


def link(world: World, node: str, peer: str) -> LinkState:
    return world.node(node).transport.links()[peer].state


def test_a_power_cut_leaves_the_disk_and_nothing_else() -> None:
    with World(seed=1) as world:
        build(world)
        node, before = world.node("a"), world.node("a").boot_id
        node.power_off()
        assert not node.running
        with pytest.raises(SimulationError, match="a runs no process"):
            _ = node.store
        world.run_for(10)
        node.power_on()
        world.run_for(1)
        assert node.disk == {"starts": 2}
        assert node.memory == {"starts": 1}
        assert node.boot_id != before
        assert node.clock.monotonic() < 60


def test_a_killed_daemon_leaves_its_host_as_it_was() -> None:
    with World(seed=1) as world:
        build(world)
        node, before, shown = world.node("a"), world.node("a").boot_id, world.node("a").clock.monotonic()
        node.kill()
        world.run_for(10)
        node.start()
        world.run_for(1)
        assert node.disk == {"starts": 2}
        assert node.memory == {"starts": 2}
        assert node.boot_id == before
        assert node.clock.monotonic() == pytest.approx(shown + 11)


def test_a_stopped_daemon_ends_in_an_orderly_way() -> None:
    with World(seed=1) as world:
        build(world)
        node = world.node("a")
        node.stop()
        world.run_for(0.3)
        assert node.running
        world.run_for(0.3)
        assert not node.running
        assert node.disk == {"starts": 1, "clean": 1}


def test_a_daemon_that_is_started_while_it_stops_starts_afterwards() -> None:
    with World(seed=1) as world:
        build(world)
        node = world.node("a")
        node.stop()
        node.start()
        world.run_for(1)
        assert node.running
        assert node.disk == {"starts": 2, "clean": 1}


def test_a_dead_daemon_is_refused_at_once_and_a_dead_host_is_silent() -> None:
    with World(seed=1) as world:
        build(world)
        world.node("b").kill()
        took = world.run_until(lambda: link(world, "a", "b") is LinkState.REFUSED)
        assert took < 0.1
        world.node("b").power_off()
        world.run_until(lambda: link(world, "a", "b") is LinkState.UNREACHABLE)
        world.node("b").power_on()
        world.run_for(3)
        assert link(world, "a", "b") is LinkState.DENIED


def test_a_power_cut_is_noticed_by_silence_only() -> None:
    with World(seed=1) as world:
        build(world)
        world.node("b").power_off()
        world.run_for(2)
        assert link(world, "a", "b") is LinkState.CONNECTED
        assert world.node("a").transport.send("b", Message(topic=Topic.HEARTBEAT, body={}))
        world.run_until(lambda: link(world, "a", "b") is LinkState.UNREACHABLE, limit=3)


def test_a_paused_daemon_hears_everything_when_it_goes_on() -> None:
    with World(seed=1) as world:
        build(world)
        world.node("b").pause()
        for number in range(4):
            world.node("a").transport.send("b", Message(topic=Topic.HEARTBEAT, body={"n": number}))
            world.run_for(0.5)
        assert "heard" not in world.node("b").memory
        world.node("b").resume()
        world.run_for(0.001)
        assert world.node("b").memory["heard"] == [{"n": number} for number in range(4)]
        world.run_for(10)
        assert link(world, "a", "b") is LinkState.CONNECTED


def test_a_daemon_that_is_paused_for_long_is_given_up_and_comes_back() -> None:
    with World(seed=1) as world:
        build(world)
        world.node("b").pause()
        world.run_for(8)
        assert link(world, "a", "b") is LinkState.UNREACHABLE
        world.node("b").resume()
        world.run_until(lambda: link(world, "a", "b") is LinkState.CONNECTED, limit=5)
        world.run_until(lambda: link(world, "b", "a") is LinkState.CONNECTED, limit=1)


def test_a_wall_clock_that_is_set_leaves_monotonic_time_alone() -> None:
    with World(seed=1) as world:
        build(world)
        clock = world.node("a").clock
        shown = clock.monotonic()
        assert clock.wall() == "2026-01-31T12:00:05Z"
        world.node("a").jump(-3600)
        assert clock.wall() == "2026-01-31T11:00:05Z"
        assert clock.monotonic() == shown


def test_a_clock_that_drifts_makes_every_timer_early_or_late() -> None:
    seen: list[tuple[str, float]] = []

    async def ticking(ports: NodePorts) -> None:
        while True:
            await asyncio.sleep(10)
            seen.append((ports.name, world.now))

    with World(seed=1) as world:
        world.add("fast", ticking)
        world.add("slow", ticking)
        world.power_on()
        world.run_for(1)
        world.node("fast").drift(2)
        world.node("slow").drift(0.5)
        fast, slow = world.node("fast").clock.monotonic(), world.node("slow").clock.monotonic()
        world.run_for(20)
        assert world.node("fast").clock.monotonic() == pytest.approx(fast + 40)
        assert world.node("slow").clock.monotonic() == pytest.approx(slow + 10)
        assert world.node("fast").clock.wall() == "2026-01-31T12:00:41Z"
        assert [int(at) for name, at in seen if name == "fast"] == [5, 10, 15, 20]
        assert [int(at) for name, at in seen if name == "slow"] == [19]


def test_the_log_tells_who_said_what_and_when() -> None:
    with World(seed=1) as world:
        build(world)
        world.node("a").pause()
        world.node("a").ports.log("by hand")
        log.info("nobody's")
        started = world.log.said("started on a", node="a")
        assert [line.text for line in started] == ["INFO reconciler.example: started on a"]
        assert str(world.log.lines[-2]) == "     5.100  *         pause: a"
        assert str(world.log.lines[-1]) == "     5.100  a         by hand"
        assert not world.log.said("nobody's")


def test_a_program_that_returns_ends_its_process() -> None:
    async def short(ports: NodePorts) -> None:
        await asyncio.sleep(1)

    with World(seed=1) as world:
        node = world.add("a", short)
        node.power_on()
        world.run_for(2)
        assert node.on
        assert not node.running
        assert world.log.said("ended: a")
