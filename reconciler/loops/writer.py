"""Every transaction of this node goes through here: it compares what SAFETY rules 3 and 4 ask for, and an
unknown outcome is resolved by its id, never by reading again (rule 2)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

from reconciler.loops.cache import StoreCache
from reconciler.ports.clock import Ids
from reconciler.ports.store import Store
from reconciler.resources import keys
from reconciler.resources.errors import OutcomeUnknown, StoreError, StoreUnavailable
from reconciler.resources.transactions import Committed, Compare, Conflict, NotApplied, Put, Txn, TxnResult

log = logging.getLogger(__name__)

RESOLVE_SECONDS = 10.0
CATCH_UP_SECONDS = 5.0


class Writer:
    """Commits with the guard keys compared as this node's cache (or its own start) knows them."""

    def __init__(self, store: Store, cache: StoreCache, ids: Ids) -> None:
        self._store = store
        self._cache = cache
        self._ids = ids
        self._guards: dict[str, int] = {}
        self.committed: Callable[[int], None] = lambda revision: None
        """Told of each commit, to wake the other nodes."""

    def guard(self, key: str, revision: int) -> None:
        """Compare `key` with this revision in every transaction from now on: ours as long as it stands."""
        self._guards[key] = revision

    def holds(self, key: str) -> bool:
        """Whether the guard still stands, as far as the cache knows."""
        return self._guards.get(key) == self._cache.revision_of(key)

    async def commit(
        self,
        *,
        compares: Mapping[str, int] | None = None,
        puts: Mapping[str, bytes] | None = None,
        deletes: Sequence[str] = (),
        guards: Sequence[str] = (keys.SCHEMA,),
        wait: bool = True,
    ) -> TxnResult:
        """Commit; with `wait`, return when the cache shows it. Raises StoreUnavailable or OutcomeUnknown."""
        wanted = {key: self._guards.get(key, self._cache.revision_of(key)) for key in guards}
        wanted.update(compares or {})
        txn = Txn(
            id=self._ids.uuid(),
            compares=tuple(Compare(key=key, revision=wanted[key]) for key in sorted(wanted)),
            puts=tuple(Put(key=key, value=value) for key, value in sorted((puts or {}).items())),
            deletes=tuple(sorted(deletes)),
        )
        try:
            result = await self._store.txn(txn)
        except OutcomeUnknown:
            result = await self._resolve(txn)
        if isinstance(result, Committed):
            self.committed(result.revision)
        if wait and isinstance(result, Committed):
            await self._catch_up(result.revision)
        return result

    async def _catch_up(self, revision: int) -> None:
        try:
            async with asyncio.timeout(CATCH_UP_SECONDS):
                await self._cache.wait_for(revision)
        except TimeoutError:
            log.warning(
                "the copy of the store is behind revision %d; going on when it has caught up", revision
            )

    async def _resolve(self, txn: Txn) -> TxnResult:
        """What became of it. OutcomeUnknown again when that cannot be learnt in time."""
        log.warning("transaction %s: outcome unknown, resolving", txn.id)
        try:
            async with asyncio.timeout(RESOLVE_SECONDS):
                while True:
                    try:
                        outcome = await self._store.resolve(txn.id)
                        break
                    except StoreError:
                        await asyncio.sleep(0.2)
        except TimeoutError as error:
            raise OutcomeUnknown("the store did not say what became of a write", txn_id=txn.id) from error
        match outcome:
            case Committed():
                return outcome
            case NotApplied():
                raise StoreUnavailable("the write did not reach the store; it is tried again")
            case _:
                raise OutcomeUnknown("the store no longer knows what became of a write", txn_id=txn.id)


def conflicts(result: TxnResult) -> tuple[str, ...]:
    """The keys that kept a transaction from committing; empty when it did commit."""
    return result.keys if isinstance(result, Conflict) else ()
