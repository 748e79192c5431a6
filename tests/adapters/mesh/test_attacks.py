"""What strangers, broken programs and somebody on the wire can do to a node of a plain TCP mesh: little."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from reconciler.adapters.mesh import handshake
from reconciler.adapters.mesh.dialling import Dialler
from reconciler.adapters.mesh.door import UNPROVEN_BYTES
from reconciler.adapters.mesh.frames import BODY_LIMIT, Control, Sealer, encode
from reconciler.adapters.mesh.handshake import Identity, Proven, Refused
from reconciler.adapters.mesh.wire import PATH, Wire
from reconciler.ports.transport import Endpoint, LinkState, Message, Topic
from reconciler.testing.mesh_network import CLUSTER, HERE, IMPATIENT, SECRET, Running, options, running
from reconciler.testing.transport_contract import Ear, note

HANG = 10.0
NOBODY = Endpoint(address=HERE, port=9)
"""Where no node listens: those at the door are members, and nobody is dialled."""
UPGRADE = (
    f"GET {PATH} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
).encode()


async def eventually(condition: Callable[[], bool], what: str) -> None:
    try:
        async with asyncio.timeout(HANG):
            while not condition():
                await asyncio.sleep(0.01)
    except TimeoutError:
        pytest.fail(f"not within {HANG} s: {what}")


@pytest.fixture
async def node() -> AsyncIterator[Running]:
    """Node m, of which a and z are members too."""
    async with running(options("m")) as (one,):
        one.transport.connect({"a": NOBODY, "z": NOBODY})
        yield one


def counted(node: Running, what: str) -> int:
    return node.transport.counters().get(what, 0)


async def counts(node: Running, what: str, least: int = 1) -> None:
    await eventually(
        lambda: counted(node, what) >= least, f"{what} counts {least}: {node.transport.counters()}"
    )


@asynccontextmanager
async def stranger(
    node: Running, say: bytes = b"", *, source: str = ""
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A raw TCP connection."""
    local = (source, 0) if source else None
    reader, writer = await asyncio.open_connection(HERE, node.transport.port, local_addr=local)
    try:
        writer.write(say)
        yield reader, writer
    finally:
        writer.transport.abort()


async def is_closed(reader: asyncio.StreamReader) -> None:
    async with asyncio.timeout(HANG):
        with contextlib.suppress(ConnectionError):
            await reader.read(-1)


def identity(name: str = "a", **changes: object) -> Identity:
    return replace(
        Identity(node=name, cluster_uid=CLUSTER, protocols=(1, 1), secret=SECRET),
        **changes,  # type: ignore[arg-type]
    )


@asynccontextmanager
async def knocking(node: Running) -> AsyncIterator[Wire]:
    """A WebSocket that has said nothing yet."""
    async with Dialler(None) as dialler:
        assert node.transport.port is not None
        wire = await dialler.dial(Endpoint(address=HERE, port=node.transport.port))
        try:
            yield wire
        finally:
            await wire.close()


class Insider:
    """A member's daemon gone bad, or somebody on its wire who may only send what it has seen."""

    def __init__(self, wire: Wire, proven: Proven) -> None:
        self.wire = wire
        self.sealer = Sealer(proven.send_key)

    def seal(self, topic: Topic | Control, body: dict[str, object]) -> bytes:
        payload = encode(topic, body)
        assert payload is not None
        return self.sealer.seal(payload)

    def note(self, number: int) -> bytes:
        return self.seal(Topic.LOG, dict(note(number).body))


@asynccontextmanager
async def inside(node: Running) -> AsyncIterator[Insider]:
    """A link from `a`, made by hand."""
    async with knocking(node) as wire:
        proven = await handshake.dial(wire, identity("a"), "m")
        insider = Insider(wire, proven)
        await wire.send(insider.seal(Control.USE, {"life": "a's", "number": 1}))
        await eventually(
            lambda: node.transport.links()["a"].state is LinkState.CONNECTED, "m takes a's connection"
        )
        yield insider


# Before the proof


async def test_whoever_says_nothing_is_put_out(node: Running) -> None:
    async with stranger(node) as (reader, _):
        await is_closed(reader)
    await counts(node, "refused_connections.slow")


