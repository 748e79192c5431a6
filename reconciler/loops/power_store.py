"""Carries orders to shut down, and their ends, between this node and the store.

Invariants (SAFETY rule 20): what the store says of them and what this node knows are merged, never replaced;
`intent/power` is there exactly while an order is in force, since every claim compares that it is not; and an
order whose end is recorded is taken back by nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from reconciler.loops.power_orders import OrderKeeper
from reconciler.loops.views import Views
from reconciler.loops.writer import Writer, conflicts
from reconciler.planning.power_orders import merge
from reconciler.resources import keys
from reconciler.resources.errors import StoreError, VclError
from reconciler.resources.records import dump
from reconciler.resources.shutdowns import PowerOrders

log = logging.getLogger(__name__)

ORDERS = (keys.POWER_INTENT, keys.POWER_ENDED)
"""Where they are: those in force, and the ids of those that have ended."""

RETRY = 1.0
RESYNC = 30.0


class PowerStore:
    """`run` for ever."""

    def __init__(self, keeper: OrderKeeper, views: Views, writer: Writer) -> None:
        self._keeper = keeper
        self._views = views
        self._writer = writer
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Whenever either side changes, bring both to what both know."""
        cache = self._views.cache
        undo = (
            cache.subscribe(lambda found: self._changed.set() if found.intersection(ORDERS) else None),
            self._keeper.subscribe(self._changed.set),
        )
        try:
            while True:
                self._changed.clear()
                try:
                    await self.step()
                except VclError as error:
                    log.info("orders to shut down are not in the store yet: %s", error)
                    await asyncio.sleep(RETRY)
                    continue
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(RESYNC):
                        await self._changed.wait()
        finally:
            for each in undo:
                each()

    async def step(self) -> None:
        """One look at both. Raises StoreError, and VclError when the disk refuses."""
        stored = self.stored()
        if stored is None:
            return
        await self._keeper.learn(stored)
        known = self._keeper.known
        if merge(known, PowerOrders()) != merge(stored, PowerOrders()):
            await self._write(known)

    def stored(self) -> PowerOrders | None:
        """What the store says, merged; None when a record cannot be read: then it is left as it is."""
        found = PowerOrders()
        for key in ORDERS:
            record = self._views.record(key, PowerOrders)
            if record is None and self._views.exists(key):
                return None
            found = merge(found, record or PowerOrders())
        return found

    async def _write(self, known: PowerOrders) -> None:
        cache = self._views.cache
        puts = {keys.POWER_ENDED: dump(PowerOrders(ended=known.ended))} if known.ended else {}
        deletes: tuple[str, ...] = ()
        if known.orders:
            puts[keys.POWER_INTENT] = dump(PowerOrders(orders=known.orders))
        elif self._views.exists(keys.POWER_INTENT):
            deletes = (keys.POWER_INTENT,)
        result = await self._writer.commit(
            compares={key: cache.revision_of(key) for key in ORDERS}, puts=puts, deletes=deletes
        )
        if conflicts(result):
            raise StoreError("another node was writing them; trying again")
        if known.orders:
            log.warning("the store says: the cluster is shut down")
