"""Hands the keys of network pools to the controllers that keep them: at the start, regularly, after every
reconnect of a hypervisor (it may have been restarted, and remembers none), and before a guest starts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from reconciler.loops.agent_state import NodeContext
from reconciler.ports.controller import Controller, KeyKeeper
from reconciler.ports.disks import DiskBackend
from reconciler.resources.errors import VclError

log = logging.getLogger(__name__)

EVERY = 30.0


class GuestKeys:
    """`run()` is its life; `wake` makes it hand the keys out now."""

    def __init__(self, context: NodeContext) -> None:
        self._context = context
        self._wake = asyncio.Event()
        self._said: dict[str, str] = {}

    def wake(self) -> None:
        """A hypervisor may have forgotten its keys."""
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled. What cannot be handed out is logged once, and tried again."""
        while True:
            self._wake.clear()
            for name, backend in sorted(self._context.pools.all().items()):
                await self._try(name, backend)
            try:
                async with asyncio.timeout(EVERY):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def give(self, controller: Controller, pools: Mapping[str, DiskBackend]) -> None:
        """The keys of these pools to one controller. Raises DiskError, ControllerError."""
        if not isinstance(controller, KeyKeeper):
            return
        for _, backend in sorted(pools.items()):
            if backend.network is None:
                continue
            key = await backend.network.guest_key(timeout=self._context.deadlines.disk)
            if key is not None:
                await controller.keep_key(key, timeout=self._context.deadlines.act)

    async def _try(self, name: str, backend: DiskBackend) -> None:
        problem = ""
        for _, controller in sorted(self._context.controllers.items()):
            try:
                await self.give(controller, {name: backend})
            except VclError as error:
                problem = str(error)
        if problem and problem != self._said.get(name):
            log.warning("pool %s: its key is not handed to the hypervisor: %s", name, problem)
        self._said[name] = problem
