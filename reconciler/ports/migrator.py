"""Migrator: a lifecycle that can hand a running guest over to the same controller on another host.

Both hosts do as the migration's record says (planning/migration_sides.py); this port only carries it out.
Invariants (SAFETY rule 17): the copy on the target arrives paused and is never resumed by the hypervisor or
by `hand_over`; a call whose end nobody heard has ended nothing for certain, so both hosts are looked at; a
guest is let in only between `let_in` and `shut`. Every call takes `timeout` in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from reconciler.resources.migrations import Look, Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """Which guest: `uid` is the VM's (the domain's UUID), `migration` the record's id."""

    name: str
    uid: str
    migration: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HandOver:
    """How the source hands it over. `door`: what the target's `let_in` returned. `bandwidth` in bytes per
    second, 0: as fast as it goes."""

    guest: Guest
    door: str
    bandwidth: int = 0


@runtime_checkable
class Migrator(Protocol):
    """Part of a ResourceController that has it; VMs of controllers without it are not migrated live."""

    async def offer(self, guest: Guest, *, timeout: float) -> str:
        """On the source: what the target has to know to judge and receive the guest, as the controller's own
        text (libvirt: its migratable XML, and the CPU that it runs on). Raises MigrationRefused when it
        cannot be migrated, with the reason; NotFound, ControllerUnavailable."""
        ...

    async def let_in(self, guest: Guest, offer: str, *, timeout: float) -> str:
        """On the target: check that it can run here (CPU, machine type, devices), and let it in from now on.
        The door: how the source reaches this host, the controller's own text. May be repeated. Raises
        MigrationRefused with the reason, ControllerUnavailable."""
        ...

    async def shut(self, guest: Guest, *, timeout: float) -> None:
        """On the target: let it in no more; one that has begun to come is not ended by it. No-op when it was
        not let in. Raises ControllerUnavailable."""
        ...

    async def hand_over(self, order: HandOver, *, timeout: float) -> None:
        """On the source: the whole migration; it returns when the hypervisor's call has, and then the copy
        here is gone and the one on the target is complete and paused. It may take hours (`timeout` is its
        limit, after which the job is ended). Raises MigrationFailed: it was heard to fail, what is left is to
        be looked at; ControllerUnavailable: nobody heard how it ended. Cancelling the task leaves the job."""
        ...

    async def job(self, guest: Guest, *, timeout: float) -> Progress | None:
        """On the source: how far the hypervisor's job is; None when there is none, and no call of this
        process is outstanding. Raises ControllerUnavailable."""
        ...

    async def hold(self, guest: Guest, *, timeout: float) -> None:
        """On the source: let the guest stand still from the next moment on until the rest of its memory is
        over, however long that takes. No-op without a job; may be repeated. Raises ControllerUnavailable."""
        ...

    async def abort(self, guest: Guest, *, timeout: float) -> None:
        """On the source: ask the hypervisor to end the job; no-op without one. Not proof: `job`, `look`.
        Raises ControllerUnavailable."""
        ...

    async def look(self, guest: Guest, *, timeout: float) -> Look:
        """What this host has of the guest: ABSENT with the same proof as `observe`'s Gone; INCOMING, READY
        (complete, paused, never ran); RUNNING, also when a person suspended it; PAUSED: only by the
        migration; BROKEN. Never DEAD or UNKNOWN: raises ControllerUnavailable instead."""
        ...
