"""What this node knows of orders to shut down: from its own disk, from the others' heartbeats, from the store
and from whoever asks for one here.

Invariants (SAFETY rule 20): nothing is acted on, told to others or written to the store before it is on this
node's own disk; nothing here needs a store, a master or a majority.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from reconciler.planning.power_orders import in_force, merge
from reconciler.ports.clock import Clock
from reconciler.ports.power import OrderBook
from reconciler.resources.errors import VclError
from reconciler.resources.shutdowns import PowerMemory, PowerOrders, PowerWord, ShutdownOrder

log = logging.getLogger(__name__)

RETRY = 1.0
"""Seconds between two tries to save what was heard."""


class OrderKeeper:
    """One for the life of a daemon, over all its sessions. `run` saves what `hear` was told."""

    def __init__(self, book: OrderBook, clock: Clock, boot_id: str) -> None:
        """Reads the book. Raises VclError when it is damaged."""
        kept = book.load()
        self.known = kept.known
        """On this node's disk."""
        self.under_way = kept.under_way if kept.boot_id == boot_id else ()
        """Ids of orders that reached this node in this boot, as they were given: see PowerMemory."""
        self._boot_id = boot_id
        self._new: frozenset[str] = frozenset(self.under_way)
        self._book = book
        self._clock = clock
        self._heard: PowerOrders = merge(self.known, PowerOrders())
        self._since: dict[str, float] = {order.id: clock.monotonic() for order in self.known.orders}
        self._news = asyncio.Event()
        self._saving = asyncio.Lock()
        self._listeners: list[Callable[[], None]] = []

    @property
    def order(self) -> ShutdownOrder | None:
        """The order to obey; None: VMs may run, as far as this node knows."""
        return in_force(self.known)

    def off(self) -> bool:
        """Whether nothing may start: from when an order is heard of, also before it is saved and obeyed."""
        return bool(self._heard.orders)

    @property
    def passed(self) -> float:
        """Seconds since this node, or the first that it heard of, heard of the order in force."""
        return max(self.ages().values(), default=0.0)

    def ages(self) -> Mapping[str, float]:
        """Seconds since each order in force was heard of."""
        now = self._clock.monotonic()
        return {order.id: now - self._since.get(order.id, now) for order in self.known.orders}

    def subscribe(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` after what is known has changed; returns the undo."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    @property
    def goes_off(self) -> bool:
        """Whether an order in force, that is under way in this boot, wants the host off."""
        return any(order.power_off and order.id in self.under_way for order in self.known.orders)

    def hear(self, word: PowerWord) -> None:
        """Another's knowledge: taken soon, when it is saved."""
        now = self._clock.monotonic()
        for id, age in word.ages.items():
            self._since[id] = min(self._since.get(id, now), now - max(0.0, age))
        heard, new = merge(self._heard, word.known), self._new.union(word.under_way)
        if (heard, new) != (self._heard, self._new):
            self._heard, self._new = heard, new
            self._news.set()

    async def learn(self, known: PowerOrders, *, given: bool = False) -> None:
        """Take it, and return when it is on the disk. Raises VclError when that cannot be; nothing is obeyed
        then that is not. `given`: the orders are new, and not only found somewhere."""
        async with self._saving:
            after = merge(merge(self._heard, known), self.known)
            new = self._new.union(order.id for order in known.orders if given)
            under_way = tuple(sorted(order.id for order in after.orders if order.id in new))
            if (after, under_way) == (self.known, self.under_way):
                return
            await self._book.save(PowerMemory(known=after, under_way=under_way, boot_id=self._boot_id))
            self.known, self.under_way, self._new = after, under_way, self._new.union(under_way)
            self._heard = merge(self._heard, after)
            now = self._clock.monotonic()
            ids = {order.id for order in after.orders}
            self._since = {id: self._since.get(id, now) for id in ids}
        for listener in list(self._listeners):
            listener()

    async def run(self) -> None:
        """Save what is heard, for ever."""
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                await self.learn(self._heard)
            except VclError as error:
                log.error("what was heard of a shutdown is not saved, and so not obeyed: %s", error)
                self._news.set()
                await asyncio.sleep(RETRY)
