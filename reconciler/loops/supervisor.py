"""Runs loops for ever: one that fails is logged whole and started again, and the others go on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from reconciler.planning.backoff import delay
from reconciler.ports.clock import Clock, Ids

log = logging.getLogger(__name__)

Life = Callable[[], Awaitable[None]]

STEADY_AFTER = 60.0
"""Seconds after which a loop that fails counts as having worked before."""


class Supervisor:
    """`failed` says which loops are waiting to be started again, and why."""

    def __init__(self, clock: Clock, ids: Ids) -> None:
        self.failed: dict[str, str] = {}
        self._clock = clock
        self._ids = ids
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, loops: Mapping[str, Life]) -> None:
        """Start them."""
        self._tasks += [
            asyncio.create_task(self._keep(name, life), name=name) for name, life in loops.items()
        ]

    async def stop(self) -> None:
        """Cancel them and wait until they have ended."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    async def _keep(self, name: str, life: Life) -> None:
        failures = 0
        while True:
            began = self._clock.monotonic()
            try:
                await life()
                reason = "it ended"
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"
                log.exception("loop %s failed; the other loops go on", name)
            if self._clock.monotonic() - began > STEADY_AFTER:
                failures = 0
            failures += 1
            self.failed[name] = reason
            await asyncio.sleep(delay(failures, self._ids.jitter()))
            self.failed.pop(name, None)
