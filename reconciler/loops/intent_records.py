"""How a verb's record is read and written: compared with what the verb was judged by.

Invariant: the record is changed only if neither it nor the object's spec changed since they were looked at.
"""

from __future__ import annotations

import asyncio
from typing import TypeVar

from reconciler.loops.views import Views
from reconciler.loops.writer import Writer, conflicts
from reconciler.resources import keys
from reconciler.resources.errors import InvalidInput, OutcomeUnknown
from reconciler.resources.kinds import Kind, info_for
from reconciler.resources.records import dump

T = TypeVar("T")

ATTEMPTS = 8
CATCH_UP_SECONDS = 1.0


class IntentRecords:
    """The intent records of one kind."""

    def __init__(self, kind: Kind, views: Views, writer: Writer) -> None:
        self._kind = kind
        self._views = views
        self._cache = views.cache
        self._writer = writer

    def read(self, name: str, cls: type[T]) -> T:
        """The record, or an empty one; one that cannot be read must not be taken for empty and overwritten.
        Raises InvalidInput."""
        key = keys.intent(self._kind, name)
        intent = self._views.record(key, cls)
        if intent is None and self._views.exists(key):
            raise InvalidInput(f"the store's record {key} cannot be read, so nothing was changed")
        return intent or cls()

    async def commit(self, name: str, intent: object | None) -> bool:
        """Write the record, or remove it (None); False when it has to be judged again. Raises StoreError."""
        key = keys.intent(self._kind, name)
        looked_at = (key, keys.spec(self._kind, name))
        compares = {each: self._cache.revision_of(each) for each in looked_at}
        try:
            if intent is None:
                result = await self._writer.commit(compares=compares, deletes=(key,))
            else:
                result = await self._writer.commit(compares=compares, puts={key: dump(intent)})
        except OutcomeUnknown as error:
            cure = f"look at `vcl get {info_for(self._kind).singular} {name} -o yaml` before you ask again"
            raise OutcomeUnknown(error.message, txn_id=error.txn_id, cure=cure) from error
        return not conflicts(result)

    async def catch_up(self) -> None:
        """Wait for news of the store, a moment at most."""
        try:
            async with asyncio.timeout(CATCH_UP_SECONDS):
                await self._cache.wait_for(self._cache.revision + 1)
        except TimeoutError:
            return
