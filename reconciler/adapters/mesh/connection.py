"""One authenticated connection: reads and writes sealed frames until it breaks.

Invariant: what it waits to send is bounded (Outbox, and one frame in the socket's buffer), and what it hears
is opened before it is believed. The first frame that is refused ends it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Any

from reconciler.adapters.mesh.counts import Counts
from reconciler.adapters.mesh.frames import (
    Control,
    ControlMessage,
    FrameProblem,
    FrameRefused,
    Opener,
    Sealer,
    decode,
    encode,
)
from reconciler.adapters.mesh.handshake import Proven
from reconciler.adapters.mesh.options import Limits
from reconciler.adapters.mesh.outbox import Outbox
from reconciler.adapters.mesh.wire import Wire
from reconciler.ports.transport import Message


class Connection:
    """`node` is proven. `heard_at`, `sent_at`: by the loop's time."""

    def __init__(
        self, wire: Wire, proven: Proven, *, limits: Limits, counts: Counts, hear: Callable[[Message], None]
    ) -> None:
        self.node = proven.node
        self.remote = wire.remote
        self.outbox = Outbox(most_messages=limits.queue_messages, most_bytes=limits.queue_bytes)
        self._wire = wire
        self._sealer = Sealer(proven.send_key)
        self._opener = Opener(proven.receive_key)
        self._counts = counts
        self._hear = hear
        self._time = asyncio.get_running_loop().time
        self._verdict: Exception | None = None
        self.began_at = self.heard_at = self.sent_at = self._time()

    def say(self, control: Control, body: Mapping[str, Any] | None = None) -> None:
        """Queue a message about the link itself."""
        payload = encode(control, body or {})
        if payload is not None:
            self.outbox.put(control, payload)

    async def dismiss(self) -> None:
        """Tell the other end that this connection is not needed. Raises ConnectionError."""
        self.say(Control.SPARE)
        await self._wire.send(self._sealer.seal(await self.outbox.take()))

    async def verdict(self) -> ControlMessage:
        """The other end's first message. Raises ConnectionError and FrameRefused."""
        message = decode(await self._next())
        if not isinstance(message, ControlMessage) or message.control is Control.PING:
            raise FrameRefused(FrameProblem.MALFORMED, "it spoke before it was asked to")
        return message

    async def run(self) -> None:
        """Hear and send until the connection breaks: always ends with ConnectionError, TimeoutError or
        FrameRefused."""
        writer = asyncio.create_task(self._write(), name=f"mesh: write to {self.node}")
        try:
            await self._read()
        except ConnectionError as error:
            raise self._verdict or error from None
        finally:
            self._wire.abort()
            writer.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await writer

    def end(self, verdict: Exception) -> None:
        """End it now; `run` ends with this error."""
        self._verdict = verdict
        self._wire.abort()

    async def _read(self) -> None:
        while True:
            message = decode(await self._next())
            if isinstance(message, Message):
                self._hear(message)
            elif message is None:
                self._counts.add("dropped", "unknown-topic")

    async def _next(self) -> bytes:
        frame = await self._wire.receive()
        payload = self._opener.open(frame)
        self.heard_at = self._time()
        self._counts.add("messages", "in")
        self._counts.add("bytes", "in", len(frame))
        return payload

    async def _write(self) -> None:
        try:
            while True:
                frame = self._sealer.seal(await self.outbox.take())
                await self._wire.send(frame)
                self.sent_at = self._time()
                self._counts.add("messages", "out")
                self._counts.add("bytes", "out", len(frame))
        finally:
            self._wire.abort()
