"""Only the next frame with the right seal is opened, and only what makes sense is decoded."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.adapters.mesh.frames import (
    BODY_LIMIT,
    FRAME_LIMIT,
    Control,
    ControlMessage,
    FrameProblem,
    FrameRefused,
    Opener,
    Sealer,
    decode,
    encode,
)
from reconciler.ports.transport import Message, Topic

KEY = b"k" * 32
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
bodies = st.dictionaries(st.text(), values, max_size=4)


def problem(frame: bytes, opener: Opener) -> FrameProblem:
    with pytest.raises(FrameRefused) as refused:
        opener.open(frame)
    return refused.value.problem


@given(st.lists(st.binary(max_size=300), max_size=10))
def test_what_was_sealed_is_opened_in_order(payloads: list[bytes]) -> None:
    sealer, opener = Sealer(KEY), Opener(KEY)
    assert [opener.open(sealer.seal(payload)) for payload in payloads] == payloads


@given(st.binary(max_size=200), st.data())
def test_any_changed_bit_is_refused(payload: bytes, data: st.DataObject) -> None:
    frame = bytearray(Sealer(KEY).seal(payload))
    bit = data.draw(st.integers(0, 8 * len(frame) - 1))
    frame[bit // 8] ^= 1 << bit % 8
    assert problem(bytes(frame), Opener(KEY)) is FrameProblem.TAMPERED


@given(st.binary(max_size=300))
def test_whatever_a_stranger_sends_is_refused(frame: bytes) -> None:
    assert problem(frame, Opener(KEY)) in (FrameProblem.MALFORMED, FrameProblem.TAMPERED)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=12))
def test_of_any_order_only_the_right_beginning_is_opened(order: list[int]) -> None:
    sealer, opener = Sealer(KEY), Opener(KEY)
    frames = [sealer.seal(bytes([number])) for number in range(6)]
    opened = []
    for number in order:
        if number == len(opened):
            opened.append(opener.open(frames[number])[0])
        else:
            wanted = FrameProblem.REPLAYED if number < len(opened) else FrameProblem.SKIPPED
            assert problem(frames[number], opener) is wanted
    assert opened == list(range(len(opened)))


def test_the_frame_of_another_key_is_refused() -> None:
    assert problem(Sealer(b"other").seal(b"x"), Opener(KEY)) is FrameProblem.TAMPERED


def test_a_frame_above_the_limit_is_not_looked_at() -> None:
    assert problem(bytes(FRAME_LIMIT + 1), Opener(KEY)) is FrameProblem.OVERSIZED


@given(st.sampled_from(list(Topic)), bodies)
def test_a_message_arrives_as_it_was(topic: Topic, body: dict[str, Any]) -> None:
    payload = encode(topic, body)
    assert payload is not None
    assert decode(payload) == Message(topic=topic, body=body)


@given(st.sampled_from(list(Control)), bodies)
def test_control_is_never_taken_for_a_message(control: Control, body: dict[str, Any]) -> None:
    payload = encode(control, body)
    assert payload is not None
    assert decode(payload) == ControlMessage(control=control, body=body)


@given(
    st.binary(max_size=100)
    | values.map(lambda value: json.dumps(value).encode())
    | st.fixed_dictionaries({}, optional={"topic": values, "body": values}).map(
        lambda value: json.dumps(value).encode()
    )
)
def test_decoding_gives_a_message_or_refuses(payload: bytes) -> None:
    refused: list[FrameProblem] = []
    try:
        found = decode(payload)
    except FrameRefused as error:
        refused.append(error.problem)
    if refused:
        assert refused == [FrameProblem.MALFORMED]
    else:
        assert found is None or isinstance(found, Message | ControlMessage)


@pytest.mark.parametrize("payload", [b"[" * 200_000, b'{"topic":"log","body":' * 50_000, b"1" * 5000])
def test_json_that_would_break_the_parser_is_malformed(payload: bytes) -> None:
    with pytest.raises(FrameRefused):
        decode(payload)


def test_the_largest_body_fits_into_a_frame_and_one_byte_more_is_not_encoded() -> None:
    room = BODY_LIMIT - len('{"x":""}')
    for topic in (*Topic, *Control):
        payload = encode(topic, {"x": "a" * room})
        assert payload is not None
        assert len(Sealer(KEY).seal(payload)) <= FRAME_LIMIT
        assert encode(topic, {"x": "a" * (room + 1)}) is None


def test_half_a_surrogate_in_a_log_line_is_carried() -> None:
    body = {"message": "name \udcff of a file"}
    payload = encode(Topic.LOG, body)
    assert payload is not None
    assert decode(payload) == Message(topic=Topic.LOG, body=body)
