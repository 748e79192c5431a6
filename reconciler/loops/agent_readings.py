"""What the agent reads of a running VM for people to see: its guest's addresses, who holds its disks.

Invariant: nothing is decided by it, and what cannot be read now keeps the state of the last reading.
"""

from __future__ import annotations

import logging

from reconciler.loops.agent_claims import Job
from reconciler.loops.agent_disks import DiskWork
from reconciler.loops.agent_state import NodeContext, VmState
from reconciler.resources.errors import ControllerUnavailable, DiskError

log = logging.getLogger(__name__)

GUEST_FRESH = 30.0
GUEST_EAGER = 2.0
DISKS_FRESH = 120.0
DISKS_EAGER = 10.0
EAGER_FOR = 120.0


class Readings:
    """Of the VMs of one node."""

    def __init__(self, context: NodeContext, disks: DiskWork) -> None:
        self._context = context
        self._disks = disks

    async def read(self, job: Job) -> None:
        """Bring into the VM's state what is no longer fresh."""
        await self._guest(job)
        await self._holders(job)

    def eager(self, state: VmState, now: float) -> bool:
        """Whether the guest has only just started and may soon tell its address."""
        young = state.running_since is not None and now - state.running_since < EAGER_FOR
        return young and state.guest.agent_connected is False

    async def _guest(self, job: Job) -> None:
        state, now = job.state, self._context.clock.monotonic()
        fresh = GUEST_EAGER if self.eager(state, now) else GUEST_FRESH
        controller = self._context.controllers.get(job.vm.controller) if job.vm is not None else None
        if controller is None or controller.guest is None or now - state.guest_read_at < fresh:
            return
        state.guest_read_at = now
        try:
            state.guest = await controller.guest.info(job.name, timeout=self._context.deadlines.guest)
        except ControllerUnavailable as error:
            log.debug("vm %s: the guest's details are not known: %s", job.name, error)

    async def _holders(self, job: Job) -> None:
        """Who holds its disks on a network."""
        state, now = job.state, self._context.clock.monotonic()
        young = state.running_since is not None and now - state.running_since < 2 * DISKS_EAGER
        fresh = DISKS_EAGER if young else DISKS_FRESH
        if job.record is None or job.vm is None or now - state.disks_read_at < fresh:
            return
        state.disks_read_at = now
        try:
            state.disks = await self._disks.on_network(job.record, job.vm)
        except DiskError as error:
            log.debug("vm %s: who holds its disks is not known: %s", job.name, error)