async def test_a_websocket_without_a_hello_is_put_out(node: Running) -> None:
    async with stranger(node, UPGRADE) as (reader, _):
        await reader.readuntil(b"\r\n\r\n")
        await is_closed(reader)
    await counts(node, "refused_connections.slow")


async def test_headers_that_trickle_in_are_put_out(node: Running) -> None:
    async with stranger(node) as (reader, writer):
        trickle = asyncio.create_task(_trickle(writer, UPGRADE[:-2] + b"X-More: x\r\n" * 1000))
        await is_closed(reader)
        trickle.cancel()
    await counts(node, "refused_connections.slow")


async def _trickle(writer: asyncio.StreamWriter, data: bytes) -> None:
    for byte in data:
        writer.write(bytes([byte]))
        await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    "garbage",
    [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), b"SSH-2.0-x\r\n\r\n", b"\0" * 30_000],
    ids=["tls", "ssh", "zeros"],
)
async def test_what_is_no_http_is_put_out(node: Running, garbage: bytes) -> None:
    async with stranger(node, garbage) as (reader, _):
        await is_closed(reader)
    await counts(node, "refused_connections.no-hello")


async def test_a_browser_gets_404_and_nothing_else(node: Running) -> None:
    async with aiohttp.ClientSession() as session:
        for path in ("/", PATH):
            response = await session.get(f"http://{HERE}:{node.transport.port}{path}")
            assert response.status == 404
    await counts(node, "refused_connections.no-hello", 2)


async def test_a_frame_that_announces_gigabytes_is_not_waited_for(node: Running) -> None:
    frame = b"\x82\xff" + (1 << 40).to_bytes(8, "big") + b"mask"
    async with stranger(node, UPGRADE + frame + bytes(100)) as (reader, _):
        await is_closed(reader)
    await counts(node, "refused_connections.oversized")


async def test_whoever_says_more_than_a_handshake_has_is_put_out(node: Running) -> None:
    frame = b"\x82\xff" + (200 << 10).to_bytes(8, "big") + b"mask"
    async with stranger(node, UPGRADE + frame + bytes(UNPROVEN_BYTES)) as (reader, _):
        await is_closed(reader)
    await counts(node, "refused_connections.oversized")


@pytest.mark.parametrize(
    "hello",
    [
        b"",
        b"[]",
        b"not json",
        b"{}",
        b"[" * 4000,
        b'{"protocols": [1, 1]}',
        b'{"protocols": [1, true], "nonce": "' + b"0" * 64 + b'", "node": "a", "to": "m", "cluster": ""}',
        b'{"protocols": [1, 1], "nonce": "' + b"0" * 64 + b'", "node": "../a", "to": "m", "cluster": ""}',
    ],
)
async def test_a_hello_that_makes_no_sense_is_refused(node: Running, hello: bytes) -> None:
    async with knocking(node) as wire:
        await wire.send(hello)
        assert json.loads(await wire.receive())["refused"] == "malformed"
    assert counted(node, "refused_connections.malformed") == 1


async def test_a_hello_that_is_too_long_is_refused(node: Running) -> None:
    async with knocking(node) as wire:
        await wire.send(b" " * 5000)
        with pytest.raises(ConnectionError):
            await wire.receive()
    assert counted(node, "refused_connections.oversized") == 1


@pytest.mark.parametrize(
    ("who", "refusal"),
    [
        (identity("a", secret=b"another secret"), "secret"),
        (identity("nobody"), "member"),
        (identity("nobody", secret=b"another secret"), "secret"),
        (identity("m"), "member"),
        (identity("a", cluster_uid="another"), "cluster"),
        (identity("a", protocols=(2, 3)), "version"),
    ],
    ids=["secret", "member", "both", "itself", "cluster", "version"],
)
async def test_whoever_does_not_belong_is_told_why_and_not_heard(
    node: Running, who: Identity, refusal: str
) -> None:
    ear = Ear(node.transport)
    async with knocking(node) as wire:
        with pytest.raises(Refused) as refused:
            await handshake.dial(wire, who, "m")
        assert refused.value.refusal == refusal
    assert counted(node, f"refused_connections.{refusal}") == 1
    assert not ear.heard
    assert node.transport.links()["a"].state is not LinkState.CONNECTED


