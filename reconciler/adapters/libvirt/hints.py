"""What libvirt's events leave behind: hints for the readers of `events()`, and how domains ended.

Events are hints: they get lost with a connection. Nothing is decided on them but the *reason* of an end whose
fact was proven otherwise.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections import OrderedDict
from collections.abc import AsyncIterator

from reconciler.resources.domains import ControllerEvent, ExitReason

_EVERYTHING = ControllerEvent()
_QUEUE_LIMIT = 4096
_ENDS_LIMIT = 8192


class Reader(AsyncIterator[ControllerEvent]):
    """One reader's own queue. Names that wait already are not queued again."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, ControllerEvent] = OrderedDict()
        self._ready = asyncio.Event()

    def put(self, event: ControllerEvent) -> None:
        if len(self._waiting) >= _QUEUE_LIMIT:
            self._waiting.clear()
            event = _EVERYTHING
        self._waiting[event.name] = event
        self._ready.set()

    async def __anext__(self) -> ControllerEvent:
        while not self._waiting:
            self._ready.clear()
            await self._ready.wait()
        return self._waiting.popitem(last=False)[1]


class Hints:
    """Hands events from libvirt's thread to the readers on the event loop."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._readers: weakref.WeakSet[Reader] = weakref.WeakSet()

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Events are delivered on this loop from now on."""
        self._loop = loop

    def reader(self) -> Reader:
        """A new reader: to look at everything is the first it hears, and then what happens from now on."""
        reader = Reader()
        reader.put(_EVERYTHING)
        self._readers.add(reader)
        return reader

    def publish(self, event: ControllerEvent) -> None:
        """From any thread."""
        loop = self._loop
        if loop is None:
            return
        try:
            loop.call_soon_threadsafe(self._deliver, event)
        except RuntimeError:
            # The loop is closed, and its readers with it.
            self._loop = None

    def _deliver(self, event: ControllerEvent) -> None:
        for reader in list(self._readers):
            reader.put(event)


class Ends:
    """UUID -> how its last domain ended. Thread-safe and bounded."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, ExitReason] = OrderedDict()
        self._running: set[str] = set()
        self._changed = threading.Condition()

    def started(self, uuid: str) -> None:
        """A domain of this UUID runs: what was known about its predecessor's end is history."""
        with self._changed:
            self._known.pop(uuid, None)
            self._running.add(uuid)

    def ended(self, uuid: str, reason: ExitReason) -> None:
        """A stop event came."""
        with self._changed:
            self._running.discard(uuid)
            self._known[uuid] = reason
            self._known.move_to_end(uuid)
            while len(self._known) > _ENDS_LIMIT:
                self._known.popitem(last=False)
            self._changed.notify_all()

    def forget_running(self) -> None:
        """The connection was lost: no stop event will come for what ran."""
        with self._changed:
            self._running.clear()
            self._changed.notify_all()

    def reason(self, uuid: str, *, wait: float) -> ExitReason | None:
        """How it ended, or None. Waits at most `wait` seconds for the event of a domain that was seen
        running on this connection: the answer that it is gone may overtake the event."""
        with self._changed:
            self._changed.wait_for(lambda: uuid not in self._running, timeout=wait)
            self._running.discard(uuid)
            return self._known.get(uuid)
