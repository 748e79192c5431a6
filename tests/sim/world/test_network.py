"""The simulated network behaves as TCP over cables does, and breaks in every way that is asked for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from reconciler.ports.transport import LinkState, Message, Topic
from reconciler.resources.errors import VclError
from reconciler.sim.world import NodeFailed, NodePorts, SimTransport, World


class Mesh:
    """Three nodes that say a number to each other every half second."""

    def __init__(self) -> None:
        self.world = World(seed=1)
        self.heard: list[tuple[float, str, str, int]] = []
        for name in "abc":
            self.world.add(name, self.program)
        self.world.power_on()
        self.world.run_for(5)

    async def program(self, ports: NodePorts) -> None:
        me, number = ports.name, 0

        def hear(sender: str, message: Message) -> None:
            self.heard.append((self.world.now, sender, me, message.body["n"]))

        def speak() -> None:
            nonlocal number
            number += 1
            for peer in others:
                ports.transport.send(peer, Message(topic=Topic.HEARTBEAT, body={"n": number}))
            ports.loop.call_later(0.5, speak)

        others = {node.name: node.endpoint for node in self.world.nodes if node.name != me}
        ports.transport.listen(hear)
        ports.transport.connect(others)
        speak()
        await ports.transport.run()

    def hearing(self, seconds: float = 1.0) -> str:
        """Who hears whom, within the next seconds: `ab` for b hears a."""
        began = self.world.now
        self.world.run_for(seconds)
        return " ".join(sorted({sender + me for at, sender, me, _ in self.heard if at > began}))

    def states(self, node: str) -> dict[str, LinkState]:
        return {peer: link.state for peer, link in self.world.node(node).transport.links().items()}


ALL = "ab ac ba bc ca cb"


@pytest.fixture
def mesh() -> Iterator[Mesh]:
    mesh = Mesh()
    with mesh.world:
        yield mesh


def test_on_a_healthy_network_everybody_hears_everybody(mesh: Mesh) -> None:
    assert mesh.hearing() == ALL
    assert mesh.states("a") == {"b": LinkState.CONNECTED, "c": LinkState.CONNECTED}


def test_a_cut_link_stays_connected_for_a_while_and_is_unreachable_then(mesh: Mesh) -> None:
    mesh.world.network.cut("a", "b")
    assert mesh.hearing(2) == "ac bc ca cb"
    assert mesh.states("a")["b"] is LinkState.CONNECTED
    mesh.world.run_for(2)
    for one, other in ("ab", "ba"):
        assert mesh.states(one)[other] is LinkState.UNREACHABLE
        assert mesh.world.node(one).transport.links()[other].reason
    mesh.world.network.heal("a", "b")
    mesh.world.run_for(3)
    assert mesh.hearing() == ALL


def test_halves_hear_their_own_half_only(mesh: Mesh) -> None:
    mesh.world.network.halves(["a"], ["b", "c"])
    assert mesh.hearing() == "bc cb"
    mesh.world.network.heal()
    mesh.world.run_for(1)
    assert mesh.hearing() == ALL


def test_an_isolated_node_hears_nobody(mesh: Mesh) -> None:
    mesh.world.network.isolate("b")
    assert mesh.hearing() == "ac ca"
    mesh.world.run_for(5)
    mesh.world.network.heal("b")
    mesh.world.run_for(3)
    assert mesh.hearing() == ALL


def test_the_middle_of_a_bridge_hears_both_ends(mesh: Mesh) -> None:
    mesh.world.network.bridge("a", "b", "c")
    mesh.world.run_for(10)
    assert mesh.hearing() == "ab ba bc cb"


def test_one_way_is_heard_for_as_long_as_the_connection_lives(mesh: Mesh) -> None:
    mesh.world.network.cut_one_way("a", "b")
    assert mesh.hearing(2) == "ac ba bc ca cb"
    mesh.world.run_for(2)
    assert mesh.hearing(10) == "ac bc ca cb"
    assert mesh.states("b")["a"] is LinkState.UNREACHABLE
    mesh.world.network.heal("a", "b")
    mesh.world.run_for(3)
    assert mesh.hearing() == ALL


def test_what_was_said_in_a_short_cut_comes_late_and_in_order(mesh: Mesh) -> None:
    before = [n for _, sender, me, n in mesh.heard if (sender, me) == ("a", "b")]
    mesh.world.network.cut("a", "b")
    mesh.world.run_for(1.6)
    mesh.heard.clear()
    mesh.world.network.heal("a", "b")
    mesh.world.run_for(0.45)
    late = [n for _, sender, me, n in mesh.heard if (sender, me) == ("a", "b")]
    assert len(late) >= 3
    assert late == list(range(before[-1] + 1, before[-1] + 1 + len(late)))


def test_a_delayed_link_delivers_late_and_in_order(mesh: Mesh) -> None:
    mesh.world.network.delay("a", "b", 0.3, jitter=0.4)
    mesh.world.run_for(20)
    times = [(at, n) for at, sender, me, n in mesh.heard if (sender, me) == ("a", "b") and at > 10]
    others = {n: at for at, sender, me, n in mesh.heard if (sender, me) == ("a", "c")}
    assert all(0.29 < at - others[n] < 1.3 for at, n in times)
    assert [n for _, n in times] == sorted(n for _, n in times)


def test_a_slow_link_cannot_be_dialled_within_the_time_for_that(mesh: Mesh) -> None:
    mesh.world.network.cut("a", "b")
    mesh.world.run_for(5)
    mesh.world.network.heal("a", "b")
    mesh.world.network.delay("a", "b", 1.0)
    mesh.world.run_for(10)
    assert mesh.states("a")["b"] is LinkState.UNREACHABLE


def test_a_flapping_link_comes_and_goes(mesh: Mesh) -> None:
    mesh.world.network.flap("a", "b", 16.0)
    states = set()
    for _ in range(40):
        mesh.world.run_for(1)
        states.add(mesh.states("a")["b"])
    assert {LinkState.CONNECTED, LinkState.UNREACHABLE} <= states
    mesh.world.network.heal("a", "b")
    mesh.world.run_for(3)
    assert mesh.hearing(20) == ALL
    assert mesh.states("a")["b"] is LinkState.CONNECTED


def test_a_node_with_another_secret_is_denied(mesh: Mesh) -> None:
    mesh.world.node("a").kill()
    mesh.world.node("a").start()
    mesh.world.node("a").transport.secret = "another"
    mesh.world.run_for(5)
    assert set(mesh.states("a").values()) == {LinkState.DENIED}
    assert mesh.states("b")["a"] is LinkState.DENIED
    assert mesh.hearing() == "bc cb"


def test_a_host_that_came_back_is_not_taken_for_the_one_before(mesh: Mesh) -> None:
    mesh.world.node("b").power_off()
    mesh.world.run_for(0.3)
    mesh.world.node("b").power_on()
    mesh.world.run_for(2)
    assert mesh.hearing() == ALL


def test_two_daemons_cannot_have_one_port(mesh: Mesh) -> None:
    async def second(ports: NodePorts) -> None:
        await SimTransport(mesh.world.network, ports.loop, "a").run()

    mesh.world.node("a").spawn(second)
    with pytest.raises(NodeFailed, match="port 7480 of a is in use") as caught:
        mesh.world.run_for(10)
    assert isinstance(caught.value.__cause__, VclError)
