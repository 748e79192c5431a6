"""One host's part in live migrations: it looks, lets guests in, makes the call once, and says what it sees.

What is to be done follows from the record (planning/migration_sides.py). Invariants (SAFETY rules 5, 7 and
17): everything said is committed against the very record that it was seen under; the call comes after its
`called`; a copy is ended only on the word of the record as the store has it now; absence counts when nothing
of the copy can write any more; nobody is let in once the source is done.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace

from reconciler.loops.agent_clients import NetworkClients
from reconciler.loops.agent_disks import DiskWork
from reconciler.loops.agent_state import NodeContext
from reconciler.loops.guest_keys import GuestKeys
from reconciler.loops.workqueue import WorkQueue
from reconciler.loops.writer import conflicts
from reconciler.planning.lifecycle import migrates_here
from reconciler.planning.migration import longest
from reconciler.planning.migration_sides import Duty, duty, saying
from reconciler.ports.controller import Controller
from reconciler.ports.migrator import Guest, HandOver, Migrator
from reconciler.resources import keys
from reconciler.resources.domains import Gone
from reconciler.resources.errors import (
    ConflictError,
    ControllerUnavailable,
    DiskError,
    MigrationFailed,
    MigrationRefused,
    NotFound,
    OutcomeUnknown,
    StoreError,
    VclError,
)
from reconciler.resources.images import RbdIdentity
from reconciler.resources.migrations import (
    ENDED,
    CallResult,
    Look,
    MigrationPhase,
    MigrationRecord,
    MigrationSide,
    Progress,
)
from reconciler.resources.records import Claim, Session, dump, load

log = logging.getLogger(__name__)

WORKERS = 4
LOOK = 1.0
"""Seconds between looks while nothing is heard."""
SETTLING = 0.25
"""The same while both hosts are looked at, and the guest is held."""
GRACE = 60.0
"""Seconds that a call may take beyond what the master allows: it has the job ended before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Here:
    """One migration as this host sees it now. `revision`: of the record; `told`: of what it said itself."""

    record: MigrationRecord
    revision: int
    said: MigrationSide | None
    told: int
    claim: Claim
    guest: Guest
    controller: Controller
    migrator: Migrator


@dataclass(slots=True)
class _Kept:
    """What this run of the daemon remembers of one; nothing of it is needed for safety after a crash."""

    offer: str = ""
    door: str | None = None
    opened: _Here | None = None
    call: asyncio.Task[None] | None = None
    result: CallResult = CallResult.NONE
    obstacle: str = ""


def _patience(record: MigrationRecord) -> float:
    """Seconds that the call may take, when nobody has the job ended before."""
    return longest(replace(record, hold=record.may_hold)) + GRACE


