"""Time, as an argument: the real clock in the daemon, a virtual one in the simulation."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """`monotonic` decides; `wall` is only shown to people."""

    def monotonic(self) -> float:
        """Seconds that never jump; the origin means nothing."""
        ...

    def wall(self) -> str:
        """Now, as RFC 3339 in UTC with whole seconds: 2026-01-31T12:00:00Z."""
        ...


class Ids(Protocol):
    """Randomness, as an argument."""

    def uuid(self) -> str:
        """A new random UUID."""
        ...

    def jitter(self) -> float:
        """A number in [0, 1)."""
        ...
