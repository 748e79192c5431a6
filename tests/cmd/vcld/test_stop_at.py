"""The hook with which tests stop a daemon at a step: once, there, and never without being asked."""

from __future__ import annotations

import os
import signal
from pathlib import Path

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


def test_a_file_says_where_and_may_change_its_mind(tmp_path: Path) -> None:
    file, signals = tmp_path / "stop-at", list[int]()
    reached = stop_at({VARIABLE: f"@{file}"}, lambda _, number: signals.append(number))
    reached("fencing:Fence")
    file.write_text("fencing:Settle:STOP\n")
    for point in ("fencing:Fence", "fencing:Settle", "fencing:Settle"):
        reached(point)
    assert signals == [signal.SIGSTOP]
    file.write_text("fencing:Lift\n")
    reached("fencing:Settle")
    reached("fencing:Lift")
    assert signals == [signal.SIGSTOP, signal.SIGKILL]
    file.write_text("")
    reached("fencing:Lift")
    file.write_text("fencing:Lift\n")
    reached("fencing:Lift")
    assert signals == [signal.SIGSTOP, signal.SIGKILL, signal.SIGKILL]