class MigrationHost:
    """All migrations that this node is a host of. `run()` is its life."""

    def __init__(
        self, context: NodeContext, disks: DiskWork, clients: NetworkClients, guest_keys: GuestKeys
    ) -> None:
        self._context = context
        self._disks = disks
        self._clients = clients
        self._keys = guest_keys
        self._queue = WorkQueue(context.clock)
        self._kept: dict[str, _Kept] = {}

    @property
    def calling(self) -> bool:
        """Whether a call of this daemon has not returned."""
        return any(kept.call is not None for kept in self._kept.values())

    async def run(self) -> None:
        """Until cancelled; what the hypervisor has begun goes on."""
        cache = self._context.views.cache
        unsubscribe = cache.subscribe(self._changed)
        self._changed(frozenset(item.key for item in cache.prefix(keys.MIGRATIONS)))
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(WORKERS):
                    group.create_task(self._work())
        finally:
            unsubscribe()
            for kept in self._kept.values():
                if kept.call is not None:
                    kept.call.cancel()

    def _changed(self, changed: frozenset[str]) -> None:
        for key in sorted(changed):
            if key.startswith(keys.MIGRATIONS):
                self._queue.add(key.removeprefix(keys.MIGRATIONS))
            elif key.startswith(keys.MIGRATING):
                name, _, node = key.removeprefix(keys.MIGRATING).partition("/")
                if node != self._context.node:
                    self._queue.add(name)

    async def _work(self) -> None:
        while True:
            name = await self._queue.get()
            try:
                again = await self._look_after(name)
            finally:
                self._queue.done(name)
            if again is not None:
                self._queue.add_at(name, self._context.clock.monotonic() + again)

    async def _look_after(self, name: str) -> float | None:
        """One step; seconds until the next, None: when something changes."""
        try:
            return await self.step(name)
        except ConflictError as error:
            log.debug("migration %s: %s; looking again", name, error.message)
            return 0.05
        except (OutcomeUnknown, StoreError, VclError) as error:
            log.warning("migration %s: %s; looking again", name, error)
            return LOOK
        except Exception:
            # A bug in one VM's handling must not end the others': it is logged whole and tried again.
            log.exception("migration %s: unexpected error", name)
            return LOOK

    async def step(self, name: str) -> float | None:
        """Do what the record asks of this host. Raises VclError."""
        context, views = self._context, self._context.views
        record = views.record(keys.migration(name), MigrationRecord)
        if record is None or record.phase in ENDED:
            await self._forget(name)
            return None
        if context.node not in (record.source, record.target) or record.phase is MigrationPhase.PENDING:
            return None
        if context.frozen() or context.held() or views.session_over(context.node, context.session):
            return LOOK
        here = self._here(name, record)
        if here is None:
            return LOOK
        busy, progress = await self._busy(here)
        match duty(record, context.node, here.said, busy=busy):
            case Duty.NOTHING:
                return None
            case Duty.DESTROY:
                await self._destroy(here)
            case Duty.ABORT:
                await here.migrator.abort(here.guest, timeout=context.deadlines.act)
            case Duty.HOLD:
                await here.migrator.hold(here.guest, timeout=context.deadlines.act)
            case Duty.CALL if here.said is not None and here.said.session == context.session:
                await self._call(here, here.said)
                return LOOK
            case _:
                pass
        await self._say(here, busy, progress)
        return SETTLING if record.phase is MigrationPhase.RESOLVING else LOOK

    def _here(self, name: str, record: MigrationRecord) -> _Here | None:
        """None while the claim is not of this migration, or this node has nobody who can do it."""
        views, cache, node = self._context.views, self._context.views.cache, self._context.node
        claim = views.claim(record.vm)
        if claim is None or claim.migration is None or claim.migration.id != name:
            return None
        controller = self._context.controllers.get(claim.controller)
        migrator = controller.lifecycle if controller is not None else None
        if not migrates_here(claim, node) or controller is None or not isinstance(migrator, Migrator):
            return None
        side = keys.migrating(name, node)
        said = views.record(side, MigrationSide)
        return _Here(
            record=record,
            revision=cache.revision_of(keys.migration(name)),
            said=said if said is not None and said.id == name else None,
            told=cache.revision_of(side),
            claim=claim,
            guest=Guest(name=record.vm, uid=claim.uid, migration=name),
            controller=controller,
            migrator=migrator,
        )

    def _memory(self, name: str) -> _Kept:
        return self._kept.setdefault(name, _Kept())

    async def _busy(self, here: _Here) -> tuple[bool, Progress | None]:
        """Whether the call has not returned, or the hypervisor has a job; and how far it is."""
        begun = here.record.phase not in (MigrationPhase.PENDING, MigrationPhase.OPEN)
        if self._context.node != here.record.source or not begun:
            return False, None
        progress = await here.migrator.job(here.guest, timeout=self._context.deadlines.observe)
        calling = self._memory(here.record.id).call is not None
        return calling or progress is not None, progress

    async def _destroy(self, here: _Here) -> None:
        """After the store itself has said so: an order of a migration that has ended is none (rule 9)."""
        key = keys.migration(here.record.id)
        found = (await self._context.views.cache.read([key])).get(key)
        record = load(MigrationRecord, found.value) if found is not None else None
        if record is None or record.phase in ENDED or self._context.node not in record.ends:
            raise ConflictError(f"the migration of {here.guest.name} changed while it was worked on")
        log.warning("vm %s: the copy here is ended, as its migration says", here.guest.name)
        timeout = self._context.deadlines.act
        await here.controller.lifecycle.destroy(here.guest.name, uid=here.guest.uid, timeout=timeout)

    # -- the call --------------------------------------------------------------------------------------

    async def _call(self, here: _Here, said: MigrationSide) -> None:
        """First say that it is made, then make it; whoever dies in between has it resolved as if it was."""
        other = self._context.views.record(keys.migrating(here.record.id, here.record.target), MigrationSide)
        if other is None or other.id != here.record.id or not other.door:
            raise ConflictError(f"node {here.record.target} has not said how {here.guest.name} comes in")
        called = replace(said, called=True, busy=True, phase=here.record.phase)
        await self._commit(here, called)
        order = HandOver(guest=here.guest, door=other.door, bandwidth=here.record.bandwidth)
        log.info("vm %s: it is handed over to %s", here.guest.name, here.record.target)
        kept = self._memory(here.record.id)
        kept.call = asyncio.create_task(self._hand_over(here, order, kept), name=f"migrate {here.guest.name}")

    async def _hand_over(self, here: _Here, order: HandOver, kept: _Kept) -> None:
        try:
            await here.migrator.hand_over(order, timeout=_patience(here.record))
            kept.result = CallResult.SUCCEEDED
        except (MigrationFailed, MigrationRefused, NotFound) as error:
            log.warning("vm %s: its migration failed: %s", order.guest.name, error)
            kept.result, kept.obstacle = CallResult.FAILED, error.message
        except VclError as error:
            log.warning("vm %s: how its migration ended is not known: %s", order.guest.name, error)
            kept.obstacle = error.message
        except Exception:
            # A bug in the controller: nobody heard how it ended, and both hosts are looked at.
            log.exception("vm %s: its migration ended by an unexpected error", order.guest.name)
            kept.obstacle = "the controller failed; the log of the node says how"
        finally:
            kept.call = None
            self._queue.add(here.record.id)

    # -- what it says ----------------------------------------------------------------------------------

    async def _say(self, here: _Here, busy: bool, progress: Progress | None) -> None:
        record, node, kept = here.record, self._context.node, self._memory(here.record.id)
        ready = False
        try:
            if node == record.target:
                opened = await self._door(here, kept)
                ready = opened and record.phase is MigrationPhase.OPEN and not record.abort
            elif record.phase is MigrationPhase.OPEN:
                await self._offer(here, kept)
        except (ControllerUnavailable, DiskError, NotFound) as error:
            if record.phase is MigrationPhase.RESOLVING:
                raise  # as long as somebody may still be let in, absence says nothing
            log.info("migration %s: %s; trying again", record.id, error)
        look, clients = Look.UNKNOWN, here.claim.clients
        if node == record.target or record.phase is not MigrationPhase.RUNNING:
            look, clients = await self._look(here)
        # else it is asked for nothing but whether the call is over: the guest stands still when it is.
        now = MigrationSide(
            id=record.id,
            node=node,
            session=self._context.session,
            boot_id=self._context.boot_id,
            phase=record.phase,
            look=look,
            ready=ready,
            busy=busy,
            clients=clients,
            progress=progress,
            offer=kept.offer,
            door=kept.door or "",
            obstacle=kept.obstacle,
        )
        new = saying(record, here.said, now, kept.result)
        if new != here.said:
            await self._commit(here, new)

    async def _offer(self, here: _Here, kept: _Kept) -> None:
        if kept.offer or kept.obstacle:
            return
        try:
            kept.offer = await here.migrator.offer(here.guest, timeout=self._context.deadlines.act)
        except MigrationRefused as error:
            kept.obstacle = error.message

    async def _door(self, here: _Here, kept: _Kept) -> bool:
        """Open it, or shut it, as the record says; whether it is open."""
        record, timeout = here.record, self._context.deadlines.act
        wanted = record.phase in (MigrationPhase.OPEN, MigrationPhase.RUNNING) and not record.abort
        if not wanted:
            await here.migrator.shut(here.guest, timeout=timeout)
            kept.opened = None
            return False
        other = self._context.views.record(keys.migrating(record.id, record.source), MigrationSide)
        if kept.obstacle or other is None or other.id != record.id or not other.offer:
            return False
        if kept.door is None:
            vm = self._context.views.vm(record.vm)
            if vm is not None:
                await self._keys.give(here.controller, self._disks.pools_of(vm))
            kept.opened = here
            try:
                kept.door = await here.migrator.let_in(here.guest, other.offer, timeout=timeout)
            except MigrationRefused as error:
                kept.obstacle = error.message
                return False
        return True

    async def _look(self, here: _Here) -> tuple[Look, tuple[str, ...]]:
        """What is here, and what of it may write. What is not known is said as such."""
        known = here.said.clients if here.said is not None else ()
        if self._context.node == here.record.source:
            known = here.claim.clients
        try:
            look = await here.migrator.look(here.guest, timeout=self._context.deadlines.observe)
            if look is Look.ABSENT:
                return await self._absent(here, known), known
            if self._context.node == here.record.source:
                return look, known
            return look, await self._arrived(here, look, known)
        except (ControllerUnavailable, DiskError, NotFound) as error:
            log.info("vm %s: what is here of it is not known: %s", here.guest.name, error)
            return Look.UNKNOWN, known

    async def _absent(self, here: _Here, known: tuple[str, ...]) -> Look:
        """Absent with every proof: also what its process had sent can arrive no more (rule 7)."""
        timeout = self._context.deadlines.observe
        seen = await here.controller.lifecycle.observe(here.guest.name, uid=here.guest.uid, timeout=timeout)
        if not isinstance(seen, Gone):
            return Look.UNKNOWN
        left = await self._clients.lingering(replace(here.claim, clients=known))
        if not left:
            return Look.ABSENT
        await self._clients.cut_off(left)
        return Look.UNKNOWN

    async def _arrived(self, here: _Here, look: Look, known: tuple[str, ...]) -> tuple[str, ...]:
        """The clients of the copy that comes, or has come. A whole one has its images open."""
        timeout = self._context.deadlines.observe
        seen = await here.controller.lifecycle.observe(here.guest.name, uid=here.guest.uid, timeout=timeout)
        if isinstance(seen, Gone):
            raise ControllerUnavailable(f"{here.guest.name} was here a moment ago")
        session = self._context.views.record(keys.session(self._context.node), Session)
        addresses = session.addresses if session is not None else ()
        images = [disk for disk in here.claim.disks if RbdIdentity.parse(disk) is not None]
        found = await self._clients.arrived(images, addresses, here.claim.clients)
        if look is Look.READY and any(not clients for clients in found.values()):
            raise ControllerUnavailable(
                f"{here.guest.name} has not opened all its images, as far as Ceph says"
            )
        return tuple(sorted({*known, *seen.clients, *(c for clients in found.values() for c in clients)}))

    async def _commit(self, here: _Here, side: MigrationSide) -> None:
        key = keys.migrating(here.record.id, self._context.node)
        result = await self._context.writer.commit(
            compares={keys.migration(here.record.id): here.revision, key: here.told},
            puts={key: dump(side)},
            guards=(keys.SCHEMA, keys.session(self._context.node)),
        )
        if lost := conflicts(result):
            raise ConflictError(f"decided on an old state ({', '.join(lost)})")

    async def _forget(self, name: str) -> None:
        """It has ended: nobody is let in any more."""
        kept = self._kept.get(name)
        if kept is None or kept.call is not None:
            return
        if kept.opened is not None:
            timeout = self._context.deadlines.act
            await kept.opened.migrator.shut(kept.opened.guest, timeout=timeout)
        self._kept.pop(name)
