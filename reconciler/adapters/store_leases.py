"""Leases kept in the store itself, for stores that have no better place: several daemons on one host.

Each renewal is a transaction, so this is not for a cluster: its leases live in an object of their own.
"""

from __future__ import annotations

from collections.abc import Mapping

from reconciler.ports.clock import Ids
from reconciler.ports.store import Store
from reconciler.resources import keys
from reconciler.resources.errors import StoreUnavailable
from reconciler.resources.transactions import Put, Txn


class StoreLeases:
    """The Leases port on keys `lease/NODE`."""

    def __init__(self, store: Store, ids: Ids) -> None:
        self._store = store
        self._ids = ids
        self._closed = False

    async def renew(self, node: str, value: bytes, *, timeout: float) -> None:
        """See Leases.renew."""
        self._require_open()
        put = Put(key=keys.lease(node), value=value)
        await self._store.txn(Txn(id=self._ids.uuid(), puts=(put,)), timeout=timeout)

    async def read(self, *, timeout: float) -> Mapping[str, bytes]:
        """See Leases.read."""
        self._require_open()
        found = await self._store.list(keys.LEASES, timeout=timeout)
        return {item.key.removeprefix(keys.LEASES): item.value for item in found.items}

    async def close(self) -> None:
        """See Leases.close; the store is its owner's to close."""
        self._closed = True

    def _require_open(self) -> None:
        if self._closed:
            raise StoreUnavailable("the leases are closed")
