"""The one thread of this process that writes to the store, with group commit.

It takes what has queued up, applies it in order inside one SQLite transaction, pays for one fsync, and only
then answers anybody. Invariant: a request is either in the queue, where it can be withdrawn without a trace,
or taken, which happens only while the thread holds SQLite's write lock. Requests are taken in the order in
which they came, so that a `Resolve` stands behind everything this process asked for earlier.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import assert_never

from reconciler.adapters import sqlite_tables as tables
from reconciler.adapters.event_loop import post
from reconciler.adapters.sqlite_errors import LOCKED, closed, had_no_effect, is_busy, translate
from reconciler.adapters.sqlite_file import StoreFile
from reconciler.resources.errors import OutcomeUnknown, StoreError, StoreUnavailable
from reconciler.resources.transactions import Committed, Resolution, Txn, TxnResult

log = logging.getLogger(__name__)

MAX_BATCH = 512
LOCK_RETRY = 0.002


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolve:
    """Ask what became of transaction `id`, which cannot have committed at or before revision `after`."""

    id: str
    after: int


Work = Txn | Resolve
Answer = TxnResult | Resolution | StoreError


@dataclass(slots=True, kw_only=True, eq=False)
class Request:
    """Work, and the future (of the event loop's thread) that gets its Answer; errors come as results."""

    work: Work
    future: asyncio.Future[Answer]


class Writer:
    """Call everything but the thread's own body from the event loop's thread."""

    def __init__(
        self,
        file: StoreFile,
        *,
        limits: tables.Limits,
        loop: asyncio.AbstractEventLoop,
        committed: Callable[[], None],
    ) -> None:
        """`committed` is called in the event loop after every commit of this process."""
        self._file = file
        self._limits = limits
        self._loop = loop
        self._committed = committed
        self._queue: dict[Request, None] = {}
        self._condition = threading.Condition()
        self._stopping = False
        self._connection: sqlite3.Connection | None = None
        self._thread = threading.Thread(target=self._run, name="vcl-store-writer", daemon=True)
        self.stopped = asyncio.Event()
        self.revision = 0
        self.waiting_for = ""

    def start(self) -> None:
        self._thread.start()

    def submit(self, work: Work) -> Request:
        """Queue it; StoreUnavailable once the writer stops."""
        request = Request(work=work, future=self._loop.create_future())
        with self._condition:
            if self._stopping:
                raise closed(self._file.path)
            self._queue[request] = None
            self._condition.notify()
        return request

    def withdraw(self, request: Request) -> bool:
        """True: it was still queued, and is gone without a trace. False: it was taken."""
        with self._condition:
            if request not in self._queue:
                return False
            del self._queue[request]
            return True

    def stop(self) -> None:
        """Refuse what is queued, finish what was taken, then set `stopped`."""
        with self._condition:
            self._stopping = True
            queued = list(self._queue)
            self._queue.clear()
            self._condition.notify()
        self._answer(queued, [closed(self._file.path) for _ in queued])

    def _run(self) -> None:
        try:
            while self._wait():
                if self._begin():
                    taken = self._take()
                    self._answer(taken, self._serve(taken))
        finally:
            self.stop()
            self._disconnect()
            post(self._loop, self.stopped.set)

    def _wait(self) -> bool:
        """Sleep until there is work; False when it is time to stop."""
        with self._condition:
            self._condition.wait_for(lambda: self._stopping or self._queue)
            return not self._stopping

    def _begin(self) -> bool:
        """Get SQLite's write lock. While another process has it, requests stay queued and can give up."""
        try:
            self._connected().execute("BEGIN IMMEDIATE")
            self._file.require_same()
        except sqlite3.Error as error:
            self._rollback()
            if is_busy(error):
                self.waiting_for = LOCKED
                time.sleep(LOCK_RETRY)
            else:
                self._refuse(error)
            return False
        except StoreUnavailable as error:
            self._rollback()
            self._refuse(error)
            return False
        self.waiting_for = ""
        return True

    def _take(self) -> list[Request]:
        with self._condition:
            taken = list(islice(self._queue, MAX_BATCH))
            for request in taken:
                del self._queue[request]
        return taken

    def _serve(self, taken: Sequence[Request]) -> list[Answer]:
        """Apply the requests in order, commit once, and return what to tell each."""
        connection = self._connected()
        try:
            before = meta = tables.read_meta(connection)
            answers: list[Answer] = []
            for request in taken:
                answer, meta = self._apply(connection, meta, request.work)
                answers.append(answer)
            if meta != before:
                tables.write_meta(connection, tables.compact(connection, meta, self._limits))
        except sqlite3.Error as error:
            self._rollback()
            return [translate(error, self._file.path) for _ in taken]
        failure = self._commit(connection)
        if failure is not None:
            pairs = zip(taken, answers, strict=True)
            return [self._undone(request.work, answer, failure) for request, answer in pairs]
        self.revision = meta.revision
        if meta.revision != before.revision:
            post(self._loop, self._committed)
        return answers

    def _apply(
        self, connection: sqlite3.Connection, meta: tables.Meta, work: Work
    ) -> tuple[Answer, tables.Meta]:
        """One request. When it fails alone (a value too large), it is undone alone; when SQLite gave up the
        whole transaction, the error passes through."""
        answer: Answer
        connection.execute("SAVEPOINT request")
        try:
            match work:
                case Txn():
                    answer, after = tables.apply(connection, meta, work)
                case Resolve():
                    answer, after = tables.resolve(connection, meta, work.id, after=work.after)
                case _:
                    assert_never(work)
        except sqlite3.Error as error:
            if not connection.in_transaction:
                raise
            connection.execute("ROLLBACK TO request")
            answer, after = translate(error, self._file.path), meta
        connection.execute("RELEASE request")
        return answer, after

    def _commit(self, connection: sqlite3.Connection) -> sqlite3.Error | None:
        try:
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._rollback()
            return error
        return None

    def _undone(self, work: Work, answer: Answer, failure: sqlite3.Error) -> Answer:
        """What to tell instead of `answer` after a commit that failed."""
        error = translate(failure, self._file.path)
        if not (isinstance(work, Txn) and isinstance(answer, Committed)) or had_no_effect(failure):
            return error
        unknown = OutcomeUnknown(error.message, txn_id=work.id, cure=error.cure)
        unknown.__cause__ = failure
        return unknown

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = self._file.connect(writer=True)
        return self._connection

    def _rollback(self) -> None:
        """End the SQLite transaction; a connection that cannot even do that is given up."""
        if self._connection is None:
            return
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            log.warning("store %s: opening it again after a failed rollback: %s", self._file.path, error)
            self._disconnect()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        try:
            if connection is not None:
                connection.close()
        except sqlite3.Error as error:
            log.warning("store %s: closing it failed: %s", self._file.path, error)

    def _refuse(self, error: sqlite3.Error | StoreUnavailable) -> None:
        """Tell everybody who is queued that nothing happened."""
        refused = self._take()
        self._answer(refused, [self._refusal(error) for _ in refused])

    def _refusal(self, error: sqlite3.Error | StoreUnavailable) -> StoreUnavailable:
        if isinstance(error, sqlite3.Error):
            return translate(error, self._file.path)
        return StoreUnavailable(error.message, cure=error.cure)

    def _answer(self, requests: Sequence[Request], answers: Sequence[Answer]) -> None:
        if not requests:
            return
        futures = [request.future for request in requests]
        post(self._loop, lambda: _deliver(futures, answers))


def _deliver(futures: Sequence[asyncio.Future[Answer]], answers: Sequence[Answer]) -> None:
    for future, answer in zip(futures, answers, strict=True):
        if not future.done():
            future.set_result(answer)
