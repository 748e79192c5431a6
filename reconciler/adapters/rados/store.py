"""RadosStore: the store of a cluster, in the omap of one RADOS object (see docs/decisions/0040).

Ceph is the quorum: one operation on one object is atomic, and its monitors decide which OSD may serve it.
Invariants: Committed means that Ceph has acknowledged it; StoreUnavailable means that nothing happened and
nothing will; everything in between is OutcomeUnknown, and `resolve` settles it by the log or the version.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from reconciler.adapters.event_loop import in_thread, post
from reconciler.adapters.rados.errors import closed
from reconciler.adapters.rados.follow import load
from reconciler.adapters.rados.hints import Hints
from reconciler.adapters.rados.leases import RadosLeases
from reconciler.adapters.rados.link import Link, Place
from reconciler.adapters.rados.replica import Limits, Replica
from reconciler.adapters.rados.requests import Look, Request, Resolve
from reconciler.adapters.rados.worker import Worker
from reconciler.resources.errors import OutcomeUnknown, StoreError, StoreUnavailable
from reconciler.resources.transactions import (
    Committed,
    Compacted,
    Conflict,
    KeyValue,
    Listing,
    NotApplied,
    Resolution,
    Txn,
    TxnResult,
    Unresolved,
    WatchResult,
    check_key,
    check_prefix,
    check_txn,
)

log = logging.getLogger(__name__)

LOG_BYTES = 16 * 2**20
MAX_TXN_BYTES = 32 * 2**20
"""An OSD refuses operations of 90 MiB; every value is sent twice, for its key and for the log."""
READ_TIMEOUT = 2.0
OP_TIMEOUT = 2
POLL = 1.0
"""Seconds between looks for changes while somebody watches, should every hint be lost."""
MAX_UNKNOWN = 10_000
CURE = "look at `ceph status` and at the network to its hosts"

T = TypeVar("T")


class RadosStore:
    """The Store port on one object. Bound to the event loop that opened it."""

    def __init__(self, link: Link, replica: Replica, *, limits: Limits, op_timeout: int) -> None:
        """Use `open`; this one expects to run in the event loop."""
        self._loop = asyncio.get_running_loop()
        self._link = link
        self._op_timeout = op_timeout
        self._moved = asyncio.Event()
        self._unknown: dict[str, int] = {}
        self._closed = False
        self._hints = Hints(link, lambda revision: post(self._loop, lambda: self._heard(revision)))
        self._worker = Worker(link, replica, limits=limits, loop=self._loop, moved=self._committed)
        self._hints.start()
        self._worker.start()
        atexit.register(self._leave)

    @classmethod
    async def open(
        cls,
        place: Place,
        *,
        log_size: int = 10_000,
        log_bytes: int = LOG_BYTES,
        timeout: float = 10.0,
        op_timeout: int = OP_TIMEOUT,
        create: bool = True,
    ) -> RadosStore:
        """Connect, make the object if it does not exist (and `create`), and read it.

        `log_size`: transactions that the change log keeps at least; `log_bytes`: their values may take this
        much. `timeout`: seconds for the connection; `op_timeout`: after which librados gives up an operation.
        Raises StoreUnavailable: no monitor answers, wrong key or rights, no pool, an object that is no store.
        """
        limits = Limits(revisions=log_size, bytes=log_bytes)
        link, replica = await in_thread(
            lambda: _connect(place, timeout=timeout, op_timeout=op_timeout, create=create),
            name="vcl-rados-open",
        )
        return cls(link, replica, limits=limits, op_timeout=op_timeout)

    @property
    def address(self) -> str:
        """This client's own address in Ceph, as the blocklist knows it."""
        return self._link.address

    def leases(self) -> RadosLeases:
        """The nodes' leases, beside the state in an object of their own. Close them before the store."""
        return RadosLeases(self._link)

    async def get(self, keys: Sequence[str], *, timeout: float = READ_TIMEOUT) -> Mapping[str, KeyValue]:
        """See Store.get."""
        for key in keys:
            check_key(key)
        return await self._look(lambda replica: replica.get(keys), timeout=timeout)

    async def list(self, prefix: str, *, timeout: float = READ_TIMEOUT) -> Listing:
        """See Store.list."""
        check_prefix(prefix)
        return await self._look(lambda replica: replica.listing(prefix), timeout=timeout)

    async def txn(self, txn: Txn, *, timeout: float = READ_TIMEOUT) -> TxnResult:
        """See Store.txn."""
        check_txn(txn)
        self._require_small(txn)
        after = self._worker.revision
        request = self._worker.submit(txn)
        try:
            await asyncio.wait([request.future], timeout=timeout)
        except asyncio.CancelledError:
            if not self._worker.withdraw(request):
                self._remember(txn.id, request, after)
            raise
        if not request.future.done():
            if self._worker.withdraw(request):
                raise self._no_answer(timeout)
            self._remember(txn.id, request, after)
            raise self._unfinished(txn, timeout)
        match request.future.result():
            case Committed() | Conflict() as result:
                return result
            case OutcomeUnknown() as error:
                self._remember(txn.id, request, after)
                raise error
            case StoreError() as error:
                raise error
            case other:
                raise TypeError(f"the worker answered a transaction with {other}")

    async def watch(self, since: int, *, timeout: float) -> WatchResult:
        """See Store.watch."""
        deadline = self._loop.time() + timeout
        self._hints.listen()
        while True:
            moved = self._moved
            result = await self._look(partial(Replica.changes, since=since), timeout=READ_TIMEOUT, past=since)
            if isinstance(result, Compacted) or result.events or self._loop.time() >= deadline:
                return result
            since = result.revision
            await _wait_for(moved, min(POLL, deadline - self._loop.time()))

    async def resolve(self, txn_id: str, *, timeout: float = READ_TIMEOUT) -> Resolution:
        """See Store.resolve. Goes behind everything this process has asked for, and changes the version
        before it says NotApplied, so that an operation still under way can never match."""
        request = self._worker.submit(Resolve(id=txn_id, after=self._unknown.get(txn_id, 0)))
        await asyncio.wait([request.future], timeout=timeout)
        if not request.future.done():
            self._worker.withdraw(request)
            raise self._no_answer(timeout)
        match request.future.result():
            case Committed() | NotApplied() as resolution:
                self._unknown.pop(txn_id, None)
                return resolution
            case Unresolved() as resolution:
                return resolution
            case StoreError() as error:
                raise error
            case other:
                raise TypeError(f"the worker answered a resolution with {other}")

    async def txn_at(self, revision: int, *, timeout: float = READ_TIMEOUT) -> str | None:
        """See Store.txn_at."""
        return await self._look(lambda replica: replica.txn_at(revision), timeout=timeout)

    async def close(self) -> None:
        """See Store.close. Waits for the operation under way; may be called again."""
        if self._closed:
            return
        self._closed = True
        self._worker.stop()
        self._hints.stop()
        self._wake()
        await in_thread(self._leave, name="vcl-rados-close")
        atexit.unregister(self._leave)

    def _leave(self) -> None:
        """Disconnect once no thread is inside librados any more; at exit too, for librados aborts a process
        that ends while connected."""
        self._worker.stop()
        self._hints.stop()
        patience = 3 * self._op_timeout + 1
        ended = [self._worker.join(patience), self._hints.join(self._op_timeout + 1)]
        if all(ended):
            self._link.shutdown()
        else:
            log.warning("store %s: Ceph still holds a call; left connected", self._link.place)

    async def _look(self, query: Callable[[Replica], T], *, timeout: float, past: int | None = None) -> T:
        """The query's answer; StoreUnavailable after `timeout` seconds, or when Ceph fails."""
        request = self._worker.submit(Look(query=query, past=past))
        try:
            await asyncio.wait([request.future], timeout=timeout)
        except asyncio.CancelledError:
            self._worker.withdraw(request)
            raise
        if not request.future.done():
            self._worker.withdraw(request)
            raise self._no_answer(timeout)
        answer = request.future.result()
        if isinstance(answer, StoreError):
            raise answer
        found: T = answer
        return found

    def _committed(self, revision: int) -> None:
        """On the worker's thread."""
        self._hints.tell(revision)
        post(self._loop, self._wake)

    def _heard(self, revision: int) -> None:
        if revision == 0 or revision > self._worker.revision:
            self._wake()

    def _wake(self) -> None:
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    def _remember(self, txn_id: str, request: Request, after: int) -> None:
        self._unknown.setdefault(txn_id, after if request.base is None else request.base)
        while len(self._unknown) > MAX_UNKNOWN:
            del self._unknown[next(iter(self._unknown))]

    def _require_small(self, txn: Txn) -> None:
        size = sum(len(put.value) for put in txn.puts)
        if size > MAX_TXN_BYTES:
            raise StoreUnavailable(
                f"the store {self._link.place} takes at most {MAX_TXN_BYTES} bytes in one transaction,"
                f" not {size}",
                cure="store something smaller",
            )

    def _no_answer(self, timeout: float) -> StoreUnavailable:
        if self._closed:
            return closed(str(self._link.place))
        return StoreUnavailable(
            f"the store {self._link.place} did not answer within {timeout:g} s", cure=CURE
        )

    def _unfinished(self, txn: Txn, timeout: float) -> OutcomeUnknown:
        return OutcomeUnknown(
            f"the store {self._link.place} did not finish a write within {timeout:g} s",
            txn_id=txn.id,
            cure=CURE,
        )


def _connect(place: Place, *, timeout: float, op_timeout: int, create: bool) -> tuple[Link, Replica]:
    link = Link.connect(place, op_timeout=op_timeout, connect_timeout=math.ceil(timeout))
    try:
        if create:
            link.create()
        return link, load(link)
    except StoreUnavailable:
        link.shutdown()
        raise


async def _wait_for(event: asyncio.Event, seconds: float) -> None:
    """Until it is set, at most `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
