"""Which calls may still take effect."""

from __future__ import annotations

from reconciler.adapters.libvirt.outstanding import SETTLE, Epoch, Outstanding


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def epoch(number: int, opened: float, took: float = 0.01) -> Epoch:
    return Epoch(number=number, opened=opened, took=took)


def test_a_call_blocks_its_name_and_its_uid_until_it_was_answered() -> None:
    calls, first = Outstanding(Clock()), epoch(1, 0.0)
    call = calls.begin(name="web", uid="u1", what="create", epoch=first)
    assert "not yet answered the call to create" in calls.why_unknown(name="web", uid="", epoch=first)
    assert calls.why_unknown(name="other", uid="u1", epoch=first)
    assert calls.why_unknown(name="other", uid="u2", epoch=first) == ""
    calls.end(call)
    assert calls.why_unknown(name="web", uid="u1", epoch=first) == ""


def test_a_lost_call_is_over_once_a_later_connection_has_stood_for_a_while() -> None:
    clock = Clock()
    calls = Outstanding(clock)
    call = calls.begin(name="web", uid="u1", what="create", epoch=epoch(1, 0.0))
    calls.lose(call)
    calls.end(call)
    assert "lost" in calls.why_unknown(name="web", uid="u1", epoch=epoch(1, 0.0)), "its own never proves it"
    later = epoch(2, clock.now)
    clock.now += SETTLE - 0.1
    assert "wait 0.1 s more" in calls.why_unknown(name="web", uid="u1", epoch=later)
    clock.now += 0.1
    assert calls.why_unknown(name="web", uid="u1", epoch=later) == ""


def test_after_a_slow_connection_nothing_is_known_for_a_while() -> None:
    clock = Clock()
    calls, slow = Outstanding(clock), epoch(1, clock.now, took=3.0)
    assert "only just come back" in calls.why_unknown(name="web", uid="", epoch=slow)
    clock.now += SETTLE
    assert calls.why_unknown(name="web", uid="", epoch=slow) == ""
