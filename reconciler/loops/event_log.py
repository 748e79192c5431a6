"""Reading the events that nodes have recorded, oldest first, and being told of new ones.

An event that repeats comes again with a higher count. What a slow reader has not fetched is one entry for
each slot of the ring buffers, so it never costs more than the events themselves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from reconciler.loops.cache import StoreCache
from reconciler.loops.watches import WatchType
from reconciler.resources import keys
from reconciler.resources.errors import InvalidInput
from reconciler.resources.records import Event, load
from reconciler.resources.transactions import KeyValue


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """Which events: None is any."""

    kind: str | None = None
    name: str | None = None

    def wants(self, event: Event) -> bool:
        """Whether the event is asked for."""
        return self.kind in (None, event.kind) and self.name in (None, event.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventBatch:
    """Events with whether each is new or an old one again, as of the store's `revision`."""

    events: tuple[tuple[WatchType, Event], ...]
    revision: int


class EventLog:
    """Every node's events in the copy of the store."""

    def __init__(self, cache: StoreCache) -> None:
        self._cache = cache

    @property
    def revision(self) -> int:
        """The revision of the store that is served."""
        return self._cache.revision

    def list(self, wanted: EventFilter) -> tuple[Event, ...]:
        """The events asked for, oldest first."""
        return _decoded(self._cache.prefix(keys.EVENTS), wanted)

    def watch(self, wanted: EventFilter, since: int | None) -> EventWatch:
        """Events after revision `since`; None: all there are first. Close the watch when done."""
        return EventWatch(self._cache, wanted, since)


class EventWatch:
    """One reader's view of the events; made by EventLog.watch."""

    def __init__(self, cache: StoreCache, wanted: EventFilter, since: int | None) -> None:
        self._cache = cache
        self._wanted = wanted
        self._wake = asyncio.Event()
        start = -1 if since is None else since
        self._pending = {item.key for item in cache.prefix(keys.EVENTS) if item.revision > start}
        self._forget = cache.subscribe(self._on_changes)

    async def next(self, timeout: float) -> EventBatch:
        """What was recorded since the last call; waits up to `timeout` seconds."""
        if not self._pending:
            try:
                async with asyncio.timeout(timeout):
                    await self._wake.wait()
            except TimeoutError:
                return EventBatch(events=(), revision=self._cache.revision)
        self._wake.clear()
        pending, self._pending = self._pending, set()
        items = [item for key in pending if (item := self._cache.get(key)) is not None]
        events = tuple(
            (WatchType.ADDED if event.count == 1 else WatchType.MODIFIED, event)
            for event in _decoded(items, self._wanted)
        )
        return EventBatch(events=events, revision=self._cache.revision)

    def close(self) -> None:
        """Be told nothing more."""
        self._forget()
        self._pending.clear()

    def _on_changes(self, changed: frozenset[str]) -> None:
        recorded = {key for key in changed if key.startswith(keys.EVENTS)}
        if recorded:
            self._pending |= recorded
            self._wake.set()


def _decoded(items: Iterable[KeyValue], wanted: EventFilter) -> tuple[Event, ...]:
    found = [event for item in items if (event := _event(item)) is not None and wanted.wants(event)]
    return tuple(sorted(found, key=lambda event: (event.time, event.node, event.sequence)))


def _event(item: KeyValue) -> Event | None:
    """The event, or None for one that cannot be read: the recorder writes over it."""
    try:
        return load(Event, item.value)
    except (InvalidInput, ValueError):
        return None
