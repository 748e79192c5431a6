"""The mesh, as the loops see it: small messages to other nodes, as hints. Nothing waits for an answer.

A link is authenticated before anything that came over it is heard. What cannot be sent at once is queued up
to a bound and then refused: a slow peer costs its own messages, never this node's memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where a node listens: an IP address or host name, and a TCP port."""

    address: str
    port: int


class Topic(StrEnum):
    """What a message is about; an unknown topic is counted and dropped (another version of vcl)."""

    HEARTBEAT = "heartbeat"
    """Only the latest counts: it replaces one that still waits, overtakes logs, and is never refused for want
    of room."""
    WAKE = "wake"
    """The store has changed: `{revision}`. Only the latest counts, as with heartbeats."""
    LOG = "log"
    """Log records for a reader that asked: `{reader, records, dropped}`."""
    LOG_ASK = "log-ask"
    """Send log records: `{reader, filter}`."""
    LOG_END = "log-end"
    """The reader is gone: `{reader}`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """`body` is JSON-shaped, at most 256 KiB when encoded."""

    topic: Topic
    body: Mapping[str, Any]


class LinkState(StrEnum):
    CONNECTED = "Connected"
    CONNECTING = "Connecting"
    REFUSED = "Refused"
    """The host answered that nobody listens: it lives, and its daemon does not."""
    UNREACHABLE = "Unreachable"
    """No answer: nothing is known of the host."""
    DENIED = "Denied"
    """Somebody answered who is not (or does not take us for) a member of this cluster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """`since`: when `state` became what it is, in monotonic seconds; `reason`: in words, if not connected."""

    state: LinkState
    since: float
    reason: str = ""


Listener = Callable[[str, Message], None]
"""Called with the sender's authenticated name, in the order of arrival; must return at once."""


class Transport(Protocol):
    """This node's end of the mesh."""

    def connect(self, peers: Mapping[str, Endpoint]) -> None:
        """Keep links to these nodes from now on, and to no others. Idempotent."""
        ...

    def links(self) -> Mapping[str, Link]:
        """Every peer that was named in `connect`."""
        ...

    def send(self, node: str, message: Message) -> bool:
        """Queue it; False (and counted) when there is no link or its queue is full."""
        ...

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Hear every message; returns the undo."""
        ...

    async def run(self) -> None:
        """Listen, connect and reconnect until cancelled. Raises VclError when it cannot listen at all."""
        ...
