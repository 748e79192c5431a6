"""One link between two nodes, whoever dials; what every other state says; beginning and end of `run`."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from reconciler.adapters.mesh import handshake
from reconciler.adapters.mesh.dialling import Dialler, pause
from reconciler.adapters.mesh.frames import Control, Opener, Sealer, decode, encode
from reconciler.adapters.mesh.handshake import Identity, Proven
from reconciler.adapters.mesh.options import Limits
from reconciler.adapters.mesh.wire import PATH, Wire
from reconciler.ports.transport import Endpoint, Link, LinkState
from reconciler.resources.errors import VclError
from reconciler.testing.mesh_network import CLUSTER, HERE, IMPATIENT, SECRET, Running, options, running
from reconciler.testing.transport_contract import Ear, note

HANG = 10.0
NOWHERE = Endpoint(address=HERE, port=9)


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(HANG):
        while not condition():
            await asyncio.sleep(0.01)


def at(node: Running) -> Endpoint:
    assert node.transport.port is not None
    return Endpoint(address=HERE, port=node.transport.port)


async def tried(node: Running, peer: str, endpoint: Endpoint) -> Link:
    """The first state that dialling finds."""
    node.transport.connect({peer: endpoint})
    await eventually(lambda: node.transport.links()[peer].reason != "not tried yet")
    return node.transport.links()[peer]


def linked(node: Running, peer: str) -> bool:
    return node.transport.links()[peer].state is LinkState.CONNECTED


async def hears(one: Running, other: Running) -> None:
    ear = Ear(other.transport)
    assert one.transport.send(other.options.node, note(1))
    await eventually(lambda: ear.numbers(one.options.node) == [1])


# One link, whoever dials


async def test_when_both_dial_at_once_one_link_stays_and_nothing_is_lost() -> None:
    for _ in range(10):
        async with running(options("a"), options("b")) as (a, b):
            ear = Ear(b.transport)
            sent = 0
            a.transport.connect({"b": at(b)})
            b.transport.connect({"a": at(a)})
            while not ear.heard:
                sent += a.transport.send("b", note(sent))
                await asyncio.sleep(0)
            await asyncio.sleep(0.05)
            await eventually(lambda: ear.numbers("a") == list(range(sent)))  # noqa: B023
            for node in (a, b):
                counters = node.transport.counters()
                assert counters["links.made"] == 1
                assert "links.lost" not in counters
                assert "links.replaced" not in counters


@pytest.mark.parametrize("dialling", ["a", "b"])
async def test_one_that_can_dial_is_enough(dialling: str) -> None:
    async with running(options("a"), options("b")) as (a, b):
        a.transport.connect({"b": at(b) if dialling == "a" else NOWHERE})
        b.transport.connect({"a": at(a) if dialling == "b" else NOWHERE})
        await eventually(lambda: linked(a, "b") and linked(b, "a"))
        await hears(a, b)
        await hears(b, a)


class ByHand:
    """A connection of a made-up node to a real one."""

    def __init__(self, wire: Wire, proven: Proven) -> None:
        self._wire = wire
        self._sealer = Sealer(proven.send_key)
        self._opener = Opener(proven.receive_key)

    async def say(self, topic: Any, body: dict[str, Any]) -> None:
        payload = encode(topic, body)
        assert payload is not None
        await self._wire.send(self._sealer.seal(payload))

    async def hear(self) -> Any:
        async with asyncio.timeout(HANG):
            return decode(self._opener.open(await self._wire.receive()))


@asynccontextmanager
async def by_hand(node: Running, name: str) -> AsyncIterator[ByHand]:
    identity = Identity(node=name, cluster_uid=CLUSTER, protocols=(1, 1), secret=SECRET)
    async with Dialler(None) as dialler:
        wire = await dialler.dial(at(node))
        try:
            yield ByHand(wire, await handshake.dial(wire, identity, node.options.node))
        finally:
            await wire.close()


async def test_a_second_connection_is_spare_while_the_first_one_lives() -> None:
    async with running(options("m")) as (m,):
        m.transport.connect({"z": NOWHERE})
        async with by_hand(m, "z") as first, by_hand(m, "z") as second:
            assert (await first.hear()).control is Control.USE
            assert (await second.hear()).control is Control.SPARE
            await first.say(Control.PING, {})
            assert linked(m, "z")


async def test_a_second_connection_takes_over_from_one_that_is_not_heard_of() -> None:
    given = replace(options("m"), limits=replace(IMPATIENT, silence=60.0, fresh=0.2))
    async with running(given) as (m,):
        m.transport.connect({"z": NOWHERE})
        ear = Ear(m.transport)
        async with by_hand(m, "z") as first:
            one = await first.hear()
            since = m.transport.links()["z"].since
            await asyncio.sleep(0.3)
            async with by_hand(m, "z") as second:
                other = await second.hear()
                assert other.control is Control.USE
                assert other.body["number"] > one.body["number"]
                with contextlib.suppress(ConnectionError):
                    await first.say(note(1).topic, dict(note(1).body))
                await second.say(note(2).topic, dict(note(2).body))
                await eventually(lambda: ear.numbers("z") == [2])
                assert m.transport.links()["z"].since == since, "the link was never lost"


async def test_an_older_decision_does_not_take_the_place_of_a_newer_one() -> None:
    async with running(options("m")) as (m,):
        m.transport.connect({"a": NOWHERE})
        ear = Ear(m.transport)
        async with by_hand(m, "a") as older, by_hand(m, "a") as newer:
            await newer.say(Control.USE, {"life": "x", "number": 2})
            await eventually(lambda: linked(m, "a"))
            await older.say(Control.USE, {"life": "x", "number": 1})
            with contextlib.suppress(ConnectionError):
                await older.say(note(1).topic, dict(note(1).body))
            await newer.say(note(2).topic, dict(note(2).body))
            await eventually(lambda: ear.numbers("a") == [2])


async def test_much_that_is_said_right_after_the_proof_is_heard() -> None:
    async with running(options("m")) as (m,):
        m.transport.connect({"a": NOWHERE})
        ear = Ear(m.transport)
        async with by_hand(m, "a") as hand:
            await hand.say(Control.USE, {"life": "x", "number": 1})
            for number in range(4):
                await hand.say(note(0).topic, dict(note(number, size=200_000).body))
            await eventually(lambda: ear.numbers("a") == [0, 1, 2, 3])


@pytest.mark.slow
async def test_time_in_which_this_process_stood_still_counts_against_nobody() -> None:
    async with running(options("a"), options("b")) as (a, b):
        a.transport.connect({"b": at(b)})
        b.transport.connect({"a": at(a)})
        await eventually(lambda: linked(a, "b") and linked(b, "a"))
        await asyncio.sleep(0.6)
        time.sleep(IMPATIENT.silence + 0.6)
        await asyncio.sleep(0.6)
        assert "links.lost" not in a.transport.counters()
        assert "links.lost" not in b.transport.counters()


async def test_a_peer_that_moved_is_found_at_once() -> None:
    slow = replace(options("a"), limits=replace(IMPATIENT, retry_first=60.0, retry_last=60.0))
    async with running(slow, options("b")) as (a, b):
        b.transport.connect({"a": NOWHERE})
        assert (await tried(a, "b", NOWHERE)).state is LinkState.REFUSED
        a.transport.connect({"b": at(b)})
        await eventually(lambda: linked(a, "b"))


# What the states say


async def test_nobody_listening_is_refused() -> None:
    async with running(options("a")) as (a,):
        link = await tried(a, "b", NOWHERE)
    assert link.state is LinkState.REFUSED
    assert link.reason == "the host of 127.0.0.1 port 9 lives, and nobody listens there"


async def test_a_host_that_does_not_answer_is_unreachable() -> None:
    with socket.create_server((HERE, 0), backlog=0) as full, contextlib.ExitStack() as crowd:
        for _ in range(4):
            client = crowd.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(full.getsockname())
        async with running(options("a")) as (a,):
            link = await tried(a, "b", Endpoint(address=HERE, port=full.getsockname()[1]))
    assert link.state is LinkState.UNREACHABLE
    assert "no answer" in link.reason


async def test_a_daemon_that_hangs_is_unreachable() -> None:
    with socket.create_server((HERE, 0)) as hung:
        async with running(options("a")) as (a,):
            link = await tried(a, "b", Endpoint(address=HERE, port=hung.getsockname()[1]))
    assert link.state is LinkState.UNREACHABLE


@pytest.mark.parametrize("address", ["", "not an address", "256.256.256.256", "x" * 300])
async def test_what_is_no_address_is_unreachable(address: str) -> None:
    async with running(options("a")) as (a,):
        assert (await tried(a, "b", Endpoint(address=address, port=9))).state is LinkState.UNREACHABLE


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"secret": b"another secret, and long"}, "secret"),
        ({"cluster_uid": "another"}, "another cluster"),
        ({"protocols": (3, 4)}, "too far apart"),
        ({"node": "c"}, "another node"),
    ],
)
async def test_whoever_does_not_belong_is_denied_in_words(change: dict[str, Any], words: str) -> None:
    async with running(options("a"), replace(options("b"), **change)) as (a, b):
        b.transport.connect({"a": NOWHERE})
        link = await tried(a, "b", at(b))
        assert link.state is LinkState.DENIED
        assert words in link.reason
        assert not a.transport.send("b", note(1))


async def test_adjacent_protocols_link() -> None:
    older, newer = replace(options("a"), protocols=(1, 2)), replace(options("b"), protocols=(2, 3))
    async with running(older, newer) as (a, b):
        a.transport.connect({"b": at(b)})
        b.transport.connect({"a": at(a)})
        await eventually(lambda: linked(a, "b") and linked(b, "a"))
        await hears(b, a)


async def test_another_program_is_denied_and_where_it_sends_us_we_do_not_go() -> None:
    visited: list[str] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        visited.append(request.path)
        return web.Response(status=302, headers={"Location": "/elsewhere"})

    async with _http(answer) as port, running(options("a")) as (a,):
        link = await tried(a, "b", Endpoint(address=HERE, port=port))
    assert link.state is LinkState.DENIED
    assert "not vcl's mesh" in link.reason
    assert set(visited) == {PATH}


@asynccontextmanager
async def _http(handler: Any) -> AsyncIterator[int]:
    runner = web.ServerRunner(web.Server(handler, access_log=None))
    await runner.setup()
    site = web.TCPSite(runner, HERE, 0)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def test_a_node_is_no_peer_of_its_own() -> None:
    async with running(options("a")) as (a,):
        a.transport.connect({"a": at(a)})
        assert a.transport.links() == {}


def test_a_lost_node_is_tried_at_once_and_then_less_and_less_often() -> None:
    limits = Limits()
    assert pause(limits, 0, 0.999) <= 0.05
    assert [pause(limits, failures, 0.0) for failures in range(1, 9)] == [0.2, 0.4, 0.8, 1.6, 3.2, 5, 5, 5]
    assert 3.75 <= pause(limits, 1000, 0.999) <= 5.0


# Beginning and end


async def test_a_port_that_is_taken_is_an_error_with_a_cure() -> None:
    with socket.create_server((HERE, 0)) as taken:
        node = Running(replace(options("a"), port=taken.getsockname()[1]))
        with pytest.raises(VclError, match="in use") as error:
            await node.listening()
    assert "mesh.port" in error.value.cure


async def test_an_address_of_another_host_is_an_error_with_a_cure() -> None:
    node = Running(replace(options("a"), bind="192.0.2.1"))
    with pytest.raises(VclError, match="cannot listen on 192") as error:
        await node.listening()
    assert "mesh.bind" in error.value.cure


async def test_without_an_address_it_listens_on_all() -> None:
    async with running(replace(options("b"), bind=""), options("a")) as (b, a):
        b.transport.connect({"a": NOWHERE})
        assert (await tried(a, "b", at(b))).state is LinkState.CONNECTED
        async with aiohttp.ClientSession() as session:
            assert (await session.get(f"http://{HERE}:{b.transport.port}/")).status == 404


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_the_end_is_quick_and_leaves_nothing_behind(tls: bool, certificates: Path) -> None:
    before = asyncio.all_tasks()
    given = [options(name, certificates if tls else None) for name in "abc"]
    async with running(*given) as nodes:
        for node in nodes:
            node.transport.connect({peer.options.node: at(peer) for peer in nodes})
        a, b, _ = nodes
        await eventually(lambda: linked(a, "b") and linked(a, "c") and linked(b, "c"))
        while a.transport.send("b", note(1, size=100_000)):
            pass
        began = time.monotonic()
        await a.stop()
        assert time.monotonic() - began < 3
        assert a.transport.port is None
        assert not linked(a, "b")
        assert not a.transport.send("b", note(1))
        await eventually(lambda: b.transport.links()["a"].state is LinkState.REFUSED)
        assert linked(b, "c")
    await eventually(lambda: asyncio.all_tasks() == before)


async def test_it_can_run_again() -> None:
    async with running(options("a"), options("b")) as (a, b):
        a.transport.connect({"b": at(b)})
        b.transport.connect({"a": NOWHERE})
        await eventually(lambda: linked(a, "b"))
        await a.stop()
        a.task = asyncio.create_task(a.transport.run())
        await eventually(lambda: linked(a, "b") and linked(b, "a"))
        await hears(a, b)


async def test_everything_is_counted_for_the_administrator() -> None:
    async with running(options("a"), options("b")) as (a, b):
        a.transport.connect({"b": at(b)})
        b.transport.connect({"a": at(a)})
        await eventually(lambda: linked(a, "b"))
        await hears(a, b)
        assert not a.transport.send("c", note(1))
        samples = {(sample.name, *sample.labels.values()): sample for sample in a.transport.samples()}
    assert samples[("vcl_mesh_link_up", "b")].value == 1
    assert samples[("vcl_mesh_queue_bytes", "b")].value == 0
    assert samples[("vcl_mesh_messages_total", "out")].value >= 1
    assert samples[("vcl_mesh_not_sent_total", "no-link")].value == 1
    assert samples[("vcl_mesh_links_total", "made")].value == 1
