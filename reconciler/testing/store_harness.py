"""What the store's contract tests stand on: how to open a store, and how to record what it answered."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from reconciler.ports.store import Store
from reconciler.resources.errors import OutcomeUnknown
from reconciler.resources.transactions import (
    Committed,
    Compare,
    KeyValue,
    Listing,
    NotApplied,
    Put,
    Txn,
    TxnResult,
)
from reconciler.testing.linearizability import ListCall, Operation, TxnCall


def new_id() -> str:
    """An id that no other transaction has, in whatever process and run."""
    return str(uuid.uuid4())


def txn(
    puts: dict[str, bytes] | None = None,
    *,
    compares: dict[str, int] | None = None,
    deletes: tuple[str, ...] = (),
    id: str = "",
) -> Txn:
    """A transaction in few words; its id is new unless given."""
    return Txn(
        id=id or new_id(),
        compares=tuple(Compare(key=key, revision=revision) for key, revision in (compares or {}).items()),
        puts=tuple(Put(key=key, value=value) for key, value in (puts or {}).items()),
        deletes=deletes,
    )


async def commit(store: Store, transaction: Txn) -> int:
    """Its revision; AssertionError when it does not commit."""
    result = await store.txn(transaction)
    assert isinstance(result, Committed), result
    return result.revision


async def read(store: Store, key: str) -> KeyValue | None:
    """One key, or None."""
    return (await store.get([key])).get(key)


class StoreHarness:
    """Base of the contract classes: a store's test module overrides `open`."""

    async def open(self, directory: Path, *, log_size: int = 10_000) -> Store:
        """A new way to the store that lives in `directory`: two calls are two clients of the same data."""
        raise AssertionError(f"{type(self).__name__} must say how to open its store below {directory}")

    @asynccontextmanager
    async def opened(self, directory: Path, *, log_size: int = 10_000) -> AsyncIterator[Store]:
        """The same, closed at the end."""
        store = await self.open(directory, log_size=log_size)
        try:
            yield store
        finally:
            await store.close()


class Recorder:
    """One client's calls, with their times, for the linearizability check.

    An unknown outcome is resolved at once, as the loops do; the calls then count as having taken until now.
    """

    def __init__(self, store: Store, process: str, history: list[Operation]) -> None:
        self._store = store
        self._process = process
        self._history = history

    async def txn(self, transaction: Txn, *, timeout: float = 10.0) -> TxnResult | None:
        """The answer; None when the transaction did not and will not happen."""
        invoked = time.monotonic()
        result: TxnResult | None
        try:
            result = await self._store.txn(transaction, timeout=timeout)
        except OutcomeUnknown as error:
            resolution = await self._store.resolve(error.txn_id, timeout=10.0)
            if isinstance(resolution, NotApplied):
                return None
            assert isinstance(resolution, Committed), resolution
            result = resolution
        self._record(TxnCall(txn=transaction, result=result), invoked)
        return result

    async def list(self, prefix: str) -> Listing:
        """A recorded Store.list."""
        invoked = time.monotonic()
        listing = await self._store.list(prefix, timeout=10.0)
        self._record(ListCall(prefix=prefix, result=listing), invoked)
        return listing

    def _record(self, call: TxnCall | ListCall, invoked: float) -> None:
        operation = Operation(process=self._process, call=call, invoked=invoked, returned=time.monotonic())
        self._history.append(operation)
