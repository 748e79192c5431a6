"""Time and ids that a test holds in its hand: the same run gives the same times, UUIDs and jitter."""

from __future__ import annotations

import random
import uuid
from datetime import UTC, datetime, timedelta

START = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)


class VirtualClock:
    """Stands still until `advance` is called; wall time moves with monotonic time."""

    def __init__(self, *, start: datetime = START) -> None:
        self._start = start
        self._elapsed = 0.0

    def monotonic(self) -> float:
        """Seconds since the clock was made."""
        return self._elapsed

    def wall(self) -> str:
        """Now in UTC, such as 2026-01-31T12:00:00Z."""
        now = self._start + timedelta(seconds=self._elapsed)
        return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def advance(self, seconds: float) -> None:
        """Move on by `seconds`; ValueError for a step back, which monotonic time never makes."""
        if seconds < 0:
            raise ValueError(f"monotonic time does not go back: {seconds} s")
        self._elapsed += seconds


class SeededIds:
    """UUIDs and jitter that depend on `seed` and on how often they were asked for, on nothing else."""

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)

    def uuid(self) -> str:
        """The next UUID (version 4 in form)."""
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))

    def jitter(self) -> float:
        """The next number in [0, 1)."""
        return self._random.random()
