"""What waits to be sent to one peer, within bounds.

Invariant: it holds at most `most_messages` messages and `most_bytes` bytes, and besides those one message of
each topic of which only the latest counts. Heartbeats and wake-ups overtake logs, replace their older ones,
and are never refused.
"""

from __future__ import annotations

import asyncio
from collections import deque

from reconciler.adapters.mesh.frames import Control
from reconciler.ports.transport import Topic

LATEST_COUNTS = frozenset({Topic.HEARTBEAT, Topic.WAKE, *Control})


class Outbox:
    """`put` at one end, `take` at the other."""

    def __init__(self, *, most_messages: int, most_bytes: int) -> None:
        self.replaced = 0
        """Messages that a later one of the same topic made superfluous."""
        self.waiting_bytes = 0
        self._most_messages = most_messages
        self._most_bytes = most_bytes
        self._latest: dict[Topic | Control, bytes] = {}
        self._queue: deque[bytes] = deque()
        self._filled = asyncio.Event()

    def put(self, topic: Topic | Control, payload: bytes) -> bool:
        """False when there is no room."""
        if topic in LATEST_COUNTS:
            older = self._latest.get(topic)
            if older is not None:
                self.replaced += 1
                self.waiting_bytes -= len(older)
            self._latest[topic] = payload
        else:
            full = len(self._queue) >= self._most_messages
            if full or self.waiting_bytes + len(payload) > self._most_bytes:
                return False
            self._queue.append(payload)
        self.waiting_bytes += len(payload)
        self._filled.set()
        return True

    async def take(self) -> bytes:
        """The next payload; waits for one."""
        while True:
            if self._latest:
                payload = self._latest.pop(next(iter(self._latest)))
                break
            if self._queue:
                payload = self._queue.popleft()
                break
            self._filled.clear()
            await self._filled.wait()
        self.waiting_bytes -= len(payload)
        return payload
