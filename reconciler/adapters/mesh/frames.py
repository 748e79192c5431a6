"""What goes over a link: sealed frames, each with one JSON object inside.

    frame    8 bytes number, 32 bytes HMAC-SHA256(key, number + payload), payload
    payload  {"topic": ..., "body": {...}}

Invariant: a payload is looked at only when its number is the next one and its seal is right. So what was
tampered with, replayed, reordered or left out is refused, and nobody without the link's key is heard.
The key is one for each direction of each connection.
"""

from __future__ import annotations

import hmac
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from reconciler.ports.transport import Message, Topic

BODY_LIMIT = 256 << 10
"""Bytes of an encoded body."""
_NUMBER = struct.Struct(">Q")
_TAG_BYTES = 32
_HEADER_BYTES = _NUMBER.size + _TAG_BYTES
FRAME_LIMIT = BODY_LIMIT + 256
"""Bytes of a frame: the largest body, a topic and the header fit."""
_TOPICS: Mapping[str, Topic] = {topic.value: topic for topic in Topic}


class FrameProblem(StrEnum):
    """Why a frame is refused."""

    MALFORMED = "malformed"
    OVERSIZED = "oversized"
    TAMPERED = "tampered"
    REPLAYED = "replayed"
    SKIPPED = "skipped"


class FrameRefused(Exception):
    """The link is not to be trusted any more; a new one has new keys."""

    def __init__(self, problem: FrameProblem, detail: str) -> None:
        super().__init__(f"{problem.value} frame: {detail}")
        self.problem = problem


class Control(StrEnum):
    """What the two ends tell each other about the link itself; never heard by a listener."""

    USE = "mesh/use"
    """This connection is the link from now on: `{life, number}`. First message of a connection."""
    SPARE = "mesh/spare"
    """There is a link already, this connection is not needed."""
    PING = "mesh/ping"
    """Nothing was said for a while, and the link lives."""


_CONTROLS: Mapping[str, Control] = {control.value: control for control in Control}


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlMessage:
    control: Control
    body: Mapping[str, Any]


class Sealer:
    """One direction of one connection, on the sender's side."""

    __slots__ = ("_key", "_number")

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._number = 0

    def seal(self, payload: bytes) -> bytes:
        """The next frame."""
        self._number += 1
        number = _NUMBER.pack(self._number)
        return number + hmac.digest(self._key, number + payload, "sha256") + payload


class Opener:
    """One direction of one connection, on the receiver's side."""

    __slots__ = ("_key", "_number")

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._number = 0

    def open(self, frame: bytes) -> bytes:
        """The payload of the next frame. Raises FrameRefused."""
        if len(frame) < _HEADER_BYTES:
            raise FrameRefused(FrameProblem.MALFORMED, f"{len(frame)} bytes are less than its header")
        if len(frame) > FRAME_LIMIT:
            raise FrameRefused(FrameProblem.OVERSIZED, f"{len(frame)} bytes")
        number, tag, payload = (
            frame[: _NUMBER.size],
            frame[_NUMBER.size : _HEADER_BYTES],
            frame[_HEADER_BYTES:],
        )
        if not hmac.compare_digest(tag, hmac.digest(self._key, number + payload, "sha256")):
            raise FrameRefused(FrameProblem.TAMPERED, "its seal is wrong")
        self._count(_NUMBER.unpack(number)[0])
        return payload

    def _count(self, number: int) -> None:
        if number <= self._number:
            raise FrameRefused(FrameProblem.REPLAYED, f"number {number} after number {self._number}")
        if number > self._number + 1:
            raise FrameRefused(FrameProblem.SKIPPED, f"number {number} after number {self._number}")
        self._number = number


def encode(topic: Topic | Control, body: Mapping[str, Any]) -> bytes | None:
    """The payload; None when the body is too large. TypeError or ValueError if it is not JSON-shaped."""
    encoded = json.dumps(body, separators=(",", ":"), allow_nan=False).encode("ascii")
    if len(encoded) > BODY_LIMIT:
        return None
    return b'{"topic":"%b","body":%b}' % (topic.value.encode("ascii"), encoded)


def decode(payload: bytes) -> Message | ControlMessage | None:
    """What a payload says; None for an unknown topic. Raises FrameRefused."""
    try:
        data = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise FrameRefused(FrameProblem.MALFORMED, f"not JSON ({type(error).__name__})") from error
    topic = data.get("topic") if isinstance(data, dict) else None
    if not isinstance(topic, str):
        raise FrameRefused(FrameProblem.MALFORMED, "no topic")
    body = data.get("body")
    if not isinstance(body, dict):
        raise FrameRefused(FrameProblem.MALFORMED, "no body")
    if topic in _TOPICS:
        return Message(topic=_TOPICS[topic], body=body)
    if topic in _CONTROLS:
        return ControlMessage(control=_CONTROLS[topic], body=body)
    return None
