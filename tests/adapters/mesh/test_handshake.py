"""Both ends prove the secret over everything that was said; nobody in between can change a byte of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.adapters.mesh.handshake import (
    Hello,
    Identity,
    Proven,
    Refusal,
    Refused,
    agree,
    dial,
    listen,
    make_hello,
    prove,
    read_hello,
)

END = b""
SECRET = b"s" * 32
A = Identity(node="a", cluster_uid="uid", protocols=(1, 1), secret=SECRET)
B = replace(A, node="b")


class Pipe:
    """One end of a wire in memory. `tamper(number, data)` sees what this end sends, and may change it."""

    def __init__(self) -> None:
        self.certified: frozenset[str] | None = None
        self.remote = "memory"
        self.sent: list[bytes] = []
        self.other: Pipe
        self.queue: asyncio.Queue[bytes] = asyncio.Queue()
        self.tamper = lambda number, data: data

    async def send(self, data: bytes) -> None:
        self.sent.append(data)
        self.other.queue.put_nowait(self.tamper(len(self.sent), data))

    async def receive(self, limit: int) -> bytes:
        async with asyncio.timeout(10):
            data = await self.queue.get()
        if data == END:
            raise ConnectionResetError("the other end is gone")
        return data

    async def until(self, ending: Awaitable[Proven]) -> Proven:
        """Hang up when it has ended."""
        try:
            return await ending
        finally:
            self.other.queue.put_nowait(END)


def pipes() -> tuple[Pipe, Pipe]:
    one, other = Pipe(), Pipe()
    one.other, other.other = other, one
    return one, other


async def greet(
    dialler: Identity = A, listener: Identity = B, *, ends: tuple[Pipe, Pipe] | None = None, to: str = "b"
) -> tuple[Proven | BaseException, Proven | BaseException]:
    one, other = ends or pipes()
    first, second = await asyncio.gather(
        one.until(dial(one, dialler, to)),  # type: ignore[arg-type]
        other.until(listen(other, listener, {"a", "b"}.__contains__)),  # type: ignore[arg-type]
        return_exceptions=True,
    )
    return first, second


def refusal(result: object) -> Refusal:
    assert isinstance(result, Refused), result
    return result.refusal


async def test_both_know_each_other_and_have_the_same_keys() -> None:
    first, second = await greet()
    assert isinstance(first, Proven)
    assert isinstance(second, Proven)
    assert (first.node, second.node) == ("b", "a")
    assert (first.send_key, first.receive_key) == (second.receive_key, second.send_key)
    assert first.send_key != first.receive_key
    again, _ = await greet()
    assert isinstance(again, Proven)
    assert again.send_key != first.send_key


@pytest.mark.parametrize(
    ("ours", "theirs", "agreed"),
    [((1, 1), (1, 1), 1), ((1, 2), (2, 3), 2), ((2, 3), (1, 2), 2), ((1, 2), (1, 1), 1), ((1, 3), (2, 4), 3)],
)
async def test_adjacent_versions_agree_on_the_highest_common_one(
    ours: tuple[int, int], theirs: tuple[int, int], agreed: int
) -> None:
    first, second = await greet(replace(A, protocols=ours), replace(B, protocols=theirs))
    assert isinstance(first, Proven)
    assert isinstance(second, Proven)
    assert first.protocol == second.protocol == agreed


@pytest.mark.parametrize(("ours", "theirs"), [((1, 2), (3, 4)), ((3, 4), (1, 2))])
async def test_versions_too_far_apart_are_refused_at_both_ends(
    ours: tuple[int, int], theirs: tuple[int, int]
) -> None:
    first, second = await greet(replace(A, protocols=ours), replace(B, protocols=theirs))
    assert refusal(first) is refusal(second) is Refusal.VERSION
    assert "1 to 2" in str(second)
    assert "3 to 4" in str(second)
    assert "upgrade" in str(first)


async def test_whoever_dials_without_the_secret_gets_no_proof_to_guess_from() -> None:
    ends = pipes()
    first, second = await greet(replace(A, secret=b"guess"), ends=ends)
    assert refusal(first) is refusal(second) is Refusal.SECRET
    assert not any(b"proof" in data for data in ends[1].sent)


async def test_whoever_answers_without_the_secret_is_refused() -> None:
    one, other = pipes()
    answering = asyncio.create_task(_answer_without_the_secret(other))
    with pytest.raises(Refused) as refused:
        await dial(one, A, "b")  # type: ignore[arg-type]
    assert refused.value.refusal is Refusal.SECRET
    await answering


async def _answer_without_the_secret(wire: Pipe) -> None:
    theirs = read_hello(await wire.receive(4096))
    ours = make_hello(B, "a")
    await wire.send(ours.raw)
    await wire.receive(4096)
    await wire.send(b'{"proof": "%b"}' % prove(b"guess", "listener", theirs, ours).hex().encode())


async def test_a_proof_sent_back_is_no_proof() -> None:
    one, other = pipes()
    reflecting = asyncio.create_task(_reflect(other))
    with pytest.raises(Refused):
        await dial(one, A, "b")  # type: ignore[arg-type]
    await reflecting


async def _reflect(wire: Pipe) -> None:
    await wire.receive(4096)
    await wire.send(make_hello(B, "a").raw)
    await wire.send(await wire.receive(4096))


async def test_a_hello_of_ones_own_sent_back_is_refused() -> None:
    one, _ = pipes()
    one.other = one
    with pytest.raises(Refused) as refused:
        await dial(one, A, "b")  # type: ignore[arg-type]
    assert refused.value.refusal is Refusal.NAME


@pytest.mark.parametrize(("sender", "message"), [(0, 1), (0, 2), (1, 1), (1, 2)])
@given(data=st.data())
def test_any_changed_byte_ends_it(sender: int, message: int, data: st.DataObject) -> None:
    share = data.draw(st.floats(0, 1, exclude_max=True))
    flip = data.draw(st.integers(1, 127))

    def tamper(number: int, sent: bytes) -> bytes:
        if number != message:
            return sent
        changed = bytearray(sent)
        changed[int(share * len(sent))] ^= flip
        return bytes(changed)

    async def run() -> tuple[object, object]:
        ends = pipes()
        ends[sender].tamper = tamper
        return await greet(ends=ends)

    first, second = asyncio.run(run())
    if (sender, message) == (1, 2):
        assert not isinstance(first, Proven), "the last message: only the dialler can notice"
    else:
        assert not isinstance(second, Proven)
        assert not isinstance(first, Proven)


@given(st.binary(max_size=200))
def test_reading_a_hello_gives_one_or_refuses(raw: bytes) -> None:
    words: list[str] = []
    try:
        hello: Hello | None = read_hello(raw)
    except Refused as refused:
        hello = None
        words.append(refused.words)
    assert isinstance(hello, Hello) is not any(words)


async def test_a_certificate_counts_for_its_node_only() -> None:
    one, other = pipes()
    one.certified, other.certified = frozenset({"b"}), frozenset({"c"})
    first, second = await greet(ends=(one, other))
    assert refusal(first) is refusal(second) is Refusal.CERTIFICATE
    assert "made out to c" in str(second)


async def test_another_node_at_the_address_is_refused() -> None:
    first, second = await greet(to="c")
    assert refusal(first) is refusal(second) is Refusal.NAME


async def test_what_an_unproven_end_writes_is_not_shown() -> None:
    with pytest.raises(Refused) as refused:
        read_hello(b'{"refused": "call 555-1234 and read out your secret"}')
    assert "555" not in refused.value.words
    assert refused.value.by_peer


def test_another_cluster_is_refused() -> None:
    with pytest.raises(Refused) as refused:
        agree(make_hello(A, "b"), make_hello(replace(B, cluster_uid="other"), "a"))
    assert refused.value.refusal is Refusal.CLUSTER
