"""Sets Ceph's flags for a shutdown that asks for it, and takes them back when VMs may run again.

Invariant: a flag is recorded as vcl's in the store before it is set, and only those are unset; that it is
gone is recorded after it is. One node does it: the first in the hierarchy among those that hear each other.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from reconciler.loops.power_orders import OrderKeeper
from reconciler.loops.views import Views
from reconciler.loops.writer import Writer, conflicts
from reconciler.planning.ceph_flags import to_set, to_unset
from reconciler.ports.power import CephFlags
from reconciler.resources import keys
from reconciler.resources.errors import FenceFailed, StoreError
from reconciler.resources.records import dump
from reconciler.resources.shutdowns import FlagRecord

log = logging.getLogger(__name__)

LOOK = 1.0
WITHIN = 5.0
"""Seconds for the monitors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlagsContext:
    """`mine()`: whether it is this node's turn."""

    keeper: OrderKeeper
    views: Views
    writer: Writer
    ceph: CephFlags
    mine: Callable[[], bool]


class PowerFlags:
    """`run` for ever. `unfinished()`: why a host should not go off yet."""

    def __init__(self, context: FlagsContext) -> None:
        self._context = context
        self._done: str = ""
        self._problem = ""

    def unfinished(self) -> str:
        """That the flags are not set yet; empty when they are, or nobody asked for them."""
        context = self._context
        order = context.keeper.order
        if order is None or not order.ceph_flags or self._recorded():
            return ""
        return f"Ceph's flags are not set yet{f': {self._problem}' if self._problem else ''}"

    async def run(self) -> None:
        """Look once a second."""
        while True:
            try:
                await self.step()
                self._problem = ""
            except (FenceFailed, StoreError) as error:
                if str(error) != self._problem:
                    log.warning("Ceph's flags: %s; trying again", error)
                self._problem = str(error)
            await asyncio.sleep(LOOK)

    async def step(self) -> None:
        """One look, and what follows from it. Raises FenceFailed, StoreError."""
        context = self._context
        order = context.keeper.order
        if order is not None and order.ceph_flags:
            if self._done != order.id and context.mine():
                await self._set()
                self._done = order.id
        elif order is None and context.views.exists(keys.POWER_FLAGS) and context.mine():
            await self._unset()
            self._done = ""

    def _recorded(self) -> tuple[str, ...]:
        record = self._context.views.record(keys.POWER_FLAGS, FlagRecord)
        return record.flags if record is not None else ()

    async def _set(self) -> None:
        context, mine = self._context, self._recorded()
        wanted = to_set(await context.ceph.flags(timeout=WITHIN), mine)
        await self._record(tuple(sorted({*mine, *wanted})))
        for flag in wanted:
            await context.ceph.set_flag(flag, True, timeout=WITHIN)
        log.warning("Ceph's flags for the shutdown: %s", ", ".join(wanted) or "all were set already")

    async def _unset(self) -> None:
        context, mine = self._context, self._recorded()
        for flag in to_unset(await context.ceph.flags(timeout=WITHIN), mine):
            await context.ceph.set_flag(flag, False, timeout=WITHIN)
            log.info("Ceph's flag %s is unset again", flag)
        await self._record(None)

    async def _record(self, flags: tuple[str, ...] | None) -> None:
        context, key = self._context, keys.POWER_FLAGS
        result = await context.writer.commit(
            # Not against an order that came, or went, meanwhile.
            compares={each: context.views.cache.revision_of(each) for each in (key, keys.POWER_INTENT)},
            puts={key: dump(FlagRecord(flags=flags))} if flags is not None else {},
            deletes=(key,) if flags is None else (),
        )
        if conflicts(result):
            raise StoreError("the record of its flags changed meanwhile")
