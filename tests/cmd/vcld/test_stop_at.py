"""The hook with which tests stop a daemon at a step: once, there, and never without being asked."""

from __future__ import annotations

import os
import signal

from vcld.stop_at import VARIABLE, stop_at


def sent(environment: dict[str, str]) -> list[tuple[int, int]]:
    signals: list[tuple[int, int]] = []
    reached = stop_at(environment, lambda pid, number: signals.append((pid, number)))
    for point in ("fencing:Fence", "fencing:Settle", "fencing:Settle"):
        reached(point)
    return signals


def test_it_stops_once_at_the_step_that_is_named_and_never_otherwise() -> None:
    assert sent({VARIABLE: "fencing:Settle"}) == [(os.getpid(), signal.SIGKILL)]
    assert sent({VARIABLE: "fencing:Settle:STOP"}) == [(os.getpid(), signal.SIGSTOP)]
    assert sent({VARIABLE: "fencing:Lift"}) == []
    assert sent({}) == []
