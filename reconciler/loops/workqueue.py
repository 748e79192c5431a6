"""One work queue, as in Kubernetes' controllers: a key is worked on by one worker at a time, and however
often it is added meanwhile, it is worked on once more afterwards.

Invariant: two workers never hold the same key (calls for one VM are serialised).
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque

from reconciler.ports.clock import Clock


class WorkQueue:
    """Keys to look at, now or later."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ready: deque[str] = deque()
        self._waiting: set[str] = set()
        self._active: set[str] = set()
        self._again: set[str] = set()
        self._later: list[tuple[float, str]] = []
        self._due: dict[str, float] = {}
        self._wake = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting) + len(self._again)

    def add(self, key: str) -> None:
        """Look at `key` as soon as a worker is free."""
        if key in self._active:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            self._ready.append(key)
            self._wake.set()

    def add_at(self, key: str, when: float) -> None:
        """Look at `key` at the monotonic time `when` at the latest; an earlier date stands."""
        due = self._due.get(key)
        if due is None or when < due:
            self._due[key] = when
            heapq.heappush(self._later, (when, key))
            self._wake.set()

    def forget(self, key: str) -> None:
        """Drop the later date of `key`."""
        self._due.pop(key, None)

    async def get(self) -> str:
        """The next key; `done(key)` must follow."""
        while True:
            deadline = self._release_due()
            if self._ready:
                key = self._ready.popleft()
                self._waiting.discard(key)
                self._active.add(key)
                if self._ready:
                    self._wake.set()
                return key
            self._wake.clear()
            await self._sleep_until(deadline)

    def done(self, key: str) -> None:
        """The worker has finished with `key`."""
        self._active.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    def _release_due(self) -> float | None:
        """Make ready what is due; the time of the next, or None."""
        now = self._clock.monotonic()
        while self._later:
            when, key = self._later[0]
            if self._due.get(key) != when:
                heapq.heappop(self._later)
            elif when <= now:
                heapq.heappop(self._later)
                del self._due[key]
                self.add(key)
            else:
                return when
        return None

    async def _sleep_until(self, deadline: float | None) -> None:
        if deadline is None:
            await self._wake.wait()
            return
        try:
            async with asyncio.timeout(max(0.0, deadline - self._clock.monotonic())):
                await self._wake.wait()
        except TimeoutError:
            return
