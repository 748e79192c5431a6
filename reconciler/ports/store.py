"""The store: where the cluster agrees. Linearizable compare-and-set over several keys.

Every call takes `timeout` in seconds and raises StoreUnavailable when it had no effect, OutcomeUnknown
(`txn` only) when the write may still happen. Values are bytes; keys are ASCII, 1 to 512 characters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from reconciler.resources.transactions import KeyValue, Listing, Resolution, Txn, TxnResult, WatchResult


class Store(Protocol):
    """One global revision that grows with every committed transaction, starting at 0."""

    async def get(self, keys: Sequence[str], *, timeout: float = 2.0) -> Mapping[str, KeyValue]:
        """The keys that exist, read at one revision."""
        ...

    async def list(self, prefix: str, *, timeout: float = 2.0) -> Listing:
        """Every key with the prefix (empty: all), from one revision."""
        ...

    async def txn(self, txn: Txn, *, timeout: float = 2.0) -> TxnResult:
        """Apply a transaction, durably: Committed means that it survives a crash."""
        ...

    async def watch(self, since: int, *, timeout: float) -> WatchResult:
        """Changes after revision `since`. Waits up to `timeout` for the first; Compacted: list again.

        A `since` larger than the store's revision is Compacted too (the store was replaced).
        """
        ...

    async def resolve(self, txn_id: str, *, timeout: float = 2.0) -> Resolution:
        """What became of a transaction whose outcome was unknown."""
        ...

    async def txn_at(self, revision: int, *, timeout: float = 2.0) -> str | None:
        """The id of the transaction that made this revision; None when the log lacks it (by now)."""
        ...

    async def close(self) -> None:
        """Stop; calls under way end with StoreUnavailable or OutcomeUnknown."""
        ...
