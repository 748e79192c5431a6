"""How a failover's timeline grows: from the fence record as its steps come, and from what the store shows of
the VMs that were taken.

Pure, and everything in it can be done again: any master copies what is not there yet. Invariants: a step that
was recorded once is never lost or moved; the history holds the last KEPT_FAILOVERS.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from reconciler.planning.fencing_record import Stamp
from reconciler.resources.failover import (
    KEPT_FAILOVERS,
    FailoverPhase,
    FailoverRecord,
    Mark,
    VmFailover,
    VmMark,
    VmStep,
)
from reconciler.resources.fencing import FenceCause, FenceRecord, Silence, StepName

T = TypeVar("T")

MARKS = 200
"""Steps of one fencing that are kept: the first and the latest are worth most."""
VM_MARKS = 24
"""The same for one VM."""
FOLLOWED = 3600.0
"""Seconds after the last sign of life for which VMs are followed."""
GUEST = 300.0
"""Seconds that a running guest is given for its agent's first answer; many have none."""
OBSERVED = 1.0
"""Seconds for which a judge must have run before the last sign of life, to have heard it itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VmFacts:
    """What the store says of a VM now. `bound`, `owner`: the nodes of its binding and its claim. `started`:
    its clients are recorded; `running`, `guest`: as its owner reports. `wanted`: it is to run. `note`: why it
    does not."""

    exists: bool = True
    wanted: bool = True
    bound: str = ""
    owner: str = ""
    started: bool = False
    running: bool = False
    guest: bool = False
    note: str = ""


def silence_of(
    heard: float | None, lease: float, *, audible: bool, ran_for: float, cause: FenceCause | None = None
) -> Silence | None:
    """How long nothing was heard, by this judge's own clock; None when it was not running before.

    `audible`: it is heard on the mesh now, so that only its lease is silent; a fencing that began for that
    `cause` goes on counting from there.
    """
    alone = audible or cause is FenceCause.STORAGE_LOST or heard is None
    since = lease if alone or heard is None else min(heard, lease)
    if ran_for < since + OBSERVED:
        return None
    return Silence(
        heard=None if heard is None else round(heard, 3), lease=round(lease, 3), since=round(since, 3)
    )


def begun(record: FenceRecord, number: int) -> FailoverRecord:
    """The timeline of a fencing that has just begun."""
    fresh = FailoverRecord(
        incident=record.incident,
        id=record.id,
        number=number,
        node=record.node,
        boot_id=record.boot_id,
        cause=record.cause,
        reason=record.reason,
        epoch=record.epoch,
        began=record.began,
        silence=record.silence,
    )
    return copied(fresh, record)


def room_for_one(history: Mapping[str, FailoverRecord | None]) -> tuple[int, tuple[str, ...]]:
    """The next number, and the incidents to be dropped for it, the oldest first. One that cannot be read is
    the oldest."""
    numbers = {incident: 0 if found is None else found.number for incident, found in history.items()}
    oldest = sorted(numbers, key=lambda incident: (numbers[incident], incident))
    spare = max(len(oldest) + 1 - KEPT_FAILOVERS, 0)
    return max(numbers.values(), default=0) + 1, tuple(oldest[:spare])


def copied(failover: FailoverRecord, record: FenceRecord) -> FailoverRecord:
    """With every step of the fence record that is not there yet, and what is missing now."""
    if record.id != failover.id:
        return failover
    known = set(failover.marks)
    marks = [
        mark
        for mark in (
            Mark(
                step=step.step,
                at=step.at,
                by=step.by,
                after=step.after,
                seconds=step.seconds,
                detail=step.detail,
            )
            for step in record.steps
        )
        if mark not in known
    ]
    return replace(
        failover,
        marks=_bounded((*failover.marks, *marks), MARKS),
        vms=_with_vms(failover, record),
        missing=record.missing,
        attempts=record.attempts,
        fenced=failover.fenced or bool(record.released),
    )


def cleared(failover: FailoverRecord, record: FenceRecord, stamp: Stamp) -> FailoverRecord:
    """The node's return is settled, and its fence record goes."""
    last = Mark(
        step=StepName.CLEAR,
        at=stamp.at,
        by=stamp.by,
        after=stamp.after,
        detail=f"{record.node} takes work again",
    )
    failover = copied(failover, record)
    marks = _bounded((*failover.marks, last), MARKS)
    return replace(failover, marks=marks, missing=(), attempts=(), fenced=True, returned=True)


