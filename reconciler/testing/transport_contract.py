"""The promises of a Transport, as tests: the mesh over TCP and its simulated twin pass the same ones.

    class TestMyTransport(TransportContract):
        def mesh(self, names):
            return my_mesh(names)      # an async context manager that gives a MeshUnderTest

Needs pytest and pytest-asyncio (`asyncio_mode = auto`). All waiting is by asyncio and all times are of the
mesh's own clock, so that it may run on a loop with virtual time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from itertools import permutations
from typing import Any, Protocol

from reconciler.ports.clock import Clock
from reconciler.ports.transport import Endpoint, Link, LinkState, Message, Topic, Transport

POLL = 0.02
"""Seconds between two looks at a condition that is waited for."""


_BOTH_WAYS = (("a", "b"), ("b", "a"))


class MeshUnderTest(Protocol):
    """Nodes on a network that can be broken. Every node is running, and none has called `connect`."""

    clock: Clock

    def transport(self, node: str) -> Transport:
        """The end of the mesh at `node`; another one after a `start`."""
        ...

    def endpoint(self, node: str, *, seen_by: str) -> Endpoint:
        """Where `seen_by` reaches `node`; never changes."""
        ...

    async def cut(self, one: str, other: str) -> None:
        """From now on nothing passes between them, either way, and nobody is told."""
        ...

    async def heal(self, one: str, other: str) -> None:
        """Undo `cut`."""
        ...

    async def stop(self, node: str) -> None:
        """End the daemon there by cancelling `run`. Its host lives on and refuses connections."""
        ...

    async def start(self, node: str) -> None:
        """Run a new daemon after a `stop`; it has not called `connect`."""
        ...


class Ear:
    """What a node heard, in order."""

    def __init__(self, transport: Transport) -> None:
        self.heard: list[tuple[str, Message]] = []
        self.undo = transport.listen(lambda node, message: self.heard.append((node, message)))

    def bodies(self, sender: str, topic: Topic = Topic.LOG) -> list[Any]:
        """The bodies of that sender's messages."""
        return [message.body for node, message in self.heard if (node, message.topic) == (sender, topic)]

    def numbers(self, sender: str, topic: Topic = Topic.LOG) -> list[int]:
        """The numbers that `note` gave that sender's messages."""
        return [body["number"] for body in self.bodies(sender, topic)]


def note(number: int, *, topic: Topic = Topic.LOG, size: int = 0) -> Message:
    """A message that can be told from others; `size` bytes of ballast."""
    return Message(topic=topic, body={"number": number, "ballast": "x" * size})


def join(mesh: MeshUnderTest, names: Sequence[str]) -> None:
    """Everybody shall keep links to everybody."""
    for name in names:
        mesh.transport(name).connect(
            {other: mesh.endpoint(other, seen_by=name) for other in names if other != name}
        )


