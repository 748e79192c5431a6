"""What happened, for people: `record` returns at once, and the store is written in batches.

Invariants: an event never delays or fails the work that it tells of; a node keeps at most SLOTS events,
whatever repeats is one event with a count, and the one that was not seen for longest makes room.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from dataclasses import dataclass, replace

from reconciler.loops.cache import StoreCache
from reconciler.loops.writer import Writer, conflicts
from reconciler.ports.clock import Clock
from reconciler.resources import keys
from reconciler.resources.errors import InvalidInput, StoreError
from reconciler.resources.kinds import Kind
from reconciler.resources.records import Event, EventType, dump, load

log = logging.getLogger(__name__)

SLOTS = 1000
BATCH = 100
"""Events in one transaction at most."""

BATCH_SECONDS = 0.3
RETRY_SECONDS = 1.0
MESSAGE_LIMIT = 1024


@dataclass(frozen=True, slots=True)
class _Same:
    """Events that are alike in this are one event."""

    type: EventType
    kind: str
    name: str
    reason: str
    message: str


def _same(event: Event) -> _Same:
    return _Same(event.type, event.kind, event.name, event.reason, event.message)


class EventRecorder:
    """Records this node's events. `run` writes them until it is cancelled, `flush` writes what is left."""

    def __init__(self, node: str, cache: StoreCache, writer: Writer, clock: Clock) -> None:
        self._node = node
        self._cache = cache
        self._writer = writer
        self._clock = clock
        self._early: deque[Event] | None = deque(maxlen=SLOTS)
        self._slots: OrderedDict[_Same, int] = OrderedDict()
        self._free: list[int] = []
        self._events: dict[int, Event] = {}
        self._unwritten: OrderedDict[int, None] = OrderedDict()
        self._sequence = 0
        self._failing = False
        self._wake = asyncio.Event()

    def record(self, type: EventType, kind: Kind, name: str, reason: str, message: str) -> None:
        """Note an event about an object; `reason` is one CamelCase word. Never fails, never waits."""
        now = self._clock.wall()
        event = Event(
            sequence=0,
            time=now,
            type=type,
            kind=kind.value,
            name=name,
            reason=reason,
            message=message[:MESSAGE_LIMIT],
            node=self._node,
            first_time=now,
        )
        if self._early is not None:
            self._early.append(event)
        else:
            self._place(event)
        self._wake.set()

    async def run(self) -> None:
        """Write events until cancelled."""
        while True:
            await self._wake.wait()
            await asyncio.sleep(BATCH_SECONDS)
            if not await self.flush():
                await asyncio.sleep(RETRY_SECONDS)

    async def flush(self) -> bool:
        """Write everything that is not written; False when the store did not take it (it is kept)."""
        self._wake.clear()
        if self._early is not None and not self._load():
            self._wake.set()
            return False
        try:
            while self._unwritten:
                if not await self._write(list(self._unwritten)[:BATCH]):
                    self._wake.set()
                    return False
        except StoreError as error:
            if not self._failing:
                log.warning("%d events are not written yet: %s", len(self._unwritten), error)
            self._failing = True
            self._wake.set()
            return False
        self._failing = False
        return True

    async def _write(self, slots: list[int]) -> bool:
        written = {slot: self._events[slot] for slot in slots}
        puts = {keys.event(self._node, slot): dump(event) for slot, event in written.items()}
        result = await self._writer.commit(puts=puts, wait=False)
        if conflicts(result):
            log.info("events are not written yet: the store's schema record has just changed")
            return False
        for slot, event in written.items():
            if self._events[slot] is event:
                self._unwritten.pop(slot, None)
        return True

    def _place(self, event: Event) -> None:
        """Give the event its slot: that of its like, a free one, or the one not seen for longest."""
        self._sequence += 1
        event = replace(event, sequence=self._sequence)
        same = _same(event)
        slot = self._slots.pop(same, None)
        if slot is not None:
            before = self._events[slot]
            event = replace(event, count=before.count + 1, first_time=before.first_time)
        elif self._free:
            slot = self._free.pop()
        else:
            _, slot = self._slots.popitem(last=False)
        self._slots[same] = slot
        self._events[slot] = event
        self._unwritten[slot] = None

    def _load(self) -> bool:
        """Go on from what an earlier daemon wrote, once the store has been read; False before that."""
        if self._cache.revision < 0:
            return False
        for slot, event in sorted(self._stored().items(), key=lambda item: item[1].sequence):
            self._slots[_same(event)] = slot
            self._events[slot] = event
            self._sequence = event.sequence
        taken = set(self._slots.values())
        self._free = [slot for slot in reversed(range(SLOTS)) if slot not in taken]
        early, self._early = self._early or (), None
        for event in early:
            self._place(event)
        return True

    def _stored(self) -> dict[int, Event]:
        found = {}
        prefix = keys.events(self._node)
        for item in self._cache.prefix(prefix):
            try:
                slot, event = int(item.key.removeprefix(prefix)), load(Event, item.value)
            except (InvalidInput, ValueError) as error:
                log.warning("store key %s cannot be read and will be written over: %s", item.key, error)
                continue
            if slot < SLOTS:
                found[slot] = event
        return found
