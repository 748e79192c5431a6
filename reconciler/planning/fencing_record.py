"""How a fencing's record changes with what was done: a new record for each step, and the emptied claims.

Invariant: nothing proven is ever dropped but by a newer proof of the same kind, or by the return.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import assert_never

from reconciler.planning.fencing import Intend
from reconciler.resources.domains import ExitReason
from reconciler.resources.fencing import (
    Attempt,
    Blocklisted,
    ConfirmedDown,
    FenceOrder,
    FenceRecord,
    PoweredOff,
    Proof,
    StepDone,
    StepName,
    WatchdogExpired,
    canonical,
    is_address,
    is_client,
)
from reconciler.resources.records import Claim, ClaimPhase, Session

KEPT = 60
"""Steps that a record keeps at most; the first and the latest are worth most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """When and under which epoch a step was done; `seconds` it took; `after`, `by`: see StepDone."""

    at: str
    epoch: int
    seconds: float = 0.0
    after: float | None = None
    by: str = ""


def intent_record(
    step: Intend, node: str, id: str, session: Session, fsids: Iterable[str], stamp: Stamp
) -> FenceRecord:
    """The record that begins a fencing. `session` is session/NODE as the intent leaves it, bumped."""
    record = FenceRecord(
        id=id,
        node=node,
        incident=f"{node}-{session.session}",
        cause=step.cause,
        reason=step.reason,
        epoch=stamp.epoch,
        session=session.session,
        boot_id=session.boot_id,
        machine_id=session.machine_id,
        began=stamp.at,
        addresses=tuple(sorted({address for address in session.addresses if is_address(address)})),
        entries=tuple(sorted({canonical(client) for client in session.clients if is_client(client)})),
        fsids=tuple(sorted(set(fsids))),
    )
    return note(record, StepName.INTENT, stamp, step.reason)


def note(record: FenceRecord, step: StepName, stamp: Stamp, detail: str = "") -> FenceRecord:
    """With one more step done."""
    done = StepDone(
        step=step,
        at=stamp.at,
        epoch=stamp.epoch,
        seconds=round(stamp.seconds, 3),
        detail=detail[:500],
        after=None if stamp.after is None else round(stamp.after, 3),
        by=stamp.by,
    )
    steps = (*record.steps, done)
    if len(steps) > KEPT:
        steps = (*steps[: KEPT // 2], *steps[-KEPT // 2 :])
    return replace(record, steps=steps)


def fenced(record: FenceRecord, fencer: str, order: FenceOrder, proof: Proof, stamp: Stamp) -> FenceRecord:
    """With a fencer's proof. What the order named is remembered: the return must know it."""
    ends = {canonical(client) for client in (*record.entries, *order.clients)}
    if isinstance(proof, Blocklisted):
        ends |= {entry for entry in proof.entries if not entry.endswith(":0/0")}
    record = replace(
        record,
        addresses=tuple(sorted({*record.addresses, *order.addresses})),
        entries=tuple(sorted(ends)),
    )
    match proof:
        case Blocklisted():
            others = tuple(p for p in record.blocklisted if p.fsid != proof.fsid)
            fresh = replace(proof, settled=False, unlocked=False, lifted=False, at=stamp.at)
            record = replace(record, blocklisted=(*others, fresh))
            what = f"{proof.fsid}: {', '.join(proof.entries)}"
        case PoweredOff():
            record = replace(record, powered_off=(replace(proof, at=stamp.at),))
            what = f"{proof.agent}: off"
        case WatchdogExpired():
            record = replace(record, watchdog=(replace(proof, at=stamp.at),))
            what = f"{proof.device}: reset after {proof.seconds:g} s"
        case ConfirmedDown():
            record = replace(record, confirmed=(proof,))
            what = f"{proof.by} says that {proof.boot_id} is down"
        case _:
            assert_never(proof)
    return note(_succeeded(record, fencer), StepName.FENCE, stamp, f"by {fencer}: {what}")


def failed(record: FenceRecord, fencer: str, error: str, stamp: Stamp) -> FenceRecord:
    """After an attempt that gave no proof: one more failure in a row."""
    before = record.attempt(fencer)
    after = Attempt(fencer=fencer, failures=before.failures + 1, error=error[:500], at=stamp.at)
    others = tuple(attempt for attempt in record.attempts if attempt.fencer != fencer)
    return replace(record, attempts=tuple(sorted((*others, after), key=lambda each: each.fencer)))


def settled(record: FenceRecord, fencer: str, fsid: str, stamp: Stamp) -> FenceRecord:
    """The blocklist was seen to hold, and this master's map of the cluster has it."""
    record = _change(record, fsid, lambda proof: replace(proof, settled=True))
    return note(_succeeded(record, fencer), StepName.SETTLE, stamp, fsid)


def unsettled(record: FenceRecord, fsid: str) -> FenceRecord:
    """The blocklist does not hold any more: the proof is none, and is sought again."""
    return replace(record, blocklisted=tuple(p for p in record.blocklisted if p.fsid != fsid))


def unlocked(record: FenceRecord, fencer: str, fsid: str, broken: Iterable[str], stamp: Stamp) -> FenceRecord:
    """Stale locks are broken; `broken` says which, in words."""
    record = _change(record, fsid, lambda proof: replace(proof, unlocked=True))
    words = "; ".join(broken) or "no locks were left"
    return note(_succeeded(record, fencer), StepName.BREAK_LOCKS, stamp, words)


def released(record: FenceRecord, vms: Iterable[str], stamp: Stamp) -> FenceRecord:
    """These VMs were taken from the node."""
    taken = tuple(sorted(vms))
    record = replace(record, vms=tuple(sorted({*record.vms, *taken})))
    return note(record, StepName.RELEASE, stamp, ", ".join(taken))


def finished(record: FenceRecord, stamp: Stamp) -> FenceRecord:
    """Nothing is left to take."""
    return note(replace(record, released=stamp.at, missing=()), StepName.FINISH, stamp)


def lifted(record: FenceRecord, fencer: str, fsid: str, stamp: Stamp, *, clients: bool) -> FenceRecord:
    """The node may reach that Ceph cluster again; `clients`: also its former clients' entries are gone."""

    def change(proof: Blocklisted) -> Blocklisted:
        kept = () if clients else tuple(entry for entry in proof.entries if not entry.endswith(":0/0"))
        return replace(proof, lifted=True, entries=kept)

    what = f"{fsid}: {'all entries' if clients else 'the whole-host entries'}"
    return note(_succeeded(_change(record, fsid, change), fencer), StepName.LIFT, stamp, what)


def emptied(claim: Claim) -> Claim:
    """The claim that the fencer leaves: who may still hold the images is remembered (SAFETY rule 8).

    The run did not end by itself: a start that was asked for is still to be honoured.
    """
    ran = claim.phase is ClaimPhase.RUNNING
    lingering = {c for c in (*claim.former_clients, *claim.clients) if not c.startswith("pid:")}
    return Claim(
        uid=claim.uid,
        former_clients=tuple(sorted(lingering)),
        generation=claim.generation,
        restart=claim.restart,
        exit=str(ExitReason.UNKNOWN) if ran else claim.exit,
        purged=claim.purged,
    )


def _succeeded(record: FenceRecord, fencer: str) -> FenceRecord:
    return replace(record, attempts=tuple(each for each in record.attempts if each.fencer != fencer))


def _change(record: FenceRecord, fsid: str, change: Callable[[Blocklisted], Blocklisted]) -> FenceRecord:
    return replace(record, blocklisted=tuple(change(p) if p.fsid == fsid else p for p in record.blocklisted))
