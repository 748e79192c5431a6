"""Keeps the status tree like the store: what changed is shown within a second, in small portions.

The tree is derived, so it may lag and never blocks anything: a burst of changes of one object is one write,
and a thousand objects at once are spread over some seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from typing import Any

from reconciler.loops.cache import StoreCache
from reconciler.planning.merge import dependents, merged_object
from reconciler.ports.clock import Clock
from reconciler.ports.manifests import StatusSink
from reconciler.resources.errors import VclError
from reconciler.resources.kinds import Kind

log = logging.getLogger(__name__)

COALESCE_SECONDS = 0.5
PORTION = 100
RETRY_SECONDS = 5.0

ObjectId = tuple[Kind, str]
Merge = Callable[[StoreCache, Kind, str], Mapping[str, Any] | None]


class StatusTreeLoop:
    """`step` writes a portion of what changed; `run` does so for ever."""

    def __init__(
        self, cache: StoreCache, sink: StatusSink, clock: Clock, *, merge: Merge = merged_object
    ) -> None:
        self._cache = cache
        self._sink = sink
        self._clock = clock
        self._merge = merge
        self._known: set[ObjectId] = set()
        self._dirty: set[ObjectId] = set()
        self._started = False
        self._failing = ""
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Follow the store until cancelled."""
        unsubscribe = self._cache.subscribe(self.mark)
        try:
            while True:
                self._wake.clear()
                deadline = await self.step()
                if deadline is None:
                    await self._wake.wait()
                    await asyncio.sleep(COALESCE_SECONDS)
                else:
                    await asyncio.sleep(max(deadline - self._clock.monotonic(), 0.0))
        finally:
            unsubscribe()

    async def step(self) -> float | None:
        """Write a portion; the answer is when to go on (monotonic seconds), None when nothing is left."""
        if self._cache.revision < 0:
            return self._clock.monotonic() + RETRY_SECONDS
        portion: list[ObjectId] = []
        try:
            if not self._started:
                await self._start()
            portion = sorted(self._dirty)[:PORTION]
            self._dirty.difference_update(portion)
            while portion:
                await self._show(portion[-1])
                portion.pop()
        except VclError as error:
            self._dirty.update(portion)
            self._fail(str(error))
            return self._clock.monotonic() + RETRY_SECONDS
        self._fail("")
        return self._clock.monotonic() + COALESCE_SECONDS if self._dirty else None

    def mark(self, changed: frozenset[str]) -> None:
        """Note which objects these keys belong to."""
        for key in changed:
            for kind, name in dependents(key):
                if name is not None:
                    self._known.add((kind, name))
                    self._dirty.add((kind, name))
                else:
                    self._dirty.update(known for known in self._known if known[0] is kind)
        self._wake.set()

    async def _start(self) -> None:
        """Everything is looked at once, and what an earlier run left behind too."""
        shown = await self._sink.names()
        for kind, name in shown:
            with contextlib.suppress(ValueError):
                self._known.add((Kind(kind), name))
        self.mark(frozenset(item.key for item in self._cache.prefix("")))
        self._dirty |= self._known
        self._started = True

    async def _show(self, id: ObjectId) -> None:
        document = self._merge(self._cache, *id)
        if document is not None:
            await self._sink.write(id[0].value, id[1], document)
            return
        await self._sink.remove(id[0].value, id[1])
        self._known.discard(id)

    def _fail(self, reason: str) -> None:
        if reason and reason != self._failing:
            log.warning("%s", reason)
        self._failing = reason
