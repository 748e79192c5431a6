"""One reader's view of changing objects: what it has been told, and what it has yet to be told.

Changes of one object that the reader did not fetch in time are told as one, so a slow reader costs one entry
for each object and never more. Invariant: ADDED, MODIFIED and DELETED are relative to what this reader knows,
whatever happened in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from reconciler.loops.object_views import Known, ObjectView, unseen
from reconciler.planning.merge import IMPLIED
from reconciler.planning.selectors import Requirements, selects
from reconciler.resources.kinds import Kind

if TYPE_CHECKING:
    from reconciler.loops.objects import Objects


class WatchType(StrEnum):
    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    BOOKMARK = "BOOKMARK"
    ERROR = "ERROR"


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchEvent:
    """One change of one object; with DELETED `view` is how it was last seen."""

    type: WatchType
    view: ObjectView


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchBatch:
    """Everything up to `revision` that the reader had not been told; empty at a time-out."""

    events: tuple[WatchEvent, ...]
    revision: int


class ObjectWatch:
    """Made by Objects.watch; used by one reader."""

    def __init__(
        self, objects: Objects, kind: Kind, *, name: str | None = None, selector: Requirements = ()
    ) -> None:
        self._objects = objects
        self._name = name
        self._selector = selector
        self._known: dict[str, Known] = {}
        self._pending: dict[str, ObjectView | None] = {}
        self._wake = asyncio.Event()
        self.kind = kind

    def mark(self, name: str, last: ObjectView | None) -> None:
        """The object may have changed; `last` is how it was last seen, when it is gone."""
        if self._name is None or name == self._name:
            self._pending[name] = last or self._pending.get(name)
            self._wake.set()

    def assume(self, name: str, known: Known | None) -> None:
        """The reader was told of the object in this version (None: it does not know it)."""
        if known is not None and self._wants(name, known.labels):
            self._known[name] = known
        else:
            self._known.pop(name, None)

    async def next(self, timeout: float) -> WatchBatch:
        """What changed since the last call; waits up to `timeout` seconds for something to change."""
        if not self._pending:
            try:
                async with asyncio.timeout(timeout):
                    await self._wake.wait()
            except TimeoutError:
                return WatchBatch(events=(), revision=self._objects.revision)
        self._wake.clear()
        pending, self._pending = self._pending, {}
        events = tuple(event for name in pending for event in self._events(name, pending[name]))
        return WatchBatch(events=events, revision=self._objects.revision)

    def close(self) -> None:
        """Be told nothing more."""
        self._objects.forget(self)
        self._pending.clear()

    def _wants(self, name: str, labels: Mapping[str, str]) -> bool:
        return (self._name is None or name == self._name) and selects(self._selector, labels)

    def _events(self, name: str, last: ObjectView | None) -> list[WatchEvent]:
        known = self._known.pop(name, None)
        view = self._objects.find(self.kind, name)
        if view is None or not self._wants(name, view.labels):
            gone = view or last
            return [WatchEvent(type=WatchType.DELETED, view=gone)] if known and gone else []
        now = self._known[name] = view.known()
        if known is None:
            return [WatchEvent(type=WatchType.ADDED, view=view)]
        if known.uid and known.uid != now.uid and self.kind not in IMPLIED:
            # Gone and made again in between: a reader that waits for its end must hear of it.
            before = last or unseen(self.kind, name, known.uid)
            ended = WatchEvent(type=WatchType.DELETED, view=before)
            return [ended, WatchEvent(type=WatchType.ADDED, view=view)]
        return [] if known == now else [WatchEvent(type=WatchType.MODIFIED, view=view)]
