"""Asks the guests that are to be restarted when they hang, and keeps what they answered.

Invariant: it ends nothing. It says that a guest hangs, and the next look decides (planning/lifecycle.py).
"""

from __future__ import annotations

import logging
from dataclasses import replace

from reconciler.loops.agent_claims import Job
from reconciler.loops.agent_state import NodeContext
from reconciler.planning.hangs import Watch, begun, due, interrupted, judged
from reconciler.ports.controller import GuestPinger
from reconciler.resources.domains import DomainPhase, Observed
from reconciler.resources.errors import ControllerUnavailable, NotFound
from reconciler.resources.virtualmachine import Liveness, RunStrategy

log = logging.getLogger(__name__)


class Pings:
    """Of the VMs of one node."""

    def __init__(self, context: NodeContext) -> None:
        self._context = context

    async def look(self, job: Job) -> float | None:
        """Ask the guest when it is due. The monotonic time of the next look; None: it is not asked at all."""
        state, vm, clock = job.state, job.vm, self._context.clock
        controller = self._context.controllers.get(vm.controller) if vm is not None else None
        pinger = controller.guest if controller is not None else None
        strategies = (RunStrategy.ALWAYS, RunStrategy.RERUN_ON_FAILURE)
        if vm is None or vm.liveness is None or vm.run_strategy not in strategies:
            state.watch = Watch()
            return None
        if not isinstance(pinger, GuestPinger):
            log.debug("vm %s: its controller cannot ask guests", job.name)
            return None
        domain = job.view.observed
        if not isinstance(domain, Observed) or domain.phase is not DomainPhase.RUNNING:
            state.watch = interrupted(state.watch)
            return None
        state.watch = begun(state.watch, clock.monotonic())
        next_ping = due(state.watch, vm.liveness, clock.monotonic())
        if next_ping <= clock.monotonic():
            await self._ask(job, pinger, vm.liveness, domain)
            next_ping = due(state.watch, vm.liveness, clock.monotonic())
        return clock.monotonic() if state.watch.hung else next_ping

    async def _ask(self, job: Job, pinger: GuestPinger, liveness: Liveness, domain: Observed) -> None:
        timeout, asked = float(liveness.timeout_seconds), self._context.clock.monotonic()
        try:
            ping = await pinger.ping(job.name, timeout=timeout)
        except (ControllerUnavailable, NotFound) as error:
            log.debug("vm %s: whether its agent answers is not known: %s", job.name, error)
            ping = None
        if ping is not None:
            ping = replace(ping, boot=f"{domain.incarnation} {ping.boot}")
        before = job.state.watch
        job.state.watch = judged(before, liveness, ping, asked)
        if job.state.watch.misses > before.misses:
            log.info("vm %s: its agent does not answer (%d in a row)", job.name, job.state.watch.misses)
