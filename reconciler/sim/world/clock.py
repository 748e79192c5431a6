"""A node's clocks: monotonic time from its loop, and a wall clock that somebody may set."""

from __future__ import annotations

from datetime import datetime, timedelta

from reconciler.sim.clock import START
from reconciler.sim.world.loop import NodeLoop
from reconciler.sim.world.schedule import Schedule


class WallClock:
    """The host's clock of the day: `offset` seconds beside the world's. It survives everything."""

    def __init__(self, schedule: Schedule, *, start: datetime = START) -> None:
        self._schedule = schedule
        self._start = start
        self._base = 0.0
        self._since = schedule.now
        self._rate = 1.0

    def now(self) -> datetime:
        """The host's idea of now, in UTC."""
        return self._start + timedelta(seconds=self._elapsed())

    def jump(self, seconds: float) -> None:
        """Somebody sets it: forward, or back for a negative number."""
        self._base += seconds

    def set_rate(self, rate: float) -> None:
        """It runs fast (more than 1) or slow from now on."""
        self._base, self._since, self._rate = self._elapsed(), self._schedule.now, rate

    def _elapsed(self) -> float:
        return self._base + (self._schedule.now - self._since) * self._rate


class NodeClock:
    """The Clock port of one process."""

    def __init__(self, loop: NodeLoop, wall: WallClock) -> None:
        self._loop = loop
        self._wall = wall

    def monotonic(self) -> float:
        """See Clock.monotonic."""
        return self._loop.time()

    def wall(self) -> str:
        """See Clock.wall."""
        return self._wall.now().strftime("%Y-%m-%dT%H:%M:%SZ")
