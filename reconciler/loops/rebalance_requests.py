"""`vcl cluster rebalance`: what it would move, a run that is asked for, and its end before its time.

Invariant: a run is recorded with the moves that the person was shown, and only while no other one goes on.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from reconciler.loops.plans import Plans
from reconciler.loops.views import Views
from reconciler.loops.writer import Writer, conflicts
from reconciler.planning.rebalancing import Draft, cancelled
from reconciler.ports.clock import Clock, Ids
from reconciler.resources import keys
from reconciler.resources.errors import ConflictError
from reconciler.resources.rebalancing import RebalancePhase, RebalanceRecord, RebalanceScope
from reconciler.resources.records import dump

ATTEMPTS = 20
AGAIN = 0.1
BY_HAND = "`vcl cluster rebalance`"


class RebalanceRequests:
    """The verb's three parts."""

    def __init__(self, views: Views, writer: Writer, clock: Clock, ids: Ids, plans: Plans) -> None:
        self._views = views
        self._writer = writer
        self._clock = clock
        self._ids = ids
        self._plans = plans

    def record(self) -> RebalanceRecord | None:
        """The run that goes on, or the last one."""
        return self._views.record(keys.REBALANCE, RebalanceRecord)

    async def draft(self, scope: RebalanceScope) -> Draft:
        """What would be moved now."""
        return await self._plans.rebalance(scope)

    async def begin(self, scope: RebalanceScope, index: str = "") -> RebalanceRecord:
        """Ask for it; without moves it has succeeded at once. `index`: only if the moves are still those of
        that draft. Raises ConflictError, StoreError."""
        before, revision = self.record(), self._views.cache.revision_of(keys.REBALANCE)
        if before is not None and before.phase is RebalancePhase.RUNNING:
            raise ConflictError(
                f"a rebalancing goes on since {before.started}, asked for by {before.by}",
                cure="'vcl cluster rebalance --cancel' ends it",
            )
        found = await self._plans.rebalance(scope)
        if index and found.index != index:
            raise ConflictError(
                "the cluster changed since the moves were shown, and others would be made now",
                cure="look again, and ask again",
            )
        record = RebalanceRecord(
            id=self._ids.uuid(), scope=scope, by=BY_HAND, started=self._clock.wall(), moves=found.moves
        )
        if not found.moves:
            return replace(
                record,
                phase=RebalancePhase.SUCCEEDED,
                message="nothing is worth a move",
                finished=record.started,
            )
        if not await self._put(record, revision):
            raise ConflictError("another rebalancing was asked for just now", cure="look, and ask again")
        return record

    async def cancel(self) -> RebalanceRecord:
        """Nothing more is begun. Raises ConflictError, StoreError."""
        for _ in range(ATTEMPTS):
            before, revision = self.record(), self._views.cache.revision_of(keys.REBALANCE)
            if before is None or before.phase is not RebalancePhase.RUNNING:
                raise ConflictError("no rebalancing goes on")
            record = cancelled(before, self._clock.wall())
            if await self._put(record, revision):
                return record
            await asyncio.sleep(AGAIN)  # the master has just written how far it is
        raise ConflictError("the rebalancing kept changing", cure="ask again")

    async def _put(self, record: RebalanceRecord, revision: int) -> bool:
        result = await self._writer.commit(
            compares={keys.REBALANCE: revision}, puts={keys.REBALANCE: dump(record)}
        )
        return not conflicts(result)
