"""SqliteStore: the store of one machine, in one SQLite file, without a service (see docs/decisions/0003).

Several daemons on one host may share the file. Invariants: Committed means on disk; StoreUnavailable means
that nothing happened and nothing will; everything in between is OutcomeUnknown, and `resolve` settles it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from reconciler.adapters import sqlite_tables as tables
from reconciler.adapters.event_loop import in_thread
from reconciler.adapters.local_files import MOUNTS
from reconciler.adapters.sqlite_errors import LOCKED_CURE
from reconciler.adapters.sqlite_file import StoreFile, prepare
from reconciler.adapters.sqlite_reader import Reader
from reconciler.adapters.sqlite_writer import Resolve, Writer
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

LOG_BYTES = 64 * 2**20
CLOSE_TIMEOUT = 5.0
OPEN_GRACE = 0.5
"""Seconds for a worker thread to say by itself why it could not open the file in time."""
READ_TIMEOUT = 2.0
MAX_UNKNOWN = 10_000


class SqliteStore:
    """The Store port on a file. Bound to the event loop that opened it."""

    def __init__(self, file: StoreFile, *, limits: tables.Limits) -> None:
        """Use `open`; this one expects to run in the event loop, with a file from `prepare`."""
        loop = asyncio.get_running_loop()
        self._file = file
        self._writer = Writer(file, limits=limits, loop=loop, committed=self._wake)
        self._reader = Reader(file, loop=loop, changed=self._wake)
        self._moved = asyncio.Event()
        self._unknown: dict[str, int] = {}
        self._writer.start()
        self._reader.start()

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        log_size: int = 10_000,
        log_bytes: int = LOG_BYTES,
        timeout: float = 10.0,
        mounts: Path = MOUNTS,
    ) -> SqliteStore:
        """Open the store, making the file (0600) and its directories (0700) if need be.

        `log_size`: transactions that the change log keeps at least; `log_bytes`: their values may take this
        much. `mounts`: the kernel's mountinfo. Raises StoreUnavailable after `timeout` seconds, and for a
        network file system, missing rights, a full disk, and a damaged, foreign or newer file.
        """
        try:
            async with asyncio.timeout(timeout + OPEN_GRACE):
                file = await in_thread(
                    lambda: prepare(path, timeout=timeout, mounts=mounts), name="vcl-store-open"
                )
        except TimeoutError as error:
            raise StoreUnavailable(
                f"the store {path} could not be opened within {timeout:g} s", cure="look at its disk"
            ) from error
        return cls(file, limits=tables.Limits(revisions=log_size, bytes=log_bytes))

    async def get(self, keys: Sequence[str], *, timeout: float = READ_TIMEOUT) -> Mapping[str, KeyValue]:
        """See Store.get."""
        for key in keys:
            check_key(key)
        return await self._reader.read(lambda connection: tables.get(connection, keys), timeout=timeout)

    async def list(self, prefix: str, *, timeout: float = READ_TIMEOUT) -> Listing:
        """See Store.list."""
        check_prefix(prefix)
        return await self._reader.read(lambda connection: tables.listing(connection, prefix), timeout=timeout)

    async def txn(self, txn: Txn, *, timeout: float = READ_TIMEOUT) -> TxnResult:
        """See Store.txn."""
        check_txn(txn)
        after = self._writer.revision
        request = self._writer.submit(txn)
        try:
            await asyncio.wait([request.future], timeout=timeout)
        except asyncio.CancelledError:
            if not self._writer.withdraw(request):
                self._remember(txn.id, after)
            raise
        if not request.future.done():
            if self._writer.withdraw(request):
                raise self._no_answer(timeout)
            self._remember(txn.id, after)
            raise self._unfinished(txn, timeout)
        match request.future.result():
            case Committed() | Conflict() as result:
                return result
            case OutcomeUnknown() as error:
                self._remember(txn.id, after)
                raise error
            case StoreError() as error:
                raise error
            case other:
                raise TypeError(f"the writer answered a transaction with {other}")

    async def watch(self, since: int, *, timeout: float) -> WatchResult:
        """See Store.watch."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        with self._reader.watching():
            while True:
                moved = self._moved
                result = await self._reader.read(
                    partial(tables.changes_since, since=since), timeout=READ_TIMEOUT
                )
                if isinstance(result, Compacted) or result.events or loop.time() >= deadline:
                    return result
                since = result.revision
                await _wait_for(moved, deadline - loop.time())

    async def resolve(self, txn_id: str, *, timeout: float = READ_TIMEOUT) -> Resolution:
        """See Store.resolve. Goes behind everything this process has asked for, under SQLite's write lock,
        and commits a fence before it says NotApplied."""
        work = Resolve(id=txn_id, after=self._unknown.get(txn_id, 0))
        request = self._writer.submit(work)
        await asyncio.wait([request.future], timeout=timeout)
        if not request.future.done():
            self._writer.withdraw(request)
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
                raise TypeError(f"the writer answered a resolution with {other}")

    async def txn_at(self, revision: int, *, timeout: float = READ_TIMEOUT) -> str | None:
        """See Store.txn_at."""
        return await self._reader.read(partial(tables.txn_at, revision=revision), timeout=timeout)

    async def close(self) -> None:
        """See Store.close. Waits a few seconds for a commit under way; may be called again.

        The reader's connection goes first: of two that close at the same instant neither is the last one, and
        SQLite would leave the commits in the write-ahead log, out of a copied `store.db`.
        """
        self._reader.stop()
        self._wake()
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self._reader.stopped.wait()
                self._writer.stop()
                await self._writer.stopped.wait()
        except TimeoutError:
            self._writer.stop()
            log.warning("store %s: still busy after %g s, left behind", self._file.path, CLOSE_TIMEOUT)

    def _wake(self) -> None:
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    def _remember(self, txn_id: str, after: int) -> None:
        self._unknown[txn_id] = after
        while len(self._unknown) > MAX_UNKNOWN:
            del self._unknown[next(iter(self._unknown))]

    def _no_answer(self, timeout: float) -> StoreUnavailable:
        reason = self._writer.waiting_for
        return StoreUnavailable(
            f"the store {self._file.path} did not answer within {timeout:g} s{reason and f': {reason}'}",
            cure=LOCKED_CURE if reason else "look at its disk",
        )

    def _unfinished(self, txn: Txn, timeout: float) -> OutcomeUnknown:
        return OutcomeUnknown(
            f"the store {self._file.path} did not finish a write within {timeout:g} s",
            txn_id=txn.id,
            cure="look at its disk and at the load of this host",
        )


async def _wait_for(event: asyncio.Event, seconds: float) -> None:
    """Until it is set, at most `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
