"""Brings what changed of a spec to the running guest, one step at a time (planning/live_changes.py).

Invariants (SAFETY rules 5, 6 and 17): an image is in the claim before the domain has it, and until it is
certain that it has it no more; its clients are recorded as soon as it is open; and the claim says so from
before the first step until after the last, so that nobody migrates the VM in between. A change that comes to
nothing never counts as a failure of the VM.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace

from reconciler.loops.agent_claims import Job, commit_claim
from reconciler.loops.agent_clients import NetworkClients
from reconciler.loops.agent_disks import DiskWork, Need
from reconciler.loops.agent_state import NodeContext, VmState
from reconciler.loops.guest_keys import GuestKeys
from reconciler.loops.placement_input import read_nodes, read_vm
from reconciler.loops.views import Views
from reconciler.planning.live_changes import Tries, live_changes, next_change, taken
from reconciler.planning.master import demanded
from reconciler.planning.node_capacity import short_of
from reconciler.ports.controller import LiveChanger
from reconciler.resources import keys
from reconciler.resources.changes import AttachDisk, DetachDisk, LiveChange, Memory, Shape, Vcpus
from reconciler.resources.codec import decode
from reconciler.resources.domains import Definition, DomainPhase, Gone, Observed
from reconciler.resources.errors import (
    ChangeRefused,
    ChangeWaits,
    ConflictError,
    ControllerUnavailable,
    InvalidInput,
    NotFound,
    StoreError,
    VclError,
)
from reconciler.resources.images import RbdIdentity
from reconciler.resources.kinds import Kind
from reconciler.resources.records import (
    Claim,
    ClaimPhase,
    DiskClaim,
    EventType,
    HotPlug,
    Pin,
    SpecRecord,
    dump,
)
from reconciler.resources.virtualmachine import Disk, VirtualMachineSpec

log = logging.getLogger(__name__)


def started_with(views: Views, name: str, uid: str) -> VirtualMachineSpec | None:
    """The spec that the present run of the VM counts as started with; None when none is known. Raises
    InvalidInput when it cannot be read."""
    pin = views.record(keys.pin(name), Pin)
    if pin is None or pin.uid != uid or not pin.spec:
        return None
    return decode(VirtualMachineSpec, pin.spec, "spec")


def possible_changes(
    context: NodeContext, name: str, claim: Claim, vm: VirtualMachineSpec
) -> tuple[LiveChange, ...]:
    """What may be brought to the running VM by the controller that has it. What was begun comes first, to its
    end or back, before any other."""
    controller = context.controllers.get(claim.controller or vm.controller)
    if controller is None or not isinstance(controller.lifecycle, LiveChanger):
        return ()
    try:
        started = started_with(context.views, name, claim.uid)
    except InvalidInput:
        return ()  # its status says so
    if claim.plugging is not None:
        return (_begun(claim.plugging, vm),)
    return live_changes(started, vm) if started is not None else ()


def due_change(
    context: NodeContext,
    record: SpecRecord | None,
    vm: VirtualMachineSpec | None,
    observed: Observed | Gone | None,
    state: VmState,
) -> tuple[LiveChange | None, float | None]:
    """What is to be brought to the guest now, and when to look again, if something waits for its next try."""
    runs = isinstance(observed, Observed) and observed.phase is DomainPhase.RUNNING
    if record is None or vm is None or not runs or state.task is not None:
        return None, None
    assert isinstance(observed, Observed)
    name, generation = record.metadata.name, record.metadata.generation
    claim = context.views.claim(name)
    ours = claim is not None and claim.node == context.node and claim.phase is ClaimPhase.RUNNING
    if claim is None or not ours or claim.uid != record.metadata.uid:
        return None, None
    pin = context.views.record(keys.pin(name), Pin)
    if claim.plugging is None and (pin is None or pin.spec == record.spec):
        return None, None  # as nearly always
    if (state.tries.generation, state.tries.incarnation) != (generation, observed.incarnation):
        state.tries = Tries(generation=generation, incarnation=observed.incarnation)
    changes = possible_changes(context, name, claim, vm)
    if changes and state.give_back:
        return changes[0], None
    return next_change(changes, state.tries, context.clock.monotonic())


def _begun(plugging: HotPlug, vm: VirtualMachineSpec) -> LiveChange:
    wanted = any(disk.name == plugging.disk for disk in vm.disks)
    return AttachDisk(disk=plugging.disk) if wanted else DetachDisk(disk=plugging.disk)


class Changes:
    """Of the VMs of one node."""

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

    async def bring(self, job: Job) -> None:
        """One step of the change that is due. Raises StoreError, ConflictError, ControllerUnavailable,
        NotFound; all else is kept as its verdict."""
        change, state = job.state.change, job.state
        assert change is not None
        if state.give_back:
            await self._let_go(job)
            return
        try:
            await self._step(job, change)
        except (StoreError, ConflictError, ControllerUnavailable, NotFound):
            raise
        except ChangeRefused as error:
            log.info("vm %s: %s waits for a restart: %s", job.name, change.paths[0], error.message)
            state.tries = state.tries.refused(change, error.message)
            await self._let_go(job)
        except VclError as error:
            log.info("vm %s: %s does not come about: %s", job.name, change.paths[0], error)
            now = self._context.clock.monotonic()
            state.tries = state.tries.failed(change, str(error), now)
            await self._let_go(job)

    async def _step(self, job: Job, change: LiveChange) -> None:
        match change:
            case AttachDisk(disk=name):
                await self._attach(job, change, name)
            case DetachDisk(disk=name):
                await self._detach(job, change, name)
            case _:
                if isinstance(change, Memory | Vcpus):
                    self._require_room(job)
                await self._change(job, change, None)
                await self._taken(job, change, _claim(job))

    # -- disks that come ---------------------------------------------------------------------------------

    async def _attach(self, job: Job, change: LiveChange, name: str) -> None:
        record, vm, claim = job.record, job.vm, _claim(job)
        assert record is not None
        assert vm is not None
        disk = next((each for each in vm.disks if each.name == name), None)
        if disk is None:
            raise ConflictError(f"the disks of {job.name} changed while it was worked on")
        there = name in (await self._shape(job)).disks
        if there and claim.plugging is not None and claim.plugging.away:
            raise ChangeWaits("its guest was asked to let go of the disk, and may yet")
        need = await self._disks.need_of(record, disk)
        if claim.plugging is None or claim.plugging.away or set(need.keys) - set(claim.disks):
            await self._hold(job, claim, disk, need)
            return
        if not there and need.missing:
            self._make(job, change, disk)
            return
        images = [key for key in need.keys if key in claim.plugging.keys]
        if not there:
            await self._clients.clear(images, ())
            controller = self._context.controllers[claim.controller or vm.controller]
            await self._keys.give(controller, self._disks.pools_of(vm))
            await self._change(job, change, disk)
        opened = await self._clients.opened(images)
        # What only its making needed, such as the image that it was copied from, is free again.
        spare = set(claim.plugging.keys) - set(need.keys)
        after = replace(
            claim,
            disks=tuple(key for key in claim.disks if key not in spare),
            clients=(*claim.clients, *(each for each in opened if each not in claim.clients)),
            plugging=None,
        )
        await self._taken(job, change, after, deletes=tuple(keys.disk(key) for key in sorted(spare)))

    async def _hold(self, job: Job, claim: Claim, disk: Disk, need: Need) -> None:
        """Take the disk's keys into the claim, and say that it is on its way."""
        new = sorted(set(need.keys) - set(claim.disks))
        before = claim.plugging.keys if claim.plugging is not None else ()
        plugging = HotPlug(disk=disk.name, session=self._context.session, keys=tuple(sorted({*before, *new})))
        holder = dump(DiskClaim(node=self._context.node, vm=job.name, uid=claim.uid))
        await commit_claim(
            self._context,
            job,
            replace(claim, disks=tuple(sorted({*claim.disks, *new})), plugging=plugging),
            compares={keys.disk(key): 0 for key in new},
            puts={**{keys.disk(key): holder for key in new}, **need.volumes},
        )

    def _make(self, job: Job, change: LiveChange, disk: Disk) -> None:
        """Make the image beside the running guest; the task's end wakes the VM again. The claim that holds
        its keys is kept until the task has ended, also when the guest ends before."""
        state = job.state
        state.progress = 0.0
        state.memory = replace(state.memory, provisioning=True)
        self._event(job, "Provisioning", f"making its disk '{disk.name}'")
        state.task = asyncio.create_task(self._making(job, change, disk), name=f"make {job.name}.{disk.name}")

    async def _making(self, job: Job, change: LiveChange, disk: Disk) -> None:
        assert job.record is not None
        state = job.state

        def progress(share: float) -> None:
            state.progress = share

        try:
            await self._disks.make_disk(job.record, disk, progress)
        except VclError as error:
            log.warning("vm %s: disk %s was not made: %s", job.name, disk.name, error)
            state.tries = state.tries.failed(change, str(error), self._context.clock.monotonic())
            state.give_back = True
        finally:
            state.progress = None
            state.memory = replace(state.memory, provisioning=False, prepared=None)
            self._requeue(job.name)

    # -- disks that go -----------------------------------------------------------------------------------

    async def _detach(self, job: Job, change: LiveChange, name: str) -> None:
        claim = _claim(job)
        shape = await self._shape(job)
        if claim.plugging is None:
            held = await self._held(job, name, shape)
            plugging = HotPlug(disk=name, session=self._context.session, keys=held, away=True)
            await commit_claim(self._context, job, replace(claim, plugging=plugging))
            return
        came = claim.plugging if not claim.plugging.away else None
        if name in shape.disks:
            await self._change(job, change, None)
        elif came is not None and came.session != self._context.session:
            raise ChangeRefused("a call of an earlier vcld may still bring the disk to the guest")
        await self._clients.refuse_held(key for key in claim.plugging.keys if RbdIdentity.parse(key))
        gone = set(claim.plugging.keys)
        after = replace(claim, disks=tuple(key for key in claim.disks if key not in gone), plugging=None)
        await self._taken(job, change, after, deletes=tuple(keys.disk(key) for key in sorted(gone)))

    async def _held(self, job: Job, name: str, shape: Shape) -> tuple[str, ...]:
        """What the claim holds for the disk that is to go."""
        claim, record = _claim(job), job.record
        assert record is not None
        started = started_with(self._context.views, job.name, claim.uid)
        disk = next((d for d in started.disks if d.name == name), None) if started is not None else None
        known = await self._disks.keys_of(record, disk or Disk(name=name), shape.disks.get(name, ""))
        return tuple(sorted(known.intersection(claim.disks)))

    # -- what all have in common -------------------------------------------------------------------------

    async def _let_go(self, job: Job) -> None:
        """After a try that came to nothing. What the store or the host does not let it do now, it does before
        any other step."""
        job.state.give_back = True
        await self._give_back(job)
        job.state.give_back = False

    async def _give_back(self, job: Job) -> None:
        """For a disk that surely did not come, the claim holds nothing."""
        claim, state = _claim(job), job.state
        plugging = claim.plugging
        if plugging is None or plugging.session != self._context.session:
            return
        shape = await self._shape(job)
        if plugging.away:
            verdict = state.tries.of(DetachDisk(disk=plugging.disk))
            if verdict is not None and verdict.retry_at is None:  # it was never asked to let go
                await commit_claim(self._context, job, replace(claim, plugging=None))
        elif plugging.disk not in shape.disks:
            kept = tuple(key for key in claim.disks if key not in plugging.keys)
            await commit_claim(
                self._context,
                job,
                replace(claim, disks=kept, plugging=None),
                deletes=tuple(keys.disk(key) for key in plugging.keys),
            )

    async def _shape(self, job: Job) -> Shape:
        return await _changer(job).shape(job.name, timeout=self._context.deadlines.observe)

    async def _change(self, job: Job, change: LiveChange, disk: Disk | None) -> None:
        definition = await self._definition(job, disk)
        await _changer(job).change(definition, change, timeout=self._context.deadlines.act)

    async def _definition(self, job: Job, disk: Disk | None) -> Definition:
        assert job.record is not None
        assert job.vm is not None
        return await self._disks.definition(job.record, job.vm, disk)

    async def _taken(
        self, job: Job, change: LiveChange, claim: Claim, *, deletes: tuple[str, ...] = ()
    ) -> None:
        """It is there: from now on the run counts as started with it."""
        views, key = self._context.views, keys.pin(job.name)
        pin = views.record(key, Pin)
        assert job.record is not None
        puts: Mapping[str, bytes] = {}
        if pin is not None:
            puts = {key: dump(replace(pin, spec=taken(pin.spec, job.record.spec, change)))}
        compares = {key: views.cache.revision_of(key)}
        await commit_claim(self._context, job, claim, compares=compares, puts=puts, deletes=deletes)
        job.state.disks_read_at = float("-inf")  # who holds its disks is another thing now
        self._event(job, "Changed", f"{', '.join(change.paths)}: the running guest has it")

    def _require_room(self, job: Job) -> None:
        """What its node's VMs ask for by now must fit there. Raises ChangeWaits."""
        views, node = self._context.views, self._context.node
        here = next((each for each in read_nodes(views, lambda name: "") if each.name == node), None)
        if here is None:
            return
        power, now = views.power_on(), self._context.clock.wall()
        names = views.names(Kind.VIRTUAL_MACHINE)
        records = (read_vm(views, name, power_on=power, now=now, migrations={}) for name in names)
        demands = (demand for each in records if each is not None and (demand := demanded(each)) is not None)
        short = short_of(here, (demand for demand in demands if demand.node == node))
        if short:
            raise ChangeWaits(short, cure=f"free something there, or move it: `vcl migrate {job.name}`")

    def _event(self, job: Job, reason: str, message: str) -> None:
        self._context.event(EventType.NORMAL, Kind.VIRTUAL_MACHINE, job.name, reason, message)


def _claim(job: Job) -> Claim:
    assert job.view.claim is not None
    return job.view.claim


def _changer(job: Job) -> LiveChanger:
    assert isinstance(job.controller, LiveChanger)
    return job.controller
