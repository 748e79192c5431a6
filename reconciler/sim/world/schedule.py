"""The world's time: a queue of what happens when, in seconds since the world began.

Invariant: time only moves when the next event is taken, and events of one instant happen in the order in
which they were asked for. Nothing here looks at a real clock.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any


class Schedule:
    """`now` is virtual time in seconds, from 0."""

    __slots__ = ("_heap", "_serial", "now")

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._serial = 0

    def call_at(self, when: float, callback: Callable[..., object], *args: Any) -> None:
        """Call back at `when`, or as soon as possible if that is past. There is no undo: let the callback
        find out that it is not wanted any more."""
        self._serial += 1
        heappush(self._heap, (when if when > self.now else self.now, self._serial, callback, args))

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> None:
        """The same, `delay` seconds from now."""
        self.call_at(self.now + delay, callback, *args)

    def next(self) -> float:
        """When the next event happens; infinity when nothing ever will."""
        return self._heap[0][0] if self._heap else float("inf")

    def step(self) -> None:
        """Move on to the next event and let it happen. IndexError when there is none."""
        self.now, _, callback, args = heappop(self._heap)
        callback(*args)

    def clear(self) -> None:
        """Forget everything that was to come."""
        self._heap.clear()
