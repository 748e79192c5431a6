"""The agent: drives the VMs of this node until reality is what was asked.

Each VM is looked at when something about it changes (store, hypervisor, a deadline) and at every resync.
A look is: read, `decide` (planning/lifecycle.py), do one step, and again until there is nothing to do. One
worker holds a VM at a time. Killing the daemon at any instant is safe: the next one looks and goes on.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

from reconciler.loops.agent_actions import Actions
from reconciler.loops.agent_changes import due_change
from reconciler.loops.agent_claims import Job
from reconciler.loops.agent_clients import NetworkClients
from reconciler.loops.agent_disks import DiskWork
from reconciler.loops.agent_failures import (
    changes,
    note_exit,
    note_failure,
    note_generation,
    note_reboot,
    note_stable,
    note_task,
    restore,
    take_over,
)
from reconciler.loops.agent_liveness import Pings
from reconciler.loops.agent_readings import GUEST_EAGER, GUEST_FRESH, Readings
from reconciler.loops.agent_state import NodeContext, VmState
from reconciler.loops.agent_status import build_status, status_key
from reconciler.loops.guest_keys import GuestKeys
from reconciler.loops.migration_host import MigrationHost
from reconciler.loops.workqueue import WorkQueue
from reconciler.planning.backoff import delay
from reconciler.planning.desired import Wish, desired, purges
from reconciler.planning.hangs import interrupted
from reconciler.planning.lifecycle import Decision, Step, VmView, decide, leaves
from reconciler.planning.migration import hosts_of
from reconciler.ports.controller import Controller
from reconciler.resources import keys
from reconciler.resources.domains import Gone, Observed
from reconciler.resources.errors import (
    ConflictError,
    ControllerUnavailable,
    DiskError,
    NotFound,
    StoreError,
    VclError,
)
from reconciler.resources.kinds import Kind
from reconciler.resources.records import Claim, ClaimPhase, dump
from reconciler.resources.status import ForeignDomain, Phase, VmNodeStatus
from reconciler.resources.transactions import Committed
from reconciler.resources.virtualmachine import VirtualMachineSpec

log = logging.getLogger(__name__)

RESYNC = 30.0
WORKERS = 8
STEPS_PER_LOOK = 16

_PREFIXES = (
    keys.CLAIMS,
    keys.BINDINGS,
    f"{keys.SPECS}{Kind.VIRTUAL_MACHINE}/",
    f"{keys.INTENTS}{Kind.VIRTUAL_MACHINE}/",
)
_EVERYTHING = (
    keys.POWER_INTENT,
    f"{keys.SPECS}{Kind.CLUSTER}/",
    f"{keys.SPECS}{Kind.STORAGE_POOL}/",
    f"{keys.SPECS}{Kind.IMAGE}/",
    keys.FENCES,
    keys.SESSIONS,
    keys.SCHEMA,
)


class Agent:
    """All VMs of one node. `run()` is its life; `foreign` are the domains that vcl did not make."""

    def __init__(self, context: NodeContext) -> None:
        self._context = context
        self._queue = WorkQueue(context.clock)
        self._states: dict[str, VmState] = {}
        self._disks, self._clients = DiskWork(context), NetworkClients(context)
        self._keys = GuestKeys(context)
        self._readings, self._pings = Readings(context, self._disks), Pings(context)
        self.migrations = MigrationHost(context, self._disks, self._clients, self._keys)
        self._actions = Actions(context, self._disks, self._clients, self._keys, self._queue.add)
        self._inventory: dict[str, dict[str, Observed]] = {}
        self._busy = 0
        self._looked: dict[str, tuple[object, ...]] = {}
        self.foreign: tuple[ForeignDomain, ...] = ()
        self.controller_errors: dict[str, str] = {}

    @property
    def queued(self) -> int:
        """How many VMs wait to be looked at."""
        return len(self._queue)

    async def run(self) -> None:
        """Work until cancelled; guests are left running."""
        unsubscribe = self._context.views.cache.subscribe(self.changed)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._resync_forever())
                group.create_task(self._keys.run())
                group.create_task(self.migrations.run())
                for controller in self._context.controllers.values():
                    group.create_task(self._listen(controller))
                for _ in range(WORKERS):
                    group.create_task(self._work())
        finally:
            unsubscribe()
            for state in self._states.values():
                if state.task is not None:
                    state.task.cancel()

    def changed(self, changed: frozenset[str]) -> None:
        """The store's copy has changed at these keys."""
        if any(key.startswith(_EVERYTHING) for key in changed):
            for name in self._known():
                self._queue.add(name)
            return
        for key in sorted(changed):
            for prefix in _PREFIXES:
                if key.startswith(prefix):
                    self._queue.add(key.removeprefix(prefix))

    def _known(self) -> list[str]:
        views = self._context.views
        claimed = [item.key.removeprefix(keys.CLAIMS) for item in views.cache.prefix(keys.CLAIMS)]
        return sorted({*views.names(Kind.VIRTUAL_MACHINE), *claimed})

    def look_again(self) -> None:
        """Look at every VM, whatever was found at the last look."""
        self._looked.clear()
        for name in sorted({*self._known(), *self._states}):
            self._queue.add(name)

    async def _listen(self, controller: Controller) -> None:
        async for event in controller.lifecycle.events():
            if event.name:
                self._looked.pop(event.name, None)
                self._queue.add(event.name)
            else:
                self._keys.wake()
                await self.resync()

    async def _resync_forever(self) -> None:
        while True:
            await self.resync()
            await asyncio.sleep(RESYNC * (0.9 + 0.2 * self._context.ids.jitter()))

    async def empty(self) -> bool:
        """Whether it is certain that nothing of this cluster runs here, nor is about to: every controller was
        asked, each VM that this node may have run is proven gone, and no call is under way."""
        context = self._context
        timeout = context.deadlines.observe
        try:
            for controller in context.controllers.values():
                domains = await controller.lifecycle.inventory(timeout=timeout)
                if any(domain.cluster_uid == context.cluster_uid for domain in domains):
                    return False
            for name in self._known():
                claim = context.views.claim(name)
                controller_name = self._host_of(name, context.views.vm(name))
                mine = (claim is not None and context.node in hosts_of(claim)) or name in self._states
                found = context.controllers.get(controller_name or "")
                if mine and found is not None and claim is not None:
                    seen = await found.lifecycle.observe(name, uid=claim.uid, timeout=timeout)
                    if not isinstance(seen, Gone) and seen.cluster_uid == context.cluster_uid:
                        return False
        except ControllerUnavailable as error:
            log.info("not known to be empty: %s", error)
            return False
        states = self._states.values()
        return not (self._busy or self.migrations.calling) and not any(
            s.task is not None or s.memory.create_unknown for s in states
        )

    async def resync(self) -> None:
        """Look at the whole node: every VM whose domain or records changed, or that is not at rest."""
        for name, controller in sorted(self._context.controllers.items()):
            try:
                domains = await controller.lifecycle.inventory(timeout=self._context.deadlines.observe)
            except ControllerUnavailable as error:
                self.controller_errors[name] = error.message
                log.warning("controller %s: %s", name, error)
                for vm in self._known():
                    self._looked.pop(vm, None)
                    self._queue.add(vm)
                continue
            self.controller_errors.pop(name, None)
            self._inventory[name] = {domain.name: domain for domain in domains}
        ours = self._context.cluster_uid
        everything = [d for domains in self._inventory.values() for d in domains.values()]
        self.foreign = tuple(
            ForeignDomain(name=d.name, phase=str(d.phase), vcpus=d.vcpus, memory=d.memory)
            for d in sorted(everything, key=lambda d: d.name)
            if d.cluster_uid != ours
        )
        for vm in sorted({*self._known(), *(d.name for d in everything if d.cluster_uid == ours)}):
            if self._looked.get(vm) != self._fingerprint(vm) or self._guest_is_due(vm):
                self._queue.add(vm)

    def _fingerprint(self, name: str) -> tuple[object, ...]:
        """What a look at rest depended on: while it is the same, another look would find the same."""
        cache = self._context.views.cache
        seen = tuple(sorted((c, d[name]) for c, d in self._inventory.items() if name in d))
        return (
            seen,
            cache.revision_of(keys.claim(name)),
            cache.revision_of(keys.binding(name)),
            cache.revision_of(keys.spec(Kind.VIRTUAL_MACHINE, name)),
            cache.revision_of(keys.intent(Kind.VIRTUAL_MACHINE, name)),
        )

    def _guest_is_due(self, name: str) -> bool:
        state = self._states.get(name)
        if state is None or state.running_since is None:
            return False
        return self._context.clock.monotonic() - state.guest_read_at >= GUEST_FRESH

    async def _work(self) -> None:
        while True:
            name = await self._queue.get()
            self._busy += 1
            try:
                await self._reconcile(name)
            finally:
                self._busy -= 1
                self._queue.done(name)

    async def _reconcile(self, name: str) -> None:
        """Look and act until there is nothing to do; every error ends in a later look."""
        state = self._states.setdefault(name, VmState())
        now = self._context.clock.monotonic()
        try:
            await self._settle(name, state)
            state.unknown_count = 0
        except ConflictError as error:
            log.info("vm %s: %s; looking again", name, error.message)
            self._queue.add_at(name, now + 0.05)
        except (StoreError, ControllerUnavailable) as error:
            state.unknown_count += 1
            wait = delay(state.unknown_count, self._context.ids.jitter())
            log.warning("vm %s: %s; looking again in %.1f s", name, error, wait)
            self._queue.add_at(name, now + wait)
        except Exception:
            # A bug in one VM's handling must not end the others': it is logged whole and tried again.
            state.unknown_count += 1
            log.exception("vm %s: unexpected error", name)
            self._queue.add_at(name, now + delay(state.unknown_count, self._context.ids.jitter()))

    async def _settle(self, name: str, state: VmState) -> None:
        for _ in range(STEPS_PER_LOOK):
            note_task(self._context, name, state)
            job = await self._look(name, state)
            if job is None:
                return
            decision = decide(replace(job.view, memory=state.memory))
            if decision.step is not Step.WAIT:
                await self._report(job, decision)
                await self._act(job, decision)
                continue
            await self._rest(job, decision)
            return
        self._queue.add(name)

    async def _act(self, job: Job, decision: Decision) -> None:
        log.debug("vm %s: %s%s", job.name, decision.step, _because(decision.message))
        before = job.view.claim
        try:
            await self._actions.run(job, decision)
        except (StoreError, ConflictError, ControllerUnavailable):
            raise
        except NotFound as error:
            log.info("vm %s: %s; looking again", job.name, error.message)
        except VclError as error:
            note_failure(self._context, job.name, job.state, error)
        if decision.step is Step.RELEASE and before is not None and before.phase is ClaimPhase.RUNNING:
            gone = job.view.observed
            wish = job.view.desired.wish if job.view.desired is not None else None
            wanted = wish is Wish.RUN and not leaves(job.view)
            if before.boot_id != self._context.boot_id:
                note_reboot(job.name, job.state, wanted)
            else:
                note_exit(
                    self._context, job.name, job.state, gone if isinstance(gone, Gone) else None, wanted
                )
        if decision.step is Step.RELEASE:
            job.state.definition = None
            job.state.memory = replace(job.state.memory, prepared=None, stop_since=None, resumed="")

    async def _rest(self, job: Job, decision: Decision) -> None:
        """Nothing to do now: tell the state, and when to look again."""
        state, now = job.state, self._context.clock.monotonic()
        running = isinstance(job.view.observed, Observed) and decision.phase in (Phase.RUNNING, Phase.PAUSED)
        if running:
            note_stable(self._context, job.name, state)
            await self._readings.read(job)
            ask_at = await self._pings.look(job)
            if ask_at is not None:
                self._queue.add_at(job.name, ask_at)
        else:
            state.running_since, state.watch = None, interrupted(state.watch)
        await self._report(job, decision)
        if decision.wake is not None:
            self._queue.add_at(job.name, decision.wake)
        elif job.view.observed is None:
            state.unknown_count += 1
            self._queue.add_at(job.name, now + delay(state.unknown_count, self._context.ids.jitter()))
        elif running and self._readings.eager(state, now):
            self._queue.add_at(job.name, now + GUEST_EAGER)
        else:
            self._looked[job.name] = self._fingerprint(job.name)

    async def _look(self, name: str, state: VmState) -> Job | None:
        """Read everything the decision depends on; None when the VM is nobody's and nowhere."""
        views, context = self._context.views, self._context
        record, vm = views.spec_record(Kind.VIRTUAL_MACHINE, name), views.vm(name)
        claim, binding, intent = views.claim(name), views.binding(name), views.intent(name)
        if claim is None and views.exists(keys.claim(name)):
            log.error("vm %s: its claim cannot be read; nothing is done", name)
            return None
        restore(context, name, state, intent)
        take_over(context, name, state, claim)
        if record is not None:
            note_generation(state, record.metadata.generation)
        host = self._host_of(name, vm)
        if record is None and claim is None and host is None:
            self._drop(name)
            return None
        wish = None
        if record is not None and vm is not None:
            wish = desired(record, vm, intent, claim, power_on=views.power_on())
        controller = context.controllers.get(host or "")
        uid = record.metadata.uid if record is not None else ""
        if claim is not None and (context.node in hosts_of(claim) or not uid):
            # What must be proven gone is what was claimed, also when the spec is another VM's by now.
            uid = claim.uid
        observed, unknown = await self._observe(controller, host, name, uid)
        observed, unknown = await self._with_clients(observed, unknown, claim, state)
        if isinstance(observed, Observed):
            state.last = observed
        lost = views.session_over(context.node, context.session)
        state.change, change_at = due_change(context, record, vm, observed, state)
        departs = context.departs(name)
        view = VmView(
            name=name,
            node=context.node,
            cluster_uid=context.cluster_uid,
            uid=record.metadata.uid if record is not None else "",
            controller=vm.controller if vm is not None else "",
            generation=record.metadata.generation if record is not None else 0,
            desired=wish,
            intent=intent,
            binding=binding,
            claim=claim,
            session=context.session,
            observed=observed,
            unknown=unknown,
            memory=state.memory,
            grace=departs.grace(vm),
            purge=record is not None and vm is not None and purges(record, vm),
            lingering=tuple(sorted({h.client for held in state.lingering for h in held.holders})),
            intruder=state.intruder,
            fenced=views.exists(keys.fence(context.node)) or lost,
            lost=lost,
            frozen=context.frozen(),
            held=context.held(),
            shut_down=context.shut_down(name),
            leaving=departs.reason,
            reported_by=self._reported_by(name),
            given_up=state.failures.given_up,
            hung=state.watch.hung,
            change=", ".join(state.change.paths) if state.change is not None else "",
            change_at=change_at,
            now=context.clock.monotonic(),
        )
        if controller is None:
            await self._without_controller(name, view, state, vm, host)
            return None
        return Job(name=name, view=view, state=state, record=record, vm=vm, controller=controller.lifecycle)

    def _reported_by(self, name: str) -> str:
        status = self._context.views.record(status_key(name), VmNodeStatus)
        return status.node if status is not None else ""

    async def _without_controller(
        self,
        name: str,
        view: VmView,
        state: VmState,
        vm: VirtualMachineSpec | None,
        host: str | None,
    ) -> None:
        """The VM's controller is not on this node: say so, if the VM concerns this node at all."""
        concerns = view.binding is not None and view.binding.node == view.node
        if not concerns:
            return
        have = ", ".join(sorted(self._context.controllers)) or "none"
        message = f"this node has no controller '{host}' (it has: {have})"
        decision = Decision(step=Step.WAIT, phase=Phase.FAILED, message=message)
        await self._write_status(name, view, state, decision, vm)

    def _host_of(self, name: str, vm: VirtualMachineSpec | None) -> str | None:
        """The controller that has, or is to have, the domain: the claim's, whatever the spec says by now."""
        claimed = self._context.views.claim(name)
        mine = claimed is not None and self._context.node in hosts_of(claimed)
        if claimed is not None and mine and claimed.controller:
            return claimed.controller
        if vm is not None:
            return vm.controller
        for controller, domains in sorted(self._inventory.items()):
            if name in domains:
                return controller
        if mine:
            return min(self._context.controllers, default=None)
        return None

    async def _observe(
        self, controller: Controller | None, host: str | None, name: str, uid: str
    ) -> tuple[Observed | Gone | None, str]:
        if controller is None:
            return None, f"there is no controller '{host}'"
        timeout = self._context.deadlines.observe
        try:
            return await controller.lifecycle.observe(name, uid=uid, timeout=timeout), ""
        except ControllerUnavailable as error:
            return None, str(error)

    async def _with_clients(
        self, observed: Observed | Gone | None, unknown: str, claim: Claim | None, state: VmState
    ) -> tuple[Observed | Gone | None, str]:
        """What was observed with the VM's clients on a network; unknown while the storage does not answer."""
        state.lingering, state.intruder = (), ""
        if claim is None or claim.node != self._context.node:
            return observed, unknown
        try:
            if isinstance(observed, Observed):
                observed = await self._clients.seen(observed, claim.disks, claim, state)
            elif isinstance(observed, Gone):
                state.lingering = await self._clients.lingering(claim)
        except (DiskError, ControllerUnavailable) as error:
            return None, str(error)
        return observed, unknown

    def _drop(self, name: str) -> None:
        """The VM is gone for good."""
        self._states.pop(name, None)
        self._looked.pop(name, None)
        for key in (keys.claim(name), keys.binding(name), keys.spec(Kind.VIRTUAL_MACHINE, name)):
            self._context.views.forget(key)

    async def _report(self, job: Job, decision: Decision) -> None:
        await self._write_status(job.name, job.view, job.state, decision, job.vm)

    async def _write_status(
        self, name: str, view: VmView, state: VmState, decision: Decision, vm: VirtualMachineSpec | None
    ) -> None:
        status = build_status(self._context, view, state, decision, vm)
        if status is None or status == state.written or view.lost or view.held:
            return
        if state.written is None or state.written.phase != status.phase:
            before = state.written.phase if state.written is not None else "new"
            log.info("vm %s: %s -> %s%s", name, before, status.phase, _because(status.message))
        # Only beside the spec it is about: a status that comes after the deletion's end would stay for ever.
        spec = keys.spec(Kind.VIRTUAL_MACHINE, name)
        revision = self._context.views.cache.revision_of(spec)
        if not revision:
            return
        failed = changes(self._context, name, state, status.uid, view.intent.reset_failures)
        result = await self._context.writer.commit(
            puts={status_key(name): dump(status), **failed.puts},
            deletes=failed.deletes,
            compares={spec: revision},
            guards=(keys.SCHEMA, keys.session(self._context.node)),
            wait=False,
        )
        if isinstance(result, Committed):
            state.written = status
        else:
            self._queue.add_at(name, self._context.clock.monotonic() + 0.1)


def _because(message: str) -> str:
    return f": {message}" if message else ""