async def test_a_recorded_handshake_proves_nothing(node: Running) -> None:
    said: list[bytes] = []
    async with knocking(node) as wire:
        send = wire.send

        async def record(data: bytes) -> None:
            said.append(data)
            await send(data)

        wire.send = record  # type: ignore[method-assign]
        await handshake.dial(wire, identity("a"), "m")
    async with knocking(node) as wire:
        await wire.send(said[0])
        assert "nonce" in json.loads(await wire.receive())
        await wire.send(said[1])
        assert json.loads(await wire.receive())["refused"] == "secret"
    assert counted(node, "refused_connections.secret") == 1


async def test_nobody_is_heard_before_the_proof(node: Running) -> None:
    ear = Ear(node.transport)
    payload = encode(Topic.LOG, {"number": 1})
    assert payload is not None
    for frame in (payload, Sealer(b"").seal(payload), Sealer(SECRET).seal(payload)):
        async with knocking(node) as wire:
            await wire.send(frame)
            assert json.loads(await wire.receive())["refused"] == "malformed"
    assert not ear.heard


async def test_a_flood_takes_no_link_and_leaves_room_for_others(node: Running) -> None:
    async with inside(node) as insider, contextlib.AsyncExitStack() as flood:
        for _ in range(100):
            with contextlib.suppress(ConnectionError):
                await flood.enter_async_context(stranger(node, source="127.0.0.9"))
        await counts(node, "refused_connections.crowd", 100 - IMPATIENT.unproven_per_address)
        ear = Ear(node.transport)
        await insider.wire.send(insider.note(1))
        await eventually(lambda: ear.numbers("a") == [1], "a is heard through the flood")
        async with knocking(node) as wire:
            assert (await handshake.dial(wire, identity("z"), "m")).protocol == 1
    async with knocking(node) as wire:
        assert (await handshake.dial(wire, identity("z"), "m")).protocol == 1


async def test_a_flood_from_everywhere_is_bounded_and_passes(node: Running) -> None:
    async with contextlib.AsyncExitStack() as flood:
        for number in range(120):
            with contextlib.suppress(ConnectionError):
                await flood.enter_async_context(stranger(node, source=f"127.0.1.{number + 1}"))
        await counts(node, "refused_connections.crowd", 120 - IMPATIENT.unproven)
        await counts(node, "refused_connections.slow", IMPATIENT.unproven)
        async with knocking(node) as wire:
            assert (await handshake.dial(wire, identity("z"), "m")).protocol == 1


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_whoever_was_put_out_leaves_no_descriptor_behind(tls: bool, certificates: Path) -> None:
    async with running(options("a", certificates if tls else None)) as (one,):
        before = len(os.listdir("/proc/self/fd"))
        for say in (b"", b"garbage\r\n\r\n", UPGRADE, UPGRADE + b"\x82\x85aaaahello") * 10:
            async with stranger(one, say):
                await asyncio.sleep(0.005)
        await eventually(lambda: len(os.listdir("/proc/self/fd")) <= before, "all sockets are closed")


