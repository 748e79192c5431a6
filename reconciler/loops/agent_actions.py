"""Carries out one decided step for one VM: each is short, and leaves a state that `decide` can go on from.

The order is the safety: a claim is committed before anything is created, clients before the guest runs, and
a claim is emptied only after the decision has seen proof that the domain is gone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

from reconciler.loops.agent_changes import Changes
from reconciler.loops.agent_claims import Job, claim_revision, commit_claim
from reconciler.loops.agent_clients import NetworkClients
from reconciler.loops.agent_disks import DiskWork
from reconciler.loops.agent_holders import why_not
from reconciler.loops.agent_return import GuestClocks, positively_foreign, still_ours
from reconciler.loops.agent_state import NodeContext
from reconciler.loops.guest_keys import GuestKeys
from reconciler.planning.lifecycle import Decision, Prepared, Step, leaves, never_ran
from reconciler.ports.controller import Resetter
from reconciler.resources import keys
from reconciler.resources.domains import DomainPhase, Gone, Observed, PauseReason
from reconciler.resources.errors import (
    ConflictError,
    ControllerUnavailable,
    StartFailed,
    VclError,
)
from reconciler.resources.images import is_network_client
from reconciler.resources.kinds import Kind
from reconciler.resources.records import (
    Binding,
    Claim,
    ClaimPhase,
    DiskClaim,
    EventType,
    Pin,
    dump,
)

log = logging.getLogger(__name__)


class Actions:
    """The steps of lifecycle.Step that do something."""

    def __init__(
        self,
        context: NodeContext,
        disks: DiskWork,
        clients: NetworkClients,
        guest_keys: GuestKeys,
        requeue: Callable[[str], None],
    ) -> None:
        self._context = context
        self._disks = disks
        self._clients = clients
        self._keys = guest_keys
        self._requeue = requeue
        self._clocks = GuestClocks(context)
        self._changes = Changes(context, disks, clients, guest_keys, requeue)

    async def run(self, job: Job, decision: Decision) -> None:
        """Do the step. Raises VclError; ConflictError means: look again."""
        match decision.step:
            case Step.PREPARE:
                await self._prepare(job)
            case Step.CLAIM:
                await self._claim(job)
            case Step.PROVISION:
                self._provision(job)
            case Step.CANCEL:
                await self._cancel(job)
            case Step.EXTEND:
                await self._extend(job)
            case Step.CREATE:
                await self._create(job)
            case Step.COMMIT:
                await self._commit(job)
            case Step.RESUME:
                await self._resume(job)
            case Step.PAUSE:
                await self._pause(job)
            case Step.RESET:
                await self._reset(job)
            case Step.CHANGE:
                await self._changes.bring(job)
            case Step.SHUTDOWN:
                await self._shutdown(job)
            case Step.DESTROY:
                await self._destroy(job, decision.message)
            case Step.DESTROY_FOREIGN:
                await self._destroy_foreign(job, decision.message)
            case Step.CUT_OFF:
                await self._cut_off(job, decision.message)
            case Step.PURGE:
                await self._purge(job)
            case Step.RELEASE:
                await self._release(job)
            case Step.ADOPT:
                await self._adopt(job)
            case Step.WAIT:
                return

    def _event(self, job: Job, reason: str, message: str, type: EventType = EventType.NORMAL) -> None:
        self._context.event(type, Kind.VIRTUAL_MACHINE, job.name, reason, message)

    async def _prepare(self, job: Job) -> None:
        assert job.record is not None
        assert job.vm is not None
        look = await self._disks.look(job.record, job.vm)
        former = job.view.claim.former_clients if job.view.claim is not None else ()
        await self._clients.refuse_held(look.prepared.identities, former)
        job.state.notes = look.notes
        job.state.definition = look.definition
        job.state.memory = replace(job.state.memory, prepared=look.prepared)

    async def _claim(self, job: Job) -> None:
        """Become the owner (rules 4 and 6): no other owner, no fence, power On, this very binding."""
        assert job.record is not None
        assert job.vm is not None
        views, context = job.view, self._context
        cache = context.views.cache
        prepared = job.state.memory.prepared
        purging = prepared is None
        held = self._disks.names(job.vm, job.name) if prepared is None else prepared.identities
        former = views.claim.former_clients if views.claim is not None else ()
        binding = keys.binding(job.name)
        claim = Claim(
            node=context.node,
            uid=views.uid,
            boot_id=context.boot_id,
            session=context.session,
            binding_revision=cache.revision_of(binding),
            phase=self._first_phase(prepared),
            disks=held,
            former_clients=former,
            generation=views.generation,
            start=views.intent.start,
            restart=views.intent.restart,
            reset=views.intent.reset,
            controller=job.vm.controller,
            claimed=context.clock.wall(),
        )
        self._require_binding(job)
        await commit_claim(
            self._context,
            job,
            claim,
            compares={
                binding: cache.revision_of(binding),
                keys.spec(Kind.VIRTUAL_MACHINE, job.name): cache.revision_of(
                    keys.spec(Kind.VIRTUAL_MACHINE, job.name)
                ),
                keys.fence(context.node): 0,
                **({} if purging else {keys.POWER_INTENT: 0}),
                **{keys.disk(identity): 0 for identity in held},
            },
            puts=self._disk_claims(job, held),
        )

    def _require_binding(self, job: Job) -> None:
        current = self._context.views.record(keys.binding(job.name), Binding)
        if current != job.view.binding:
            raise ConflictError(f"the binding of {job.name} changed while it was worked on")

    @staticmethod
    def _first_phase(prepared: Prepared | None) -> ClaimPhase:
        ready = prepared is not None and not prepared.missing
        return ClaimPhase.STARTING if ready else ClaimPhase.PROVISIONING

    def _disk_claims(self, job: Job, identities: tuple[str, ...]) -> dict[str, bytes]:
        holder = dump(DiskClaim(node=self._context.node, vm=job.name, uid=job.view.uid))
        return {keys.disk(identity): holder for identity in identities}

    def _provision(self, job: Job) -> None:
        """Begin to make the disks; the task's end wakes the VM again."""
        state = job.state
        if state.task is not None and not state.task.done():
            return
        state.progress = 0.0
        state.memory = replace(state.memory, provisioning=True)
        self._event(job, "Provisioning", "making its disks")
        state.task = asyncio.create_task(self._make_disks(job), name=f"provision {job.name}")

    async def _make_disks(self, job: Job) -> None:
        assert job.record is not None
        assert job.vm is not None
        state = job.state

        def progress(share: float) -> None:
            state.progress = share

        try:
            await self._disks.make(job.record, job.vm, progress)
        finally:
            state.progress = None
            state.memory = replace(state.memory, provisioning=False, prepared=None)
            self._requeue(job.name)

    async def _cancel(self, job: Job) -> None:
        """Give up making the disks, and see the work end before anything else happens to the VM."""
        task = job.state.task
        if task is None:
            job.state.memory = replace(job.state.memory, provisioning=False)
            return
        task.cancel()
        done, _ = await asyncio.wait({task}, timeout=self._context.deadlines.act)
        if not done:
            raise ControllerUnavailable(f"making the disks of {job.name} does not end")

    async def _extend(self, job: Job) -> None:
        """Add the identities of images that exist now; drop what only their making needed."""
        claim, prepared = job.view.claim, job.state.memory.prepared
        assert claim is not None
        assert prepared is not None
        assert job.record is not None
        assert job.vm is not None
        volumes = await self._disks.record_volumes(job.record, job.vm)
        new = tuple(sorted(set(prepared.identities) - set(claim.disks)))
        dropped = sorted(set(claim.disks) - set(prepared.identities))
        extended = replace(claim, phase=ClaimPhase.STARTING, disks=prepared.identities)
        await commit_claim(
            self._context,
            job,
            replace(extended, generation=job.view.generation),
            compares={keys.disk(identity): 0 for identity in new},
            puts={**self._disk_claims(job, new), **volumes},
            deletes=tuple(keys.disk(identity) for identity in dropped),
        )

    async def _create(self, job: Job) -> None:
        state, definition = job.state, job.state.definition
        if definition is None:
            state.memory = replace(state.memory, prepared=None)
            return
        await self._ready_disks(job)
        try:
            observed = await job.controller.create(definition, timeout=self._context.deadlines.create)
        except ControllerUnavailable:
            state.memory = replace(state.memory, create_unknown=True)
            raise
        except StartFailed as error:
            state.memory = replace(state.memory, prepared=None)
            raise await why_not(self._disks, (job.record, job.vm), error) from error
        except VclError:
            state.memory = replace(state.memory, prepared=None)
            raise
        state.memory = replace(state.memory, create_unknown=False)
        state.last = observed

    async def _ready_disks(self, job: Job) -> None:
        """Before a domain is made: nobody else has its images, and the hypervisor has the keys to them."""
        claim, vm = job.view.claim, job.vm
        assert claim is not None
        await self._clients.clear(claim.disks, claim.former_clients)
        if vm is not None:
            controller = self._context.controllers[vm.controller]
            await self._keys.give(controller, self._disks.pools_of(vm))

    async def _cut_off(self, job: Job, what: str) -> None:
        """Its process is gone, its clients are not: the storage shuts them out (rules 7 and 8)."""
        self._event(job, "CuttingOff", f"its process is gone, {what} that it left behind", EventType.WARNING)
        await self._clients.cut_off(job.state.lingering)

    async def _commit(self, job: Job) -> None:
        """Record the clients, the pins and the images of a paused domain, before it may run (rule 5); of one
        that runs, the clients that it got meanwhile."""
        claim, domain = job.view.claim, job.view.observed
        assert claim is not None
        assert isinstance(domain, Observed)
        fresh = never_ran(domain)
        running = replace(
            claim,
            phase=ClaimPhase.RUNNING,
            clients=domain.clients,
            # Before it was made, those that still held an image were cut off, and nobody held one.
            former_clients=() if fresh else claim.former_clients,
            session=self._context.session,
            boot_id=self._context.boot_id,
            generation=domain.generation or claim.generation,
            paused=claim.paused and not fresh,
            plugging=None if fresh else claim.plugging,
        )
        puts: dict[str, bytes] = {}
        if fresh and job.record is not None and job.vm is not None:
            puts.update(await self._disks.record_volumes(job.record, job.vm))
            pin = Pin(uid=claim.uid, machine=domain.machine, domain_uuid=domain.uid, spec=job.record.spec)
            puts[keys.pin(job.name)] = dump(pin)
        await commit_claim(self._context, job, running, puts=puts)
        job.state.memory = replace(job.state.memory, committed=domain.incarnation)

    async def _resume(self, job: Job) -> None:
        state, domain = job.state, job.view.observed
        assert isinstance(domain, Observed)
        ours = domain.pause_reason is PauseReason.ISOLATED
        if ours or domain.pause_reason is PauseReason.IO_ERROR:
            await still_ours(self._context, job.name, claim_revision(self._context, job))
        retry = self._context.clock.monotonic() + 10.0
        first = state.memory.resumed != domain.incarnation and domain.phase is DomainPhase.PAUSED
        state.memory = replace(state.memory, resumed=domain.incarnation, io_retry_at=retry)
        await job.controller.set_paused(job.name, False, timeout=self._context.deadlines.act)
        claim = job.view.claim
        if claim is not None and claim.paused and not job.view.intent.paused:
            await commit_claim(self._context, job, replace(claim, paused=False))
            self._event(job, "Resumed", "the guest goes on")
        elif first and state.memory.committed == domain.incarnation:
            state.killed = False
            self._event(job, "Started", f"running on {self._context.node}")

        if ours:
            self._event(job, "Resumed", "contact is back and the claim still stands: the guest goes on")
            self._clocks.set(job.name, job.view.claim.controller if job.view.claim is not None else "")

    async def _pause(self, job: Job) -> None:
        """Mark the pause as ours first: only those are resumed by vcl (SAFETY rule 17)."""
        claim = job.view.claim
        assert claim is not None
        if not claim.paused:
            await commit_claim(self._context, job, replace(claim, paused=True))
        await job.controller.set_paused(job.name, True, timeout=self._context.deadlines.act)
        self._event(job, "Paused", "suspended by `vcl pause`")

    async def _reset(self, job: Job) -> None:
        """First the reset, then the word that it was: one that is cut off in between is done once more."""
        claim = job.view.claim
        assert claim is not None
        able = isinstance(job.controller, Resetter)
        if isinstance(job.controller, Resetter):
            await job.controller.reset(job.name, timeout=self._context.deadlines.act)
        await commit_claim(self._context, job, replace(claim, reset=job.view.intent.reset))
        if able:
            self._event(job, "Reset", "reset by `vcl reset`, without asking the guest")
        else:
            words = f"controller '{claim.controller}' cannot; `vcl restart --force {job.name}` does alike"
            self._event(job, "ResetRefused", words, EventType.WARNING)

    async def _shutdown(self, job: Job) -> None:
        now, memory = self._context.clock.monotonic(), job.state.memory
        first = memory.stop_since is None
        job.state.memory = replace(memory, stop_since=now if first else memory.stop_since, stop_asked=now)
        job.state.killed = True
        await job.controller.shutdown(job.name, timeout=self._context.deadlines.act)
        if first:
            self._event(job, "Stopping", "asked the guest to power off")

    async def _destroy(self, job: Job, why: str) -> None:
        domain, claim = job.view.observed, job.view.claim
        assert isinstance(domain, Observed)
        ours = claim is not None and claim.node == self._context.node and not job.view.lost
        if claim is not None and ours and claim.phase is ClaimPhase.RUNNING and never_ran(domain):
            # What never ran is no run: the `start` that asked for it stays to be honoured.
            await commit_claim(self._context, job, replace(claim, phase=ClaimPhase.STARTING))
        hung = bool(job.view.hung) and why == job.view.hung
        if hung:
            # While the store is silent nothing could be started again, and the guest may only be waiting for
            # the same storage: it goes on.
            await self._context.views.cache.read([keys.claim(job.name)])
        job.state.killed = domain.phase is not DomainPhase.CRASHED and not hung
        if not job.state.killed:
            panicked = ("GuestPanicked", "the guest's kernel panicked; it was ended")
            job.state.ending = ("GuestHung", f"{why}; it was ended") if hung else panicked
        job.state.memory = replace(job.state.memory, destroyed=self._context.clock.monotonic())
        self._event(job, "Killing", why, EventType.WARNING)
        await job.controller.destroy(job.name, uid=domain.uid, timeout=self._context.deadlines.act)
        job.state.memory = replace(job.state.memory, create_unknown=False)

    async def _destroy_foreign(self, job: Job, why: str) -> None:
        """End a copy that the record gives to somebody else, after a fresh read says so again (rule 9)."""
        domain = job.view.observed
        assert isinstance(domain, Observed)
        await positively_foreign(self._context, job.name, lost=job.view.lost)
        await self._destroy(job, why)

    async def _purge(self, job: Job) -> None:
        claim = job.view.claim
        assert claim is not None
        assert job.record is not None
        assert job.vm is not None
        volumes = await self._disks.trash(job.record, job.vm)
        await commit_claim(self._context, job, replace(claim, purged=True), deletes=volumes)
        self._event(job, "Purged", f"its {len(volumes)} images were moved to their pools' trash")

    async def _release(self, job: Job) -> None:
        """Empty the claim: the decision has seen that the domain is gone."""
        claim, gone = job.view.claim, job.view.observed
        assert claim is not None
        assert isinstance(gone, Gone)
        ran = claim.phase is ClaimPhase.RUNNING
        exit = str(gone.exit) if ran else claim.exit
        # A run that goes on elsewhere, or when the cluster starts again, is not over: as it ends here it says
        # nothing about the next one.
        over = ran and not leaves(job.view) and self._context.views.power_on()
        # A local process is proven gone with its domain; a network client may linger (SAFETY rule 8).
        lingering = {c for c in (*claim.former_clients, *claim.clients) if is_network_client(c)}
        emptied = Claim(
            uid=claim.uid,
            former_clients=tuple(sorted(lingering)),
            generation=claim.generation,
            start=claim.start if over else None,
            restart=claim.restart,
            exit=exit if over or not ran else None,
            purged=claim.purged,
        )
        freed = tuple(keys.disk(identity) for identity in claim.disks)
        await commit_claim(self._context, job, emptied, deletes=freed)
        job.state.last_exit = exit
        if ran:
            self._event(job, "Stopped", f"the run on {self._context.node} has ended: {exit}")

    async def _adopt(self, job: Job) -> None:
        """Take over a running domain of ours whose claim was never recorded (a store begun anew)."""
        domain = job.view.observed
        assert isinstance(domain, Observed)
        assert job.record is not None
        assert job.vm is not None
        look = await self._disks.look(job.record, job.vm)
        domain = await self._clients.seen(domain, look.prepared.identities, None, job.state)
        cache = self._context.views.cache
        binding = keys.binding(job.name)
        claim = Claim(
            node=self._context.node,
            uid=job.view.uid,
            boot_id=self._context.boot_id,
            session=self._context.session,
            binding_revision=cache.revision_of(binding),
            phase=ClaimPhase.RUNNING,
            disks=look.prepared.identities,
            clients=domain.clients,
            generation=domain.generation,
            start=job.view.intent.start,
            restart=job.view.intent.restart,
            reset=job.view.intent.reset,
            controller=job.vm.controller,
            claimed=self._context.clock.wall(),
        )
        await commit_claim(
            self._context,
            job,
            claim,
            compares={
                binding: cache.revision_of(binding),
                keys.fence(self._context.node): 0,
                **{keys.disk(identity): 0 for identity in claim.disks},
            },
            puts=self._disk_claims(job, claim.disks),
        )
        self._event(job, "Adopted", "found it running and took it over")
