"""What a host of a live migration is to do, from the record and what it has said itself so far.

Invariants (SAFETY rule 17): the call is made once, by a source that has committed `called` against the very
record that told it to; a copy is destroyed only when the record orders it; the target lets the guest in only
with an open record.
"""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum

from reconciler.resources.migrations import (
    ENDED,
    CallResult,
    MigrationPhase,
    MigrationRecord,
    MigrationSide,
)


class Duty(StrEnum):
    """Look: say what is there. LetIn: look, and say that the guest may come. Call: commit `called`, comparing
    the record, and only then call. Hold: let the guest stand still until the rest is over. Abort: end the
    hypervisor's job. Destroy: end the copy that is here."""

    NOTHING = "Nothing"
    LOOK = "Look"
    LET_IN = "LetIn"
    CALL = "Call"
    HOLD = "Hold"
    ABORT = "Abort"
    DESTROY = "Destroy"


def duty(record: MigrationRecord, node: str, said: MigrationSide | None, *, busy: bool) -> Duty:
    """`said`: this node's side as the store has it, of an earlier session too. `busy`: its call has not
    returned, or the hypervisor has a job of it."""
    if record.phase in ENDED or record.phase is MigrationPhase.PENDING:
        return Duty.NOTHING
    if node in record.ends:
        return Duty.DESTROY
    if node == record.target:
        return Duty.LET_IN if record.phase is MigrationPhase.OPEN and not record.abort else Duty.LOOK
    if record.phase is not MigrationPhase.RUNNING:
        return Duty.LOOK
    if record.abort:
        return Duty.ABORT if busy else Duty.LOOK
    if record.hold:
        return Duty.HOLD if busy else Duty.LOOK
    fresh = said is not None and said.id == record.id and not said.called
    return Duty.CALL if fresh else Duty.LOOK


def saying(
    record: MigrationRecord, said: MigrationSide | None, now: MigrationSide, result: CallResult
) -> MigrationSide:
    """What the node says next: `now` is what it sees, `result` what it heard of its call in this session.
    What it said once of the call stays, also when another session said it; so do the texts."""
    if said is None or said.id != record.id:
        return replace(now, result=result)
    return replace(
        now,
        called=now.called or said.called,
        result=result if result is not CallResult.NONE else said.result,
        offer=now.offer or said.offer,
        door=now.door or said.door,
        obstacle=now.obstacle or said.obstacle,
    )
