"""Silence is a hang only when it is known to be the guest's."""

from __future__ import annotations

from reconciler.planning.hangs import Watch, begun, due, interrupted, judged
from reconciler.resources.domains import AgentPing
from reconciler.resources.virtualmachine import Liveness

ASKED = Liveness(initial_delay_seconds=30, period_seconds=10, timeout_seconds=2, failure_threshold=3)
YES, NO = AgentPing(answered=True, boot="b1"), AgentPing(answered=False, boot="b1")
AGAIN = AgentPing(answered=False, boot="b2")


def after(*pings: AgentPing | None) -> Watch:
    watch = begun(Watch(), 0.0)
    for number, ping in enumerate(pings):
        watch = judged(watch, ASKED, ping, 30.0 + 10.0 * number)
    return watch


def test_three_unanswered_pings_in_a_row_after_an_answer_are_a_hang() -> None:
    assert not after(YES, NO, NO).hung
    assert after(YES, NO, NO, NO).hung == (
        "the guest hangs: its agent has answered before, and not to 3 pings in a row (each waited for 2 s)"
    )


def test_an_agent_that_never_answered_is_no_hang() -> None:
    assert not after(NO, NO, NO, NO, NO).hung


def test_an_answer_begins_the_count_anew() -> None:
    assert not after(YES, NO, NO, YES, NO, NO).hung


def test_what_is_not_known_begins_the_count_anew() -> None:
    assert not after(YES, NO, NO, None, NO, NO).hung
    assert after(YES, None, NO, NO, NO).hung


def test_after_a_reboot_the_agent_must_answer_again_before_its_silence_counts() -> None:
    assert not after(YES, NO, NO, AGAIN, AGAIN, AGAIN, AGAIN).hung


def test_a_pause_begins_the_count_anew() -> None:
    paused = interrupted(after(YES, NO, NO))
    assert not judged(paused, ASKED, NO, 100.0).hung
    assert not interrupted(after(YES, NO, NO, NO)).hung


def test_the_first_ping_waits_for_the_delay_and_the_others_for_the_period() -> None:
    assert due(begun(Watch(), 5.0), ASKED, 5.0) == 35.0
    assert due(after(YES), ASKED, 31.0) == 40.0
