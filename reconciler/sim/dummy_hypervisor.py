"""The hypervisor behind the dummy controller: its guests outlive the daemon, as QEMU outlives vcld.

Invariant: what somebody did to a guest is on the shelf before anybody is told of it, so that a daemon killed
at any instant finds its guests again.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from itertools import count

from reconciler.resources.domains import ControllerEvent, ExitReason, PauseReason
from reconciler.resources.errors import ControllerUnavailable
from reconciler.sim.dummy_guests import ALL, Faults, Guest, Life, end, next_change, settle, suspend
from reconciler.sim.dummy_shelf import MemoryShelf, Shelf


class EventFeed(AsyncIterator[ControllerEvent]):
    """One reader's hints, de-duplicated; the first one says "look at everything"."""

    def __init__(self) -> None:
        self._pending: dict[str, str] = {"": "connected"}
        self._ready = asyncio.Event()
        self._ready.set()

    def put(self, event: ControllerEvent) -> None:
        self._pending[event.name] = event.what
        self._ready.set()

    async def __anext__(self) -> ControllerEvent:
        await self._ready.wait()
        name = next(iter(self._pending))
        what = self._pending.pop(name)
        if not self._pending:
            self._ready.clear()
        return ControllerEvent(name=name, what=what)


class DummyHypervisor:
    """Guests, their faults and their events. Tests change `faults` and call the methods at the end."""

    def __init__(self, *, shelf: Shelf | None = None, faults: Faults | None = None) -> None:
        self._shelf = shelf or MemoryShelf()
        self._guests: dict[str, Guest] = {}
        self._names: dict[str, str] = {}
        self._faults = faults or Faults()
        self._failed: dict[str, int] = {}
        self._numbers = count(1)
        self._feeds: weakref.WeakSet[EventFeed] = weakref.WeakSet()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._loaded = False
        self._running = False

    @property
    def faults(self) -> Faults:
        """What goes wrong at the moment."""
        return self._faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        recovered = bool(self._faults.unavailable or self._faults.hang)
        self._faults = faults
        if recovered and not (faults.unavailable or faults.hang):
            self._tell("", "reconnected")

    def start(self) -> None:
        """Read the shelf, once, and watch the time. Raises ControllerUnavailable."""
        if self._running:
            return
        if not self._loaded:
            self._guests = {guest.name: guest for guest in self._shelf.load()}
            self._names = {g.uid: g.name for g in self._guests.values() if g.life is not Life.ENDED}
            self._numbers = count(max((g.number for g in self._guests.values()), default=0) + 1)
            self._loaded = True
        self._running = True
        for guest in tuple(self._guests.values()):
            self._arm(guest)

    def stop(self) -> None:
        """Stop watching the time; the guests go on, and the next call starts it again."""
        self._running = False
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def now(self) -> float:
        """The time by which guests change, in seconds."""
        return asyncio.get_running_loop().time()

    async def gate(self, call: str, timeout: float) -> None:
        """What every call passes first: an outage, when one was asked for. Raises ControllerUnavailable."""
        self.start()
        if call in self._faults.hang or ALL in self._faults.hang:
            await asyncio.sleep(timeout)
            raise ControllerUnavailable(f"the dummy hypervisor did not answer within {timeout:g} s")
        if call in self._faults.unavailable or ALL in self._faults.unavailable:
            raise ControllerUnavailable("the dummy hypervisor is unavailable, as it was told")

    def feed(self) -> EventFeed:
        """A new reader of events."""
        feed = EventFeed()
        self._feeds.add(feed)
        return feed

    def get(self, name: str) -> Guest | None:
        """The guest of that name as it is now, ended ones too."""
        self._take_news()
        guest = self._guests.get(name)
        return None if guest is None else self._settled(guest)

    def alive(self) -> Iterator[Guest]:
        """The guests that exist now, sorted by name."""
        self._take_news()
        for name in sorted(self._guests):
            guest = self._settled(self._guests[name])
            if guest.life is Life.ALIVE:
                yield guest

    def by_uid(self, uid: str) -> Guest | None:
        """The living or pending guest of that UUID, whatever its name."""
        guest = self.get(self._names.get(uid, ""))
        return None if guest is None or guest.life is Life.ENDED or guest.uid != uid else guest

    def put(self, guest: Guest, what: str) -> None:
        """Record a guest's new state and tell everybody. Raises ControllerUnavailable."""
        self._shelf.save(guest)
        self._keep(guest, what)

    def _keep(self, guest: Guest, what: str) -> None:
        self._guests[guest.name] = guest
        if guest.life is not Life.ENDED:
            self._names[guest.uid] = guest.name
        elif self._names.get(guest.uid) == guest.name:
            del self._names[guest.uid]
        self._arm(guest)
        self._tell(guest.name, what)

    def _take_news(self) -> None:
        """What has happened to guests on the shelf by itself: migrations."""
        for guest in self._shelf.news() if isinstance(self._shelf, MemoryShelf) else ():
            self._keep(guest, "Migration")

    def next_number(self, name: str) -> int:
        """The number of that guest, for its address: the same at every start."""
        known = self._guests.get(name)
        return known.number if known else next(self._numbers)

    def failing_start(self, name: str) -> bool:
        """Whether this start is one of those that are told to fail."""
        failed = self._failed.get(name, 0)
        if failed >= self._faults.of(name).start_failures:
            return False
        self._failed[name] = failed + 1
        return True

    def _settled(self, guest: Guest) -> Guest:
        settled = settle(guest, self.now())
        if settled is not guest:
            # Not saved: it follows from what the shelf has, and the time.
            self._keep(settled, settled.life.value)
        return settled

    def _arm(self, guest: Guest) -> None:
        if timer := self._timers.pop(guest.name, None):
            timer.cancel()
        due = next_change(guest)
        if due is not None and self._running:
            loop = asyncio.get_running_loop()
            self._timers[guest.name] = loop.call_at(due, self._due, guest.name)

    def _due(self, name: str) -> None:
        self._timers.pop(name, None)
        if guest := self._guests.get(name):
            self._settled(guest)

    def _tell(self, name: str, what: str) -> None:
        for feed in list(self._feeds):
            feed.put(ControllerEvent(name=name, what=what))

    # For tests: what happens to guests behind the controller's back.

    def end(self, name: str, reason: ExitReason = ExitReason.CRASHED) -> None:
        """The guest dies now."""
        if (guest := self.get(name)) and guest.life is Life.ALIVE:
            self.put(end(guest, reason), reason.value)

    def pause(self, name: str, reason: PauseReason) -> None:
        """The hypervisor suspends the guest by itself (an I/O error, a migration)."""
        if (guest := self.get(name)) and guest.life is Life.ALIVE:
            self.put(suspend(guest, reason), reason.value)

    def foreign(self, name: str, uid: str, *, writable: tuple[str, ...] = ()) -> None:
        """Somebody makes a domain by hand, which may write to these paths."""
        guest = Guest(name=name, uid=uid, made_by_vcl=False, number=self.next_number(name))
        guest = replace(guest, writable=writable, defined=True)
        self.put(replace(guest, pause=PauseReason.NONE, incarnation=f"{name}#foreign"), "Alive")
