"""Which VMs may start now after the cluster was shut down, and what the others wait for.

Invariants: a VM waits for those that it starts after only while they may still come up, so that one that is
broken, halted or unknown holds nobody for ever; and no more start at once than was asked for, the more
important ones first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from enum import StrEnum

from reconciler.planning.desired import Wish
from reconciler.planning.master import MasterPlan, NotPlaced, VmRecords
from reconciler.resources.records import ClaimPhase
from reconciler.resources.startorder import Order, order_of

PATIENCE = 300.0
"""Seconds for which a VM that has a place and does not run yet is waited for: its disks may be made first."""

UNLIMITED = 1_000_000


class Standing(StrEnum):
    """How far a VM is. Out: it is not to run, or it failed, and nobody waits for it."""

    WAITING = "Waiting"
    STARTING = "Starting"
    RUNNING = "Running"
    OUT = "Out"


def start_turns(order: Order, standings: Mapping[str, Standing], parallel: int) -> dict[str, str]:
    """By VM that is to start and has not: what it waits for, or nothing when it may start now. A VM without
    a standing is out. `parallel`: at least 1."""
    waiting = [vm for vm in order.places if standings.get(vm) is Standing.WAITING]
    room = parallel - sum(each is Standing.STARTING for each in standings.values())
    turns: dict[str, str] = {}
    for vm in sorted(waiting, key=lambda vm: (-order.places[vm].wave, vm)):
        before = [
            other
            for other in order.places[vm].after
            if standings.get(other) in (Standing.WAITING, Standing.STARTING)
        ]
        if before:
            turns[vm] = f"it starts after {', '.join(before)} (startAfter)"
        elif room <= 0:
            turns[vm] = f"it waits for its turn: {parallel} start at once"
        else:
            turns[vm], room = "", room - 1
    return turns


def in_turn(plan: MasterPlan, vms: Sequence[VmRecords], *, parallel: int, now: str) -> MasterPlan:
    """The plan without the starts whose turn it is not; those are told what they wait for. `parallel`: 0 for
    no limit; `now`: by the wall. A VM that runs, or moves, is none of them."""
    if not plan.binds:
        return plan
    after = {r.metadata.name: r.spec.start_after for r in vms if r.spec.start_after}
    if not (after or parallel):
        return plan
    by_name = {records.metadata.name: records for records in vms}
    placed = {bind.vm for bind in plan.binds}
    standings = {name: _standing(records, name in placed, now) for name, records in by_name.items()}
    order = order_of({name: records.spec.priority for name, records in by_name.items()}, after)
    turns = start_turns(order, standings, parallel or UNLIMITED)
    held: dict[str, str] = {bind.vm: turns[bind.vm] for bind in plan.binds if turns.get(bind.vm)}
    if not held:
        return plan
    waiting = [NotPlaced(vm=vm, reason=why, in_turn=True) for vm, why in held.items()]
    return replace(
        plan,
        binds=tuple(bind for bind in plan.binds if bind.vm not in held),
        not_placed=tuple(sorted((*plan.not_placed, *waiting), key=lambda each: each.vm)),
    )


def all_started(plan: MasterPlan, vms: Sequence[VmRecords], now: str) -> bool:
    """Whether nothing is on its way up any more, and nobody waits for a turn."""
    standings = {_standing(records, False, now) for records in vms}
    return not plan.binds and not standings & {Standing.WAITING, Standing.STARTING}


def _standing(records: VmRecords, placed: bool, now: str) -> Standing:
    """`placed`: it is about to get a place."""
    claim, binding = records.claim, records.binding
    if records.desired.wish is not Wish.RUN:
        return Standing.OUT
    if claim is not None and claim.node:
        return Standing.RUNNING if claim.phase is ClaimPhase.RUNNING else _starting(records, now)
    if placed:
        return Standing.WAITING
    return _starting(records, now) if binding is not None else Standing.OUT


def _starting(records: VmRecords, now: str) -> Standing:
    bound = records.binding.bound if records.binding is not None else ""
    if records.failed or not bound or _seconds(bound, now) > PATIENCE:
        return Standing.OUT
    return Standing.STARTING


def _seconds(before: str, now: str) -> float:
    return (datetime.fromisoformat(now) - datetime.fromisoformat(before)).total_seconds()