async def test_many_refusals_are_counted_and_few_are_logged(
    node: Running, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        for _ in range(30):
            async with knocking(node) as wire:
                await wire.send(b"garbage")
                await wire.receive()
    assert counted(node, "refused_connections.malformed") == 30
    lines = [record.getMessage() for record in caplog.records if "refused" in record.getMessage()]
    assert len(lines) == 1
    assert HERE in lines[0]


# After the proof


async def test_a_frame_that_was_changed_ends_the_link_unheard(node: Running) -> None:
    ear = Ear(node.transport)
    async with inside(node) as insider:
        frame = bytearray(insider.note(1))
        frame[-3] ^= 1
        await insider.wire.send(bytes(frame))
        await counts(node, "refused_frames.tampered")
        await eventually(lambda: node.transport.links()["a"].state is not LinkState.CONNECTED, "it ends")
    assert not ear.heard


async def test_a_frame_that_comes_again_ends_the_link_and_is_heard_once(node: Running) -> None:
    ear = Ear(node.transport)
    async with inside(node) as insider:
        frame = insider.note(1)
        for _ in range(2):
            await insider.wire.send(frame)
        await counts(node, "refused_frames.replayed")
        await eventually(lambda: node.transport.links()["a"].state is not LinkState.CONNECTED, "it ends")
    assert ear.numbers("a") == [1]


async def test_frames_in_another_order_end_the_link_unheard(node: Running) -> None:
    ear = Ear(node.transport)
    async with inside(node) as insider:
        first, second = insider.note(1), insider.note(2)
        await insider.wire.send(second)
        await insider.wire.send(first)
        await counts(node, "refused_frames.skipped")
    assert not ear.heard


async def test_a_frame_of_an_earlier_link_is_refused_on_the_next(node: Running) -> None:
    async with inside(node) as insider:
        frame = insider.note(1)
    await eventually(lambda: node.transport.links()["a"].state is not LinkState.CONNECTED, "it ends")
    ear = Ear(node.transport)
    async with inside(node) as insider:
        await insider.wire.send(frame)
        await counts(node, "refused_frames.tampered")
    assert not ear.heard


async def test_a_frame_larger_than_the_limit_ends_the_link(node: Running) -> None:
    async with inside(node) as insider:
        payload = b'{"topic":"log","body":{"x":"%b"}}' % (b"x" * 2 * BODY_LIMIT)
        await insider.wire.send(insider.sealer.seal(payload))
        await counts(node, "refused_frames.oversized")


@pytest.mark.parametrize(
    "payload", [b"", b"x", b"[]", b'{"topic": 1, "body": {}}', b'{"topic":"log","body":[]}', b"[" * 100_000]
)
async def test_a_sealed_frame_without_sense_ends_the_link(node: Running, payload: bytes) -> None:
    async with inside(node) as insider:
        await insider.wire.send(insider.sealer.seal(payload))
        await counts(node, "refused_frames.malformed")


async def test_a_text_message_ends_the_link(node: Running) -> None:
    async with inside(node) as insider:
        await insider.wire._ws.send_str("hello")
        await counts(node, "refused_frames.malformed")


async def test_a_topic_of_another_version_is_counted_and_the_link_lives(node: Running) -> None:
    ear = Ear(node.transport)
    async with inside(node) as insider:
        await insider.wire.send(insider.sealer.seal(b'{"topic":"gossip","body":{"x":1}}'))
        await insider.wire.send(insider.note(2))
        await eventually(lambda: ear.numbers("a") == [2], "the next message is heard")
    assert counted(node, "dropped.unknown-topic") == 1


async def test_a_listener_that_fails_costs_one_message_and_is_logged(
    node: Running, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(sender: str, message: Message) -> None:
        raise LookupError("a bug")

    node.transport.listen(fail)
    ear = Ear(node.transport)
    async with inside(node) as insider:
        for number in (1, 2):
            await insider.wire.send(insider.note(number))
        await eventually(lambda: ear.numbers("a") == [1, 2], "the others hear on")
    assert "a bug" in caplog.text


async def test_a_member_that_never_reads_is_given_a_bounded_part_of_memory(node: Running) -> None:
    async with inside(node) as insider:
        insider.wire._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        accepted, size = 0, 200_000
        for number in range(500):
            accepted += node.transport.send("a", note(number, size=size))
            await asyncio.sleep(0)
        assert node.transport.links()["a"].state is LinkState.CONNECTED
        assert accepted * size < 20 << 20
        waiting = {
            sample.labels["peer"]: sample.value
            for sample in node.transport.samples()
            if sample.name == "vcl_mesh_queue_bytes"
        }
        assert 0 < waiting["a"] <= IMPATIENT.queue_bytes
        assert counted(node, "not_sent.queue-full") > 0
        for number in range(100):
            assert node.transport.send("a", note(number, topic=Topic.HEARTBEAT))


async def test_a_member_that_falls_silent_is_let_go(node: Running) -> None:
    async with inside(node):
        await eventually(
            lambda: node.transport.links()["a"].state is not LinkState.CONNECTED, "the link ends"
        )
    assert counted(node, "links.lost") == 1
