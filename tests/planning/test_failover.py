"""The timeline of a failover: nothing that was recorded is lost, whoever copies it and however often."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.planning.failover import (
    GUEST,
    VmFacts,
    begun,
    cleared,
    copied,
    first,
    followed,
    is_open,
    joined,
    last_running,
    observed,
    phase_of,
    room_for_one,
    silence_of,
    up,
)
from reconciler.planning.fencing_record import Stamp, failed, finished, note, released
from reconciler.resources.failover import KEPT_FAILOVERS, FailoverPhase, FailoverRecord, VmStep
from reconciler.resources.fencing import FenceCause, FenceRecord, Silence, StepName
from reconciler.resources.records import dump, load

SILENCE = Silence(heard=3.2, lease=4.1, since=3.2)


def stamp(after: float, by: str = "r1") -> Stamp:
    return Stamp(at=f"2026-01-31T12:00:{int(after):02d}Z", epoch=1, after=after, by=by)


def fence_record() -> FenceRecord:
    record = FenceRecord(
        id="id-1",
        node="r3",
        incident="r3-12",
        cause=FenceCause.SILENT,
        reason="silent on both channels",
        epoch=1,
        session=12,
        boot_id="boot",
        machine_id="machine",
        began="2026-01-31T12:00:04Z",
        silence=SILENCE,
    )
    return note(record, StepName.INTENT, stamp(3.2), record.reason)


def taken() -> FailoverRecord:
    return copied(begun(fence_record(), 1), released(fence_record(), ["db", "web"], stamp(5.0)))


def test_a_timeline_begins_with_the_intent_and_how_long_it_had_been_silent() -> None:
    found = begun(fence_record(), 7)
    assert (found.number, found.incident, found.silence) == (7, "r3-12", SILENCE)
    assert [mark.step for mark in found.marks] == [StepName.INTENT]
    assert first(found, StepName.INTENT) == 3.2
    assert phase_of(found) is FailoverPhase.FENCING


def test_a_vm_is_followed_from_its_release_to_its_guest() -> None:
    failover = taken()
    assert [vm.name for vm in failover.vms] == ["db", "web"]
    for after, facts in (
        (5.1, VmFacts(bound="r1")),
        (5.2, VmFacts(bound="r1", owner="r1")),
        (5.9, VmFacts(bound="r1", owner="r1", started=True)),
        (6.0, VmFacts(bound="r1", owner="r1", started=True, running=True)),
        (8.0, VmFacts(bound="r1", owner="r1", started=True, running=True, guest=True)),
    ):
        failover = observed(failover, {"web": facts}, after, "r1")
    db, web = failover.vms
    assert [(mark.step, mark.after) for mark in web.marks] == [
        (VmStep.RELEASED, 5.0),
        (VmStep.BOUND, 5.1),
        (VmStep.CLAIMED, 5.2),
        (VmStep.STARTED, 5.9),
        (VmStep.RUNNING, 6.0),
        (VmStep.GUEST_UP, 8.0),
    ]
    assert web.node == "r1"
    assert [mark.step for mark in db.marks] == [VmStep.RELEASED]
    assert is_open(failover, 10.0)
    assert last_running(failover) is None


def test_it_is_complete_when_all_that_are_to_run_do() -> None:
    failover = copied(taken(), finished(fence_record(), stamp(5.1)))
    assert phase_of(failover) is FailoverPhase.STARTING
    runs = VmFacts(bound="r1", owner="r1", started=True, running=True)
    gone = VmFacts(exists=False, note="it was deleted")
    failover = observed(failover, {"web": runs, "db": gone}, 6.0, "r1")
    assert phase_of(failover) is FailoverPhase.COMPLETED
    assert (up(failover), last_running(failover)) == (1, 6.0)


def test_a_vm_whose_first_start_failed_has_both_nodes_in_its_timeline() -> None:
    failover = observed(taken(), {"web": VmFacts(bound="r1", owner="r1")}, 6.0, "r1")
    failover = observed(failover, {"web": VmFacts(bound="r2", note="no room on r1")}, 7.0, "r1")
    web = failover.vms[1]
    assert [(m.step, m.node) for m in web.marks if m.step is VmStep.BOUND] == [
        (VmStep.BOUND, "r1"),
        (VmStep.BOUND, "r2"),
    ]
    assert web.note == "no room on r1"


def test_what_is_missing_is_shown_until_there_is_a_proof() -> None:
    record = failed(fence_record(), "agent", "no answer from the BMC", stamp(9.0))
    record = replace(record, missing=("web: waiting for a proof",))
    failover = copied(begun(record, 1), record)
    assert phase_of(failover) is FailoverPhase.WAITING
    after = cleared(failover, record, stamp(60.0))
    assert (after.missing, after.attempts, after.returned) == ((), (), True)
    assert after.marks[-1].step is StepName.CLEAR


def test_another_incident_s_record_changes_nothing() -> None:
    other = replace(released(fence_record(), ["web"], stamp(5.0)), id="id-2")
    before = begun(fence_record(), 1)
    assert copied(before, other) == before


@pytest.mark.parametrize(
    ("heard", "lease", "audible", "cause", "since"),
    [
        (3.2, 4.5, False, None, 3.2),
        (5.0, 4.5, False, None, 4.5),
        (0.2, 15.0, True, None, 15.0),
        (9.0, 15.0, False, FenceCause.STORAGE_LOST, 15.0),
        (None, 4.5, False, None, 4.5),
    ],
)
def test_time_counts_from_the_last_sign_of_life_on_what_is_silent(
    heard: float | None, lease: float, audible: bool, cause: FenceCause | None, since: float
) -> None:
    found = silence_of(heard, lease, audible=audible, ran_for=60.0, cause=cause)
    assert found is not None
    assert found.since == since


def test_a_judge_that_came_after_the_last_sign_of_life_does_not_know_when_it_was() -> None:
    assert silence_of(None, 4.5, audible=False, ran_for=5.0) is None


def test_what_was_seen_and_not_written_yet_outlives_another_s_write() -> None:
    seen = observed(taken(), {"web": VmFacts(bound="r1")}, 6.0, "r1")
    record = released(fence_record(), ["db", "web"], stamp(5.0))
    stored = cleared(taken(), record, stamp(7.0))
    after = joined(stored, seen)
    assert after.vms[1].reached(VmStep.BOUND) is not None
    assert after.returned
    assert joined(stored, replace(seen, id="id-2")) == stored


@given(st.lists(st.sampled_from(list(StepName)), max_size=90), st.data())
def test_no_step_of_a_fencing_is_lost_however_it_is_copied(
    steps: list[StepName], data: st.DataObject
) -> None:
    """Copied after any of the steps, by any master, from bytes; the record itself keeps sixty."""
    record, failover, wanted = fence_record(), begun(fence_record(), 1), [(StepName.INTENT, 3.2)]
    for number, step in enumerate(steps):
        after = 10.0 + number
        record = note(record, step, stamp(after, data.draw(st.sampled_from(["r1", "r2"]))), step.value)
        wanted.append((step, after))
        if data.draw(st.booleans()) or number % 20 == 0:
            failover = load(FailoverRecord, dump(copied(failover, record)))
    failover = copied(failover, record)
    assert [(mark.step, mark.after) for mark in failover.marks] == wanted
    assert copied(failover, record) == failover


@given(st.integers(min_value=0, max_value=70))
def test_the_history_keeps_the_latest(count: int) -> None:
    history: dict[str, FailoverRecord | None] = {}
    for session in range(count):
        number, oldest = room_for_one(history)
        for incident in oldest:
            del history[incident]
        history[f"r3-{session}"] = begun(fence_record(), number)
        assert len(history) <= KEPT_FAILOVERS
    latest = {f"r3-{session}" for session in range(max(count - KEPT_FAILOVERS, 0), count)}
    assert set(history) == latest


def test_a_timeline_that_cannot_be_read_makes_room_first() -> None:
    history: dict[str, FailoverRecord | None] = {
        f"r3-{n}": begun(fence_record(), n + 1) for n in range(KEPT_FAILOVERS - 1)
    }
    history["r9-1"] = None
    assert room_for_one(history) == (KEPT_FAILOVERS, ("r9-1",))


def test_a_guest_without_an_agent_is_not_waited_for_for_ever() -> None:
    runs = VmFacts(bound="r1", owner="r1", started=True, running=True)
    failover = observed(taken(), {"web": runs, "db": runs}, 6.0, "r1")
    assert followed(failover, 60.0) == ("db", "web")
    assert not is_open(failover, 6.0 + GUEST + 1.0)
