"""Live migration: every outcome as a table, and what fencing leaves of a claim of two nodes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from reconciler.planning.migration import (
    Abort,
    End,
    Facts,
    Go,
    Hold,
    Open,
    Refuse,
    Settle,
    Step,
    Wait,
    Wanted,
    hosts_of,
    limit_of,
    longest,
    next_step,
    opened,
    request_migration,
    without,
)
from reconciler.planning.migration_sides import Duty, duty, saying
from reconciler.resources.migrations import CallResult, Look, MigrationPhase, MigrationSide
from reconciler.resources.records import Claim, ClaimPhase, dump, load

HELD = Claim(
    node="r1",
    uid="u",
    boot_id="b1",
    session=3,
    phase=ClaimPhase.RUNNING,
    disks=("f/p//1",),
    clients=("10.0.0.1:0/1",),
    start="s",
)
WANTED = Wanted(vm="web", target="r2", memory=2**30, reason="vcl migrate")
ASKED = request_migration(WANTED, HELD, id="m", requested="2030-01-01T00:00:00Z")
SESSIONS = {"r1": 3, "r2": 7}
FIRST = Facts(record=ASKED, claim=HELD, sides={}, sessions=SESSIONS)
BOTH = opened(FIRST)
U, A, D = Look.UNKNOWN, Look.ABSENT, Look.DEAD
INC, RDY, RUN, PAU, BRK = Look.INCOMING, Look.READY, Look.RUNNING, Look.PAUSED, Look.BROKEN


def side(node: str, look: Look, **more: object) -> MigrationSide:
    base = MigrationSide(
        id="m",
        node=node,
        session=SESSIONS[node],
        boot_id=f"b{node[1]}",
        phase=MigrationPhase.RESOLVING,
        look=look,
        clients=(f"10.0.0.{node[1]}:0/1",),
    )
    return replace(base, **more)  # type: ignore[arg-type]


def seen(node: str, look: Look, **more: object) -> MigrationSide:
    """Said while it was open."""
    return side(node, look, phase=MigrationPhase.OPEN, **more)


def at(phase: MigrationPhase, *sides: MigrationSide, **more: object) -> Facts:
    record = replace(ASKED, phase=phase)
    facts = replace(FIRST, record=record, claim=BOTH, sides={each.node: each for each in sides})
    return replace(facts, **more)  # type: ignore[arg-type]


def resolving(here: Look, there: Look, result: CallResult = CallResult.NONE) -> Facts:
    claim = BOTH
    for node, look in (("r1", here), ("r2", there)):
        if look is D:
            claim = without(claim, node)
    return at(
        MigrationPhase.RESOLVING, side("r1", here, called=True, result=result), side("r2", there), claim=claim
    )


def told(step: Step) -> str:
    """The step in a few words."""
    match step:
        case End():
            return f"end {' '.join(step.nodes)}"
        case Settle():
            paused = " resumed" if step.claim.paused else ""
            return f"{step.claim.node or 'nobody'}{paused} {step.phase}"
        case Wait():
            return "wait"
        case _:
            return type(step).__name__


@pytest.mark.parametrize(
    ("here", "there", "heard", "expected"),
    [
        # Nothing is done while one of the two hosts cannot be looked at.
        (U, U, False, "wait"),
        (U, RUN, False, "wait"),
        (U, RDY, True, "wait"),
        (U, A, False, "wait"),
        (U, D, False, "wait"),
        (RUN, U, False, "wait"),
        (PAU, U, False, "wait"),
        (A, U, True, "wait"),
        (D, U, True, "wait"),
        # While the source exists it wins; the target's copy goes first.
        (RUN, INC, False, "end r2"),
        (RUN, RDY, False, "end r2"),
        (RUN, RUN, False, "end r2"),
        (RUN, RDY, True, "end r2"),
        (PAU, RDY, True, "end r2"),
        (PAU, INC, False, "end r2"),
        (PAU, RDY, False, "end r2"),
        (RUN, A, False, "r1 Failed"),
        (RUN, D, False, "r1 Failed"),
        (PAU, A, False, "r1 resumed Failed"),
        (PAU, D, False, "r1 resumed Failed"),
        # The source is gone: the target's copy runs only if it is the last word of the guest.
        (A, RDY, True, "r2 resumed Succeeded"),
        (D, RDY, True, "r2 resumed Succeeded"),
        (A, RDY, False, "end r2"),
        (D, RDY, False, "end r2"),
        (A, INC, False, "end r2"),
        (D, INC, False, "end r2"),
        (A, RUN, False, "end r2"),
        # Neither has it: it is started again.
        (A, A, True, "nobody Failed"),
        (A, D, True, "nobody Failed"),
        (D, A, False, "nobody Failed"),
        (D, D, False, "nobody Failed"),
        # A post-copy that failed: both are ended.
        (BRK, RUN, False, "end r1 r2"),
        (PAU, BRK, False, "end r1 r2"),
        (A, BRK, False, "end r2"),
        (BRK, D, False, "end r1"),
    ],
)
def test_every_outcome_is_resolved_by_looking_at_both_hosts(
    here: Look, there: Look, heard: bool, expected: str
) -> None:
    result = CallResult.SUCCEEDED if heard else CallResult.NONE
    assert told(next_step(resolving(here, there, result))) == expected


def test_looks_from_before_the_end_of_the_call_say_nothing() -> None:
    early = side("r2", A, phase=MigrationPhase.RUNNING)
    assert told(next_step(at(MigrationPhase.RESOLVING, side("r1", RUN), early))) == "wait"


def test_looks_of_an_earlier_session_say_nothing() -> None:
    old = side("r1", A, session=2)
    assert told(next_step(at(MigrationPhase.RESOLVING, old, side("r2", A)))) == "wait"


def test_a_source_with_a_job_is_not_done() -> None:
    busy = side("r1", RUN, busy=True, called=True)
    assert told(next_step(at(MigrationPhase.RESOLVING, busy, side("r2", A)))) == "wait"
    assert told(next_step(at(MigrationPhase.RUNNING, busy, side("r2", INC)))) == "wait"


def test_an_order_to_end_a_copy_is_given_once() -> None:
    facts = resolving(RUN, RDY)
    ordered = replace(facts, record=replace(facts.record, ends=("r2",)))
    assert told(next_step(ordered)) == "wait"


def test_what_passes_to_the_target_is_its_session_and_its_clients() -> None:
    step = next_step(resolving(A, RDY, CallResult.SUCCEEDED))
    assert isinstance(step, Settle)
    claim = step.claim
    assert (claim.node, claim.boot_id, claim.session, claim.migration) == ("r2", "b2", 7, None)
    assert (claim.clients, claim.former_clients) == (("10.0.0.2:0/1",), ("10.0.0.1:0/1",))
    assert (claim.disks, claim.start) == (HELD.disks, "s")


def test_a_claim_that_both_lost_remembers_the_clients_of_both_and_the_run_goes_on() -> None:
    step = next_step(resolving(A, A))
    assert isinstance(step, Settle)
    assert step.claim.former_clients == ("10.0.0.1:0/1", "10.0.0.2:0/1")
    assert (step.claim.start, step.claim.exit, step.claim.disks) == ("s", None, ())


def test_fencing_one_host_leaves_the_other() -> None:
    assert hosts_of(HELD) == ("r1",)
    assert hosts_of(BOTH) == ("r1", "r2")
    assert hosts_of(without(BOTH, "r1")) == ("r2",)
    assert hosts_of(without(BOTH, "r2")) == ("r1",)
    assert hosts_of(without(without(BOTH, "r1"), "r2")) == ()
    assert without(BOTH, "r3") == BOTH
    assert without(HELD, "r1") == HELD


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (FIRST, "Open"),
        (replace(FIRST, turn="two go already"), "wait"),
        (replace(FIRST, obstacle="it has a host device"), "Refuse"),
        (replace(FIRST, leaving="deleted"), "Refuse"),
        (replace(FIRST, claim=None), "Refuse"),
        (replace(FIRST, claim=replace(HELD, node="r3")), "Refuse"),
        (replace(FIRST, claim=replace(HELD, uid="another")), "Refuse"),
        (replace(FIRST, record=replace(ASKED, target="r1")), "Refuse"),
        (replace(FIRST, claim=replace(HELD, phase=ClaimPhase.STARTING)), "wait"),
        (replace(FIRST, claim=BOTH), "wait"),
        (replace(FIRST, record=replace(ASKED, phase=MigrationPhase.FAILED)), "wait"),
        (at(MigrationPhase.RUNNING, claim=HELD), "Refuse"),
        (at(MigrationPhase.OPEN), "wait"),
        (at(MigrationPhase.OPEN, seen("r1", RUN)), "wait"),
        (at(MigrationPhase.OPEN, seen("r1", U)), "wait"),
        (at(MigrationPhase.OPEN, seen("r1", A)), "Abort"),
        (at(MigrationPhase.OPEN, seen("r1", RUN), seen("r2", A, ready=True, session=8)), "wait"),
        (at(MigrationPhase.OPEN, leaving="deleted"), "Abort"),
        (at(MigrationPhase.OPEN, claim=without(BOTH, "r2")), "Abort"),
        (at(MigrationPhase.RUNNING, side("r1", RUN, called=True, busy=True), overdue=True), "Abort"),
        (at(MigrationPhase.RUNNING), "wait"),
    ],
)
def test_what_comes_before_the_end(facts: Facts, expected: str) -> None:
    assert told(next_step(facts)) == expected


def test_it_goes_on_from_phase_to_phase() -> None:
    ready = at(MigrationPhase.OPEN, seen("r1", RUN), seen("r2", A, ready=True))
    assert next_step(ready) == Go(phase=MigrationPhase.RUNNING)
    done = at(MigrationPhase.RUNNING, side("r1", A, called=True))
    assert next_step(done) == Go(phase=MigrationPhase.RESOLVING)
    lost = at(MigrationPhase.RUNNING, claim=without(BOTH, "r1"))
    assert next_step(lost) == Go(phase=MigrationPhase.RESOLVING)
    assert next_step(FIRST) == Open()


def test_a_refusal_and_an_abort_say_why() -> None:
    refused = next_step(replace(FIRST, obstacle="its disk 'data' is on node r1 only"))
    assert refused == Refuse(reason="its disk 'data' is on node r1 only")
    late = at(MigrationPhase.RUNNING, side("r1", RUN, called=True, busy=True), overdue=True)
    assert next_step(late) == Abort(reason="it took longer than 256 s")


def test_a_slow_one_that_may_be_held_is_and_only_then_given_up() -> None:
    slow = at(MigrationPhase.RUNNING, side("r1", RUN, called=True, busy=True), overdue=True)
    may = replace(slow, record=replace(slow.record, may_hold=True))
    assert next_step(may) == Hold()
    held = replace(may.record, hold=True)
    assert longest(held) == 2 * longest(may.record)
    waits = next_step(replace(may, record=held, overdue=False))
    assert waits == Wait(reason="its memory is being copied; it stands still meanwhile")
    assert next_step(replace(may, record=held)) == Abort(reason="it took longer than 512 s")


@pytest.mark.parametrize(
    "changes",
    [
        {"leaving": "deleted"},
        {"claim": without(BOTH, "r2")},
        {"sides": {"r1": side("r1", RUN)}},
        {"sides": {}},
    ],
)
def test_what_is_not_wanted_or_has_not_begun_is_not_held(changes: dict[str, Any]) -> None:
    slow = at(MigrationPhase.RUNNING, side("r1", RUN, called=True, busy=True), overdue=True)
    may = replace(slow, record=replace(slow.record, may_hold=True))
    assert told(next_step(replace(may, **changes))) == "Abort"


def test_a_cancelled_one_ends_as_cancelled_and_the_guest_stays() -> None:
    facts = resolving(RUN, A)
    cancelled = replace(
        facts,
        record=replace(facts.record, abort="`vcl delete migration m`"),
        leaving="`vcl delete migration m`",
    )
    step = next_step(cancelled)
    assert isinstance(step, Settle)
    assert step.phase is MigrationPhase.CANCELLED
    assert step.message == "`vcl delete migration m`; it goes on where it was, on node r1"


def test_the_time_that_it_may_take_grows_with_the_memory() -> None:
    assert limit_of(128 * 2**20, 0) == 60.0
    assert limit_of(64 * 2**30, 0) == 16384.0
    assert limit_of(2**30, 2**20) == 4096.0


def test_a_claim_of_two_nodes_is_read_as_it_was_written() -> None:
    assert load(Claim, dump(BOTH)) == BOTH
    assert load(Claim, dump(HELD)) == HELD


@pytest.mark.parametrize(
    ("node", "phase", "changes", "busy", "expected"),
    [
        ("r1", MigrationPhase.PENDING, {}, False, Duty.NOTHING),
        ("r2", MigrationPhase.SUCCEEDED, {}, False, Duty.NOTHING),
        ("r1", MigrationPhase.OPEN, {}, False, Duty.LOOK),
        ("r2", MigrationPhase.OPEN, {}, False, Duty.LET_IN),
        ("r2", MigrationPhase.OPEN, {"abort": "late"}, False, Duty.LOOK),
        ("r1", MigrationPhase.RUNNING, {}, False, Duty.CALL),
        ("r1", MigrationPhase.RUNNING, {"abort": "late"}, False, Duty.LOOK),
        ("r1", MigrationPhase.RUNNING, {"abort": "late"}, True, Duty.ABORT),
        ("r1", MigrationPhase.RUNNING, {"hold": True}, False, Duty.LOOK),
        ("r1", MigrationPhase.RUNNING, {"hold": True}, True, Duty.HOLD),
        ("r2", MigrationPhase.RUNNING, {"hold": True}, True, Duty.LOOK),
        ("r1", MigrationPhase.RUNNING, {"hold": True, "abort": "late"}, True, Duty.ABORT),
        ("r2", MigrationPhase.RUNNING, {}, False, Duty.LOOK),
        ("r1", MigrationPhase.RESOLVING, {}, False, Duty.LOOK),
        ("r2", MigrationPhase.RESOLVING, {"ends": ("r2",)}, False, Duty.DESTROY),
        ("r1", MigrationPhase.RESOLVING, {"ends": ("r2",)}, False, Duty.LOOK),
    ],
)
def test_each_host_has_its_duty(
    node: str, phase: MigrationPhase, changes: dict[str, object], busy: bool, expected: Duty
) -> None:
    record = replace(ASKED, phase=phase, **changes)  # type: ignore[arg-type]
    assert duty(record, node, side(node, RUN), busy=busy) is expected


def test_the_call_is_never_made_twice_not_even_by_the_next_session() -> None:
    running = replace(ASKED, phase=MigrationPhase.RUNNING)
    called = side("r1", RUN, called=True, result=CallResult.FAILED)
    again = saying(running, called, side("r1", RUN, session=4), CallResult.NONE)
    assert (again.called, again.result, again.session) == (True, CallResult.FAILED, 4)
    assert duty(running, "r1", again, busy=False) is Duty.LOOK


def test_what_was_said_of_another_migration_does_not_count() -> None:
    earlier = side("r1", RUN, id="before", called=True, result=CallResult.SUCCEEDED)
    now = saying(ASKED, earlier, side("r1", RUN), CallResult.NONE)
    assert (now.called, now.result) == (False, CallResult.NONE)
    running = replace(ASKED, phase=MigrationPhase.RUNNING)
    assert duty(running, "r1", earlier, busy=False) is Duty.LOOK
