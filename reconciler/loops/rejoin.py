"""A fenced node's way back: everything of the cluster on it ends first, then it says so, then it begins anew.

Invariants (SAFETY rules 4, 15): a session that a fence intent has ended commits nothing and is never taken up
again; a new one begins only when it is certain that nothing of the cluster runs here; and return/NODE is
written in a session that began after the intent, once that is certain in it too.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from reconciler.loops.membership import Bearing
from reconciler.loops.views import Views
from reconciler.loops.writer import Writer, conflicts
from reconciler.ports.clock import Clock
from reconciler.resources import keys
from reconciler.resources.errors import StoreError
from reconciler.resources.fencing import ReturnRecord
from reconciler.resources.records import dump

log = logging.getLogger(__name__)

LOOK = 0.5
REST = 2.0
"""Seconds between looks when nothing has changed: a store that shuts this host out says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RejoinContext:
    """`empty()`: nothing of the cluster runs here, for certain. `begin_anew()`: end this run of the daemon
    and begin the next one; guests are not touched. `shut_out()`: the storage lets this host in no more.
    `ending()`: this node ends its guests, because it alone has lost the store."""

    node: str
    session: int
    boot_id: str
    machine_id: str
    clock: Clock
    views: Views
    writer: Writer
    bearing: Bearing
    empty: Callable[[], Awaitable[bool]]
    begin_anew: Callable[[], None]
    shut_out: Callable[[], bool] = lambda: False
    ending: Callable[[], bool] = lambda: False


class Rejoin:
    """`run` for ever; does nothing on a node that is not fenced."""

    def __init__(self, context: RejoinContext) -> None:
        self._context = context
        self._changed = asyncio.Event()

    @property
    def lost(self) -> bool:
        """Whether this session was ended by a fence intent (or by another daemon's start)."""
        return self._context.views.session_over(self._context.node, self._context.session)

    @property
    def fenced(self) -> bool:
        """Whether a fencing of this node is recorded."""
        return self._context.views.exists(keys.fence(self._context.node))

    @property
    def barred(self) -> str:
        """Why this node must not be master: it would have to fence itself. Once it has shown that nothing is
        left on it, it may be - two fenced nodes and a dead one must not be without a master for ever."""
        if self.lost:
            return "this node was fenced"
        shown = self._context.views.record(keys.returned(self._context.node), ReturnRecord)
        if self.fenced and (shown is None or shown.session != self._context.session):
            return "this node was fenced, and has not shown yet that nothing is left on it"
        return ""

    async def run(self) -> None:
        """Look whenever the store's copy changes, and twice a second while there is something to do."""
        mine = {keys.session(self._context.node), keys.fence(self._context.node)}
        unsubscribe = self._context.views.cache.subscribe(
            lambda changed: self._changed.set() if changed & mine else None
        )
        try:
            while True:
                self._changed.clear()
                waiting = await self.step()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK if waiting else REST):
                        await self._changed.wait()
        finally:
            unsubscribe()

    async def step(self) -> bool:
        """One look; whether to look again soon."""
        context = self._context
        if not self._concerned():
            context.bearing.empty = False
            return False
        empty = await context.empty()
        context.bearing.empty = empty and self._concerned()
        if not context.bearing.empty:
            return True
        if self.lost:
            log.warning("node %s was fenced, and nothing is left on it: beginning anew", context.node)
            context.begin_anew()
            return True
        if not self.fenced:
            return True
        try:
            await self._show()
        except StoreError as error:
            log.info("return: %s", error)
        return True

    def _concerned(self) -> bool:
        """Whether this node starts nothing now, so that `empty` stays true once it is."""
        return self.lost or self.fenced or self._context.shut_out() or self._context.ending()

    def unsay_empty(self) -> None:
        """Before the agent may start a guest again."""
        self._context.bearing.empty = False

    async def _show(self) -> None:
        """Say, once in a session, that nothing is left here."""
        context = self._context
        key = keys.returned(context.node)
        known = context.views.record(key, ReturnRecord)
        if known is not None and known.session == context.session:
            return
        record = ReturnRecord(
            session=context.session,
            boot_id=context.boot_id,
            machine_id=context.machine_id,
            at=context.clock.wall(),
        )
        result = await context.writer.commit(
            compares={key: context.views.cache.revision_of(key)},
            puts={key: dump(record)},
            guards=(keys.SCHEMA, keys.session(context.node)),
        )
        if not conflicts(result):
            log.info("node %s has shown that nothing is left on it", context.node)
