"""The real clock and real randomness, for the daemon."""

from __future__ import annotations

import random
import time
import uuid
from datetime import UTC, datetime


class SystemClock:
    """Monotonic time counts while the host is suspended: a lease must not outlive a nap that nobody saw."""

    def monotonic(self) -> float:
        """Seconds since boot, suspended time included."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def wall(self) -> str:
        """Now in UTC, such as 2026-01-31T12:00:00Z."""
        return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class SystemIds:
    """Random UUIDs and jitter from the kernel's generator."""

    def __init__(self) -> None:
        self._random = random.SystemRandom()

    def uuid(self) -> str:
        """A new random UUID (version 4)."""
        return str(uuid.uuid4())

    def jitter(self) -> float:
        """A number in [0, 1)."""
        return self._random.random()
