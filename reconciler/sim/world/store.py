"""WorldStore and WorldLeases: one process's clients of the world's storage.

A call that was sent while the way was cut certainly had no effect; any other that got no answer in time may
have, now or later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from functools import partial
from typing import Any

from reconciler.resources.errors import OutcomeUnknown, StoreUnavailable
from reconciler.resources.transactions import (
    KeyValue,
    Listing,
    Resolution,
    Txn,
    TxnResult,
    WatchResult,
    check_key,
    check_prefix,
    check_txn,
)
from reconciler.sim.world.loop import NodeLoop
from reconciler.sim.world.storage import LATENCY, Answer, Reach, Storage

PATIENCE = 2.0
"""Seconds without a way to the store after which a watch says so."""

_Send = Callable[[Answer], bool]


class _Ended(StrEnum):
    """In place of an answer. A result, not an exception: nobody may be left to look at it."""

    LATE = "Late"
    CLOSED = "Closed"


class _NoAnswer(Exception):
    """`sent`: it may have arrived all the same."""

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class _Client:
    """Calls that wait for an answer until their deadline, or until `close`."""

    def __init__(self, storage: Storage, node: str, loop: NodeLoop) -> None:
        self._storage = storage
        self._node = node
        self._loop = loop
        self._waiting: dict[asyncio.Future[Any], None] = {}
        self._closed = False

    async def close(self) -> None:
        """See Store.close and Leases.close."""
        self._closed = True
        for future in self._waiting:
            _settle(future, _Ended.CLOSED)

    async def _call(self, send: _Send, timeout: float) -> Any:
        """The answer. Raises _NoAnswer, or StoreUnavailable when it is closed already."""
        self._require_open()
        if self._storage.refuses(self._node):
            await asyncio.sleep(LATENCY)
            raise _NoAnswer("this host is blocklisted: the cluster has fenced it", sent=False)
        future = self._loop.create_future()
        sent = send(partial(_settle, future))
        timer = self._loop.call_later(timeout, _settle, future, _Ended.LATE)
        self._waiting[future] = None
        try:
            result = await future
        finally:
            timer.cancel()
            del self._waiting[future]
        if result is _Ended.LATE:
            raise _NoAnswer(f"the store did not answer within {timeout:g} s", sent=sent)
        if result is _Ended.CLOSED:
            raise _NoAnswer("the store is closed", sent=sent)
        return result

    async def _ask(self, work: Callable[[], Any], timeout: float) -> Any:
        """A question, which has no effect. Raises StoreUnavailable."""
        try:
            return await self._call(
                lambda answer: self._storage.request(self._node, self._loop, work, answer), timeout
            )
        except _NoAnswer as error:
            raise StoreUnavailable(str(error)) from None

    def _require_open(self) -> None:
        if self._closed:
            raise StoreUnavailable("the store is closed")


class WorldStore(_Client):
    """Implements the Store port."""

    async def get(self, keys: Sequence[str], *, timeout: float = 2.0) -> Mapping[str, KeyValue]:
        """See Store.get."""
        for key in keys:
            check_key(key)
        found: Mapping[str, KeyValue] = await self._ask(lambda: self._storage.cluster.get(keys), timeout)
        return found

    async def list(self, prefix: str, *, timeout: float = 2.0) -> Listing:
        """See Store.list."""
        check_prefix(prefix)
        listing: Listing = await self._ask(lambda: self._storage.cluster.list(prefix), timeout)
        return listing

    async def txn(self, txn: Txn, *, timeout: float = 2.0) -> TxnResult:
        """See Store.txn."""
        check_txn(txn)
        revision = self._storage.cluster.revision
        try:
            result: TxnResult = await self._call(
                lambda answer: self._storage.transact(self._node, self._loop, txn, answer), timeout
            )
        except _NoAnswer as error:
            if not error.sent:
                raise StoreUnavailable(str(error)) from None
            self._storage.cluster.note(txn.id, revision)
            raise OutcomeUnknown(str(error), txn_id=txn.id) from None
        return result

    async def watch(self, since: int, *, timeout: float) -> WatchResult:
        """See Store.watch. Looks again after a short loss of the way, and raises after a longer one."""
        deadline = self._loop.time() + timeout
        while True:
            self._require_open()
            result = await self._watch_once(since, max(0.0, deadline - self._loop.time()))
            if result is not None:
                return result
            if self._storage.reach(self._node) is not Reach.OPEN:
                raise StoreUnavailable(f"the store did not answer within {PATIENCE:g} s")

    async def resolve(self, txn_id: str, *, timeout: float = 2.0) -> Resolution:
        """See Store.resolve."""
        resolution: Resolution = await self._ask(lambda: self._storage.resolve(txn_id), timeout)
        return resolution

    async def txn_at(self, revision: int, *, timeout: float = 2.0) -> str | None:
        """See Store.txn_at."""
        found: tuple[str | None] = await self._ask(lambda: (self._storage.cluster.txn_at(revision),), timeout)
        return found[0]

    async def _watch_once(self, since: int, timeout: float) -> WatchResult | None:
        """None when the way was lost, some time ago by now."""
        storage, future = self._storage, self._loop.create_future()

        def lost() -> None:
            self._loop.call_later(PATIENCE, _settle, future, _Ended.LATE)

        undo = storage.on_loss(self._node, lost)
        if storage.reach(self._node) is not Reach.OPEN:
            lost()
        watcher = storage.watch(self._node, self._loop, since, timeout, partial(_settle, future))
        self._waiting[future] = None
        try:
            result: WatchResult | _Ended = await future
        finally:
            undo()
            storage.leave(watcher)
            del self._waiting[future]
        if result is _Ended.CLOSED:
            raise StoreUnavailable("the store is closed")
        return None if isinstance(result, _Ended) else result


class WorldLeases(_Client):
    """Implements the Leases port, over the same way."""

    async def renew(self, node: str, value: bytes, *, timeout: float) -> None:
        """See Leases.renew."""
        await self._ask(lambda: self._storage.write_lease(node, value), timeout)

    async def read(self, *, timeout: float) -> Mapping[str, bytes]:
        """See Leases.read."""
        found: Mapping[str, bytes] = await self._ask(lambda: dict(self._storage.leases), timeout)
        return found


def _settle(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)
