"""A live migration as the store has it: its record, what each of its hosts says, and its mark in a claim.

Separate writers: the master writes the record, each node its own side. The mark in the claim names both
nodes; the claim's own is the source until the migration is settled.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class MigrationPhase(StrEnum):
    """Pending: nothing has happened. Open: the claim names both nodes, and the target gets ready. Running:
    the source may begin, once. Resolving: it is done, both hosts are looked at. The others are ends."""

    PENDING = "Pending"
    OPEN = "Open"
    RUNNING = "Running"
    RESOLVING = "Resolving"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELLED = "Cancelled"


ENDED = frozenset({MigrationPhase.SUCCEEDED, MigrationPhase.FAILED, MigrationPhase.CANCELLED})


class Look(StrEnum):
    """What a host has of the VM. Absent: proven gone. Dead: the host itself is proven cut off. Incoming: a
    copy that has not all of the guest. Ready: it has, and never ran. Running: also when somebody suspended
    it; Paused: the hypervisor did, for the migration. Broken: it lacks what only the other copy has (a
    post-copy that failed)."""

    UNKNOWN = "Unknown"
    ABSENT = "Absent"
    DEAD = "Dead"
    INCOMING = "Incoming"
    READY = "Ready"
    RUNNING = "Running"
    PAUSED = "Paused"
    BROKEN = "Broken"


class CallResult(StrEnum):
    """How the hypervisor's call ended, as the daemon that made it heard it. None: nobody heard."""

    NONE = "None"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelRecord:
    """That a migration is to end early, and why."""

    reason: str
    requested: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Bytes of memory, bytes per second; `downtime` in seconds as the hypervisor expects it."""

    total: int = 0
    left: int = 0
    rate: int = 0
    downtime: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationRecord:
    """`uid`: the VM's. `target`: a node. `bandwidth` in bytes per second, 0: as fast as it goes. `limit`:
    seconds that the copying may take with the guest running. `may_hold`: after that the guest may be held,
    for as long again; `hold`: it is to be. `abort`: why it is to end early. `ends`: nodes whose copies are to
    be destroyed. `reason`: who wants it (a person, a drain, a plan); `drain`: the id of that drain. Times of
    day are for people.
    """

    id: str
    vm: str
    uid: str
    source: str
    target: str
    phase: MigrationPhase = MigrationPhase.PENDING
    bandwidth: int = 0
    limit: float = 0.0
    may_hold: bool = False
    hold: bool = False
    abort: str = ""
    ends: tuple[str, ...] = ()
    reason: str = ""
    drain: str = ""
    message: str = ""
    requested: str = ""
    began: str = ""
    finished: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationSide:
    """What one host says. `phase`: the record's, when it looked. `ready`: it has seen the open record and
    lets the guest in. `called`: the call was, or is about to be, made; `result`: how it ended; both outlive
    the session that wrote them. `busy`: it has not returned, or the hypervisor still has a job of it.
    `clients`: what may write to the images. `offer`: the source controller's own text, which the target has
    to know beforehand; `door`: the target's, by which the source reaches it; `obstacle`: why the guest cannot
    leave, or come."""

    id: str
    node: str
    session: int
    boot_id: str
    phase: MigrationPhase
    look: Look = Look.UNKNOWN
    ready: bool = False
    called: bool = False
    busy: bool = False
    result: CallResult = CallResult.NONE
    clients: tuple[str, ...] = ()
    progress: Progress | None = None
    offer: str = ""
    door: str = ""
    obstacle: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimMigration:
    """The mark of an open migration in a claim. `gone`: which of the two hosts are proven cut off."""

    id: str
    source: str
    target: str
    gone: tuple[str, ...] = ()
