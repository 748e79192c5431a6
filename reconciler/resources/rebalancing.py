"""A run that moves VMs where it is worth it: what it does, one turn after the other, and how far it is."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class RebalanceScope(StrEnum):
    """Repair: VMs that break a rule, and others to make room. Full: also those that even out the use of
    nodes. Partial: of these only off nodes that are too full."""

    REPAIR = "Repair"
    PARTIAL = "Partial"
    FULL = "Full"


class RebalancePhase(StrEnum):
    """Running: it goes on with the next master. The others are ends."""

    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELLED = "Cancelled"


class MoveState(StrEnum):
    WAITING = "Waiting"
    MOVING = "Moving"
    DONE = "Done"


@dataclass(frozen=True, slots=True, kw_only=True)
class RebalanceMove:
    """`uid`: the VM's. Moves of one `turn` are made together, after those of the turns before. `migration`:
    by which it is, or was, made."""

    vm: str
    uid: str
    source: str
    target: str
    turn: int
    reason: str
    state: MoveState = MoveState.WAITING
    migration: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RebalanceRecord:
    """`message`: what it waits for, or how it ended. `by`: who asked for it. Times of day are for people."""

    id: str
    scope: RebalanceScope
    phase: RebalancePhase = RebalancePhase.RUNNING
    by: str = ""
    message: str = ""
    started: str = ""
    finished: str = ""
    moves: tuple[RebalanceMove, ...] = ()
