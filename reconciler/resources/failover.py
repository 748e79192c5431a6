"""What is kept of a failover (failover/INCIDENT): the timeline of a fencing, and of the VMs that it moved.

A fence record goes when its node has returned; this is what people read afterwards. Invariant: `after` is
measured by one steady clock each, that of the master in `by`, which sees everything in its copy of the store;
clocks of different hosts are never subtracted, but where `by` says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from reconciler.resources.fencing import Attempt, FenceCause, Silence, StepName

KEPT_FAILOVERS = 20
"""Of the whole cluster; the oldest goes in the transaction that makes a new one."""


class FailoverPhase(StrEnum):
    """How far it is, for people: the STATUS word."""

    FENCING = "Fencing"
    WAITING = "WaitingForProof"
    STARTING = "Starting"
    COMPLETED = "Completed"


class VmStep(StrEnum):
    """What becomes of a VM that was taken from the node, in this order."""

    RELEASED = "Released"
    """Its claim was emptied by the fencing."""
    BOUND = "Bound"
    """The master has chosen a node."""
    CLAIMED = "Claimed"
    """That node owns it."""
    STARTED = "Started"
    """Its clients are recorded, and the guest was (or is just being) resumed."""
    RUNNING = "Running"
    """Its node reports that the CPUs run; whether the guest has booted is not known."""
    GUEST_UP = "GuestUp"
    """The guest agent inside has answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A step of the fencing. `at`: wall clock of `by`; `after`: seconds since the last sign of life of the
    node; `seconds`: that the step itself took; `detail`: its fencer or proof, say."""

    step: StepName
    at: str
    by: str = ""
    after: float | None = None
    seconds: float = 0.0
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class VmMark:
    """A step of one VM on `node`, seen by the master `by`, `after` seconds after the last sign of life."""

    step: VmStep
    after: float
    by: str
    node: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class VmFailover:
    """`node`: where it goes, or runs. `note`: why it is no further; `ended`: it is not to run any more."""

    name: str
    node: str = ""
    note: str = ""
    ended: bool = False
    marks: tuple[VmMark, ...] = ()

    def reached(self, step: VmStep) -> VmMark | None:
        """The last time that it got there."""
        return next((mark for mark in reversed(self.marks) if mark.step is step), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class FailoverRecord:
    """failover/INCIDENT. `id`: the fence record's. `number` grows with each failover of the cluster.
    `silence`: how long the node had been silent at the intent. `returned`: its return was settled."""

    incident: str
    id: str
    number: int
    node: str
    boot_id: str
    cause: FenceCause
    reason: str
    epoch: int
    began: str
    silence: Silence | None = None
    marks: tuple[Mark, ...] = ()
    vms: tuple[VmFailover, ...] = ()
    missing: tuple[str, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    fenced: bool = False
    returned: bool = False
