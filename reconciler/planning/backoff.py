"""How long to wait before trying again: 1 s, doubling to 60 s, with jitter against crowds."""

from __future__ import annotations

FIRST = 1.0
LAST = 60.0


def delay(failures: int, jitter: float) -> float:
    """Seconds to wait after that many failures in a row (>= 1); `jitter` in [0, 1) adds up to 20 %."""
    base = min(LAST, FIRST * 2.0 ** min(max(failures, 1) - 1, 16))
    return base * (1.0 + 0.2 * jitter)
