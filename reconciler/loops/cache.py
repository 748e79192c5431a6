"""A node's copy of the store, kept fresh by watching: what every loop on the node decides from.

It may be behind, never wrong in a way that matters: each write compares the revisions it was decided on, so
a decision from a stale copy is refused by the store and taken again.
"""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Mapping, Sequence

from reconciler.ports.store import Store
from reconciler.resources.errors import StoreError
from reconciler.resources.transactions import Compacted, KeyValue, WatchResult

log = logging.getLogger(__name__)

Listener = Callable[[frozenset[str]], None]

LOOK = 3.0
"""Seconds that a look after a hint is left alone: the store's deadline ends one without an answer."""
HINT_GRACE = 0.1
"""Seconds that the store's own watch gets, before another node's word of a newer revision is looked into."""


class StoreCache:
    """All keys of the store as of `revision`, and callbacks with the keys that changed."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._items: dict[str, KeyValue] = {}
        self._keys: list[str] = []
        self._listeners: list[Listener] = []
        self._moved = asyncio.Event()
        self._watching: asyncio.Future[WatchResult] | None = None
        self._nudged = False
        self._answer_due = 0.0
        self._hint: asyncio.TimerHandle | None = None
        self.revision = -1
        self.healthy = False

    def get(self, key: str) -> KeyValue | None:
        """The key's value and revision, or None."""
        return self._items.get(key)

    def revision_of(self, key: str) -> int:
        """The revision to compare with in a transaction: 0 when the key does not exist."""
        item = self._items.get(key)
        return item.revision if item else 0

    def prefix(self, prefix: str) -> list[KeyValue]:
        """Every key that starts with `prefix`, sorted."""
        found = []
        for index in range(bisect_left(self._keys, prefix), len(self._keys)):
            key = self._keys[index]
            if not key.startswith(prefix):
                break
            found.append(self._items[key])
        return found

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` with each set of changed keys, after they are visible; returns the undo."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    async def wait_for(self, revision: int) -> None:
        """Return when the copy holds everything up to `revision`; the caller sets the deadline."""
        while self.revision < revision:
            moved = self._moved
            await moved.wait()

    def hint(self, revision: int) -> None:
        """Another node says that the store has reached `revision`: look, if the watch does not tell it."""
        if revision > self.revision and self._hint is None:
            loop = asyncio.get_running_loop()
            self._hint = loop.call_later(HINT_GRACE, self._nudge, revision)

    async def read(self, wanted: Sequence[str]) -> Mapping[str, KeyValue]:
        """The keys as the store has them now, past this copy. Raises StoreError."""
        return await self._store.get(wanted)

    async def step(self, timeout: float) -> None:
        """List at the start or after falling behind, else wait up to `timeout` s for changes and take them.

        Raises StoreError; the copy then stays as it was.
        """
        try:
            if self.revision < 0:
                await self._relist()
                return
            result = await self._watch(timeout)
            if result is None:
                return
            if isinstance(result, Compacted):
                await self._relist()
                return
        except StoreError:
            self.healthy = False
            self._answer_due = 0.0
            raise
        self.healthy = True
        self._answer_due = 0.0
        for event in result.events:
            self._take(event.key, event.value, event.revision)
        self._announce(result.revision, (event.key for event in result.events))

    async def _watch(self, timeout: float) -> WatchResult | None:
        """Changes, or None when a hint ended the wait: the next watch looks first."""
        self._nudged = False
        self._watching = asyncio.ensure_future(self._store.watch(self.revision, timeout=timeout))
        try:
            return await self._watching
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._nudged and (task is None or not task.cancelling()):
                return None
            raise
        finally:
            self._watching = None

    def _nudge(self, revision: int) -> None:
        self._hint = None
        now = asyncio.get_running_loop().time()
        if now < self._answer_due:
            return  # a look that is not answered has to fail: or nobody would learn that the store is away
        if revision > self.revision and self._watching is not None:
            self._nudged = True
            self._answer_due = now + LOOK
            self._watching.cancel()

    async def _relist(self) -> None:
        listing = await self._store.list("")
        fresh = {item.key: item for item in listing.items}
        changed = {key for key in self._items.keys() | fresh.keys() if self._items.get(key) != fresh.get(key)}
        self._items = fresh
        self._keys = sorted(fresh)
        self.healthy = True
        self._announce(listing.revision, changed)

    def _take(self, key: str, value: bytes | None, revision: int) -> None:
        if value is None:
            if self._items.pop(key, None) is not None:
                del self._keys[bisect_left(self._keys, key)]
            return
        if key not in self._items:
            insort(self._keys, key)
        self._items[key] = KeyValue(key=key, value=value, revision=revision)

    def _announce(self, revision: int, changed: Iterable[str]) -> None:
        self.revision = revision
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()
        keys = frozenset(changed)
        if keys:
            for listener in list(self._listeners):
                listener(keys)