class TransportContract:
    """Subclass it and give it a `mesh`. `patience`: how long the slowest change of a link may take, in
    seconds. `queue_bytes`: what a node may hold for a peer that takes nothing, network buffers included."""

    patience: float = 20.0
    queue_bytes: int = 32 << 20

    def mesh(self, names: Sequence[str]) -> AbstractAsyncContextManager[MeshUnderTest]:
        """These nodes, running and not connected; all stopped at the end."""
        raise AssertionError(f"{type(self).__name__} must say how to make a mesh of {names}")

    async def eventually(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until it holds; AssertionError after `patience`."""
        try:
            async with asyncio.timeout(self.patience):
                while not condition():  # noqa: ASYNC110 - anything may be a condition
                    await asyncio.sleep(POLL)
        except TimeoutError:
            raise AssertionError(f"not within {self.patience} s: {what}") from None

    async def is_in(self, mesh: MeshUnderTest, node: str, peer: str, state: LinkState) -> Link:
        """Wait until `node`'s link to `peer` is in that state, and give it."""
        links = mesh.transport(node).links
        await self.eventually(
            lambda: peer in links() and links()[peer].state is state,
            f"{node}'s link to {peer} is {state}, it is {links().get(peer)}",
        )
        return links()[peer]

    async def joined(self, mesh: MeshUnderTest, names: Sequence[str]) -> None:
        """Connect everybody with everybody, and wait for it."""
        join(mesh, names)
        for name in names:
            for other in names:
                if other != name:
                    await self.is_in(mesh, name, other, LinkState.CONNECTED)

    async def passes(self, mesh: MeshUnderTest, sender: str, receiver: str) -> None:
        """A new message gets from one to the other."""
        ear = Ear(mesh.transport(receiver))
        marker = note(4711)

        def sent_and_heard() -> bool:
            mesh.transport(sender).send(receiver, marker)
            return 4711 in ear.numbers(sender)

        await self.eventually(sent_and_heard, f"a message gets from {sender} to {receiver}")
        ear.undo()

    # Messages

    async def test_messages_arrive_complete_and_in_order_from_whom_they_are(self) -> None:
        async with self.mesh("ab") as mesh:
            await self.joined(mesh, "ab")
            ears = {name: Ear(mesh.transport(name)) for name in "ab"}
            for number in range(200):
                for sender, receiver in _BOTH_WAYS:
                    assert mesh.transport(sender).send(receiver, note(number, size=number))
            await self.eventually(lambda: len(ears["b"].heard) >= 200, "b hears 200 messages")
            await self.eventually(lambda: len(ears["a"].heard) >= 200, "a hears 200 messages")
            for sender, receiver in _BOTH_WAYS:
                expected = [(sender, note(number, size=number)) for number in range(200)]
                assert ears[receiver].heard == expected

    async def test_a_body_arrives_as_it_was(self) -> None:
        body: dict[str, Any] = {
            "text": 'naïve "日本" \x00\n',
            "list": [1, -2.5, None, True, {"deep": [[]]}],
            "none": None,
        }
        async with self.mesh("ab") as mesh:
            await self.joined(mesh, "ab")
            ear = Ear(mesh.transport("b"))
            assert mesh.transport("a").send("b", Message(topic=Topic.LOG_ASK, body=body))
            await self.eventually(lambda: bool(ear.heard), "b hears it")
            assert ear.heard == [("a", Message(topic=Topic.LOG_ASK, body=body))]

    async def test_every_node_hears_every_other_one(self) -> None:
        async with self.mesh("abc") as mesh:
            await self.joined(mesh, "abc")
            ears = {name: Ear(mesh.transport(name)) for name in "abc"}
            for number, (sender, receiver) in enumerate(permutations("abc", 2)):
                assert mesh.transport(sender).send(receiver, note(number))
            await self.eventually(lambda: all(len(ear.heard) == 2 for ear in ears.values()), "all arrive")
            assert sorted(node for node, _ in ears["b"].heard) == ["a", "c"]
            assert ears["c"].numbers("b") == [3]

    async def test_the_last_of_many_heartbeats_arrives_and_none_overtakes_another(self) -> None:
        async with self.mesh("ab") as mesh:
            await self.joined(mesh, "ab")
            ear = Ear(mesh.transport("b"))
            for number in range(100):
                assert mesh.transport("a").send("b", note(number, topic=Topic.HEARTBEAT))
            await self.eventually(
                lambda: 99 in ear.numbers("a", Topic.HEARTBEAT), "b hears the last heartbeat"
            )
            numbers = ear.numbers("a", Topic.HEARTBEAT)
            assert numbers == sorted(set(numbers))

    async def test_whoever_stopped_listening_hears_nothing_more(self) -> None:
        async with self.mesh("ab") as mesh:
            await self.joined(mesh, "ab")
            first, second = Ear(mesh.transport("b")), Ear(mesh.transport("b"))
            mesh.transport("a").send("b", note(1))
            await self.eventually(lambda: bool(first.heard and second.heard), "both hear it")
            first.undo()
            mesh.transport("a").send("b", note(2))
            await self.eventually(lambda: second.numbers("a") == [1, 2], "the other one hears on")
            assert first.numbers("a") == [1]

    async def test_what_is_too_large_is_not_sent_and_the_link_lives(self) -> None:
        async with self.mesh("ab") as mesh:
            await self.joined(mesh, "ab")
            before = mesh.transport("a").links()["b"]
            assert not mesh.transport("a").send("b", note(1, size=256 << 10))
            await self.passes(mesh, "a", "b")
            assert mesh.transport("a").links()["b"] == before

    # Who is linked

    async def test_a_node_that_nobody_named_gets_nothing(self) -> None:
        async with self.mesh("ab") as mesh:
            one = mesh.transport("a")
            assert one.links() == {}
            for stranger in ("a", "b", "nobody"):
                assert not one.send(stranger, note(1))
                assert not one.send(stranger, note(1, topic=Topic.HEARTBEAT))

    async def test_links_say_since_when_and_only_trouble_has_a_reason(self) -> None:
        async with self.mesh("ab") as mesh:
            begin = mesh.clock.monotonic()
            await self.joined(mesh, "ab")
            link = mesh.transport("a").links()["b"]
            assert set(mesh.transport("a").links()) == {"b"}
            assert (link.state, link.reason) == (LinkState.CONNECTED, "")
            assert begin <= link.since <= mesh.clock.monotonic()

    async def test_naming_the_same_peers_again_changes_nothing(self) -> None:
        async with self.mesh("ab") as mesh:
            await self.joined(mesh, "ab")
            before = mesh.transport("a").links()
            ear = Ear(mesh.transport("b"))
            for number in range(20):
                join(mesh, "ab")
                assert mesh.transport("a").send("b", note(number))
                await asyncio.sleep(0)
            await self.eventually(lambda: len(ear.heard) == 20, "nothing is lost")
            assert ear.numbers("a") == list(range(20))
            assert mesh.transport("a").links() == before

    async def test_a_peer_that_is_named_no_more_is_left_and_let_in_no_more(self) -> None:
        async with self.mesh("abc") as mesh:
            await self.joined(mesh, "abc")
            one = mesh.transport("a")
            ear = Ear(one)
            one.connect({"c": mesh.endpoint("c", seen_by="a")})
            assert set(one.links()) == {"c"}
            assert not one.send("b", note(1))
            denied = await self.is_in(mesh, "b", "a", LinkState.DENIED)
            assert "member" in denied.reason
            assert not mesh.transport("b").send("a", note(2))
            await self.passes(mesh, "c", "a")
            assert not ear.bodies("b")
            join(mesh, "abc")
            await self.is_in(mesh, "a", "b", LinkState.CONNECTED)
            await self.passes(mesh, "b", "a")

    async def test_whoever_is_not_named_by_both_is_not_heard(self) -> None:
        async with self.mesh("ab") as mesh:
            ear = Ear(mesh.transport("b"))
            mesh.transport("a").connect({"b": mesh.endpoint("b", seen_by="a")})
            denied = await self.is_in(mesh, "a", "b", LinkState.DENIED)
            assert "member" in denied.reason
            assert not mesh.transport("a").send("b", note(1))
            assert mesh.transport("b").links() == {}
            mesh.transport("b").connect({"a": mesh.endpoint("a", seen_by="b")})
            await self.is_in(mesh, "a", "b", LinkState.CONNECTED)
            await self.passes(mesh, "a", "b")
            assert 1 not in ear.numbers("a")

    # Trouble

    async def test_a_cut_link_is_unreachable_and_comes_back_by_itself(self) -> None:
        async with self.mesh("abc") as mesh:
            await self.joined(mesh, "abc")
            await mesh.cut("a", "b")
            for node, peer in _BOTH_WAYS:
                link = await self.is_in(mesh, node, peer, LinkState.UNREACHABLE)
                assert link.reason
                assert link.since <= mesh.clock.monotonic()
                assert not mesh.transport(node).send(peer, note(1, topic=Topic.HEARTBEAT))
            await self.passes(mesh, "a", "c")
            await self.passes(mesh, "c", "b")
            await mesh.heal("a", "b")
            for node, peer in _BOTH_WAYS:
                assert (await self.is_in(mesh, node, peer, LinkState.CONNECTED)).reason == ""
                await self.passes(mesh, node, peer)

    async def test_nothing_is_heard_twice_or_out_of_order_around_a_cut(self) -> None:
        async with self.mesh("ab") as mesh:
            await self.joined(mesh, "ab")
            ear = Ear(mesh.transport("b"))
            sent: list[int] = []

            def send_next() -> None:
                if mesh.transport("a").send("b", note(len(sent))):
                    sent.append(len(sent))

            for step in range(20):
                send_next()
                if step == 10:
                    await mesh.cut("a", "b")
                await asyncio.sleep(0.01)
            await self.is_in(mesh, "b", "a", LinkState.UNREACHABLE)
            await mesh.heal("a", "b")
            healed = len(sent)

            def sent_and_heard() -> bool:
                send_next()
                return ear.numbers("a")[-1] >= healed

            await self.eventually(sent_and_heard, "messages pass again")
            numbers = ear.numbers("a")
            assert numbers == sorted(set(numbers))

    async def test_a_daemon_that_is_gone_is_refused_since_its_end(self) -> None:
        async with self.mesh("ab") as mesh:
            await self.joined(mesh, "ab")
            await mesh.stop("b")
            first = await self.is_in(mesh, "a", "b", LinkState.REFUSED)
            assert first.reason
            assert not mesh.transport("a").send("b", note(1))
            await asyncio.sleep(1.0)
            assert mesh.transport("a").links()["b"].since == first.since, "each refusal began anew"
            await mesh.start("b")
            join(mesh, "ab")
            await self.is_in(mesh, "a", "b", LinkState.CONNECTED)
            await self.passes(mesh, "a", "b")
            await self.passes(mesh, "b", "a")

    async def test_links_that_go_and_come_many_times_always_come_back(self) -> None:
        async with self.mesh("ab") as mesh:
            await self.joined(mesh, "ab")
            for _ in range(5):
                await mesh.stop("b")
                await mesh.start("b")
                await self.joined(mesh, "ab")
                await self.passes(mesh, "a", "b")
                await self.passes(mesh, "b", "a")

    async def test_a_peer_that_takes_nothing_costs_its_own_messages_not_memory(self) -> None:
        async with self.mesh("abc") as mesh:
            await self.joined(mesh, "abc")
            await mesh.cut("a", "b")
            accepted, size = 0, 64 << 10
            for number in range(2 * self.queue_bytes // size):
                accepted += mesh.transport("a").send("b", note(number, size=size))
                if number % 16 == 0:
                    await asyncio.sleep(0)
            assert accepted * size <= self.queue_bytes
            await self.passes(mesh, "a", "c")

    async def test_a_heartbeat_is_not_refused_for_logs_that_wait(self) -> None:
        async with self.mesh("ab") as mesh:
            await self.joined(mesh, "ab")
            ear = Ear(mesh.transport("b"))
            while mesh.transport("a").send("b", note(0, size=64 << 10)):
                pass
            for number in (1, 2, 3):
                assert mesh.transport("a").send("b", note(number, topic=Topic.HEARTBEAT))
            assert not mesh.transport("a").send("b", note(4, size=64 << 10))
            await self.eventually(lambda: 3 in ear.numbers("a", Topic.HEARTBEAT), "the heartbeat arrives")