def is_open(failover: FailoverRecord, after: float) -> bool:
    """Whether its VMs are still to be followed."""
    return after < FOLLOWED and bool(followed(failover, after))


def observed(failover: FailoverRecord, facts: Mapping[str, VmFacts], after: float, by: str) -> FailoverRecord:
    """With what the VMs have reached by now; of those that are followed no further, `facts` says nothing."""
    vms = tuple(
        _observed(vm, facts[vm.name], round(after, 3), by) if vm.name in facts else vm for vm in failover.vms
    )
    return failover if vms == failover.vms else replace(failover, vms=vms)


def joined(stored: FailoverRecord, ahead: FailoverRecord | None) -> FailoverRecord:
    """What the store has, with what was seen of the VMs since and is not written yet."""
    if ahead is None or ahead.id != stored.id:
        return stored
    seen = {vm.name: vm for vm in ahead.vms}
    return replace(stored, vms=tuple(seen.get(vm.name, vm) for vm in stored.vms))


def followed(failover: FailoverRecord, after: float) -> tuple[str, ...]:
    """The VMs that are on their way."""
    return tuple(vm.name for vm in failover.vms if not _settled(vm, after))


def phase_of(failover: FailoverRecord) -> FailoverPhase:
    """Its STATUS word."""
    if not failover.fenced:
        return FailoverPhase.WAITING if failover.missing and failover.attempts else FailoverPhase.FENCING
    if all(vm.ended or vm.reached(VmStep.RUNNING) for vm in failover.vms):
        return FailoverPhase.COMPLETED
    return FailoverPhase.STARTING


def up(failover: FailoverRecord) -> int:
    """How many of its VMs run again."""
    return sum(1 for vm in failover.vms if vm.reached(VmStep.RUNNING))


def first(failover: FailoverRecord, step: StepName) -> float | None:
    """When the fencing first got there, in seconds after the last sign of life."""
    found = (mark.after for mark in failover.marks if mark.step is step and mark.after is not None)
    return next(found, None)


def last_running(failover: FailoverRecord) -> float | None:
    """When the last of its VMs ran; None while one does not."""
    reached = [vm.reached(VmStep.RUNNING) for vm in failover.vms if not vm.ended]
    if not reached or not all(reached):
        return None
    return max(mark.after for mark in reached if mark is not None)


def _with_vms(failover: FailoverRecord, record: FenceRecord) -> tuple[VmFailover, ...]:
    """And those that were taken since the last look, with the time of the step that took them."""
    known = {vm.name for vm in failover.vms}
    step = next((s for s in reversed(record.steps) if s.step is StepName.RELEASE), None)
    marks: tuple[VmMark, ...] = ()
    if step is not None and step.after is not None:
        marks = (VmMark(step=VmStep.RELEASED, after=step.after, by=step.by, node=record.node),)
    fresh = [VmFailover(name=name, marks=marks) for name in record.vms if name not in known]
    return tuple(sorted((*failover.vms, *fresh), key=lambda vm: vm.name))


def _observed(vm: VmFailover, facts: VmFacts, after: float, by: str) -> VmFailover:
    if not facts.exists or not facts.wanted:
        return replace(vm, ended=True, note=facts.note)
    marks = list(vm.marks)
    for step in _reached(facts):
        node = facts.bound if step is VmStep.BOUND else facts.owner
        if not any(mark.step is step and mark.node == node for mark in marks):
            marks.append(VmMark(step=step, after=after, by=by, node=node))
    running = facts.running and facts.started
    note = "" if running else facts.note
    where = facts.owner or facts.bound or vm.node
    kept = _bounded(tuple(marks), VM_MARKS)
    return replace(vm, node=where, note=note, marks=kept)


def _reached(facts: VmFacts) -> tuple[VmStep, ...]:
    found = [VmStep.BOUND] if facts.bound else []
    if facts.owner:
        found.append(VmStep.CLAIMED)
        if facts.started:
            found.append(VmStep.STARTED)
            found += [VmStep.RUNNING] if facts.running else []
            found += [VmStep.GUEST_UP] if facts.running and facts.guest else []
    return tuple(found)


def _settled(vm: VmFailover, after: float) -> bool:
    running = vm.reached(VmStep.RUNNING)
    silent = running is not None and after > running.after + GUEST
    return vm.ended or silent or vm.reached(VmStep.GUEST_UP) is not None


def _bounded(marks: tuple[T, ...], most: int) -> tuple[T, ...]:
    return marks if len(marks) <= most else (*marks[: most // 2], *marks[-(most - most // 2) :])
