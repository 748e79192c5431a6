"""The one thread that reads the store, and that notices what other processes of this host wrote to it.

Reads have a connection of their own, so that they never wait for a commit. Each runs on one snapshot, taken
after it was asked for: whatever was acknowledged before is in it.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from reconciler.adapters.event_loop import post
from reconciler.adapters.sqlite_errors import closed, translate
from reconciler.adapters.sqlite_file import StoreFile
from reconciler.adapters.sqlite_tables import data_version
from reconciler.resources.errors import StoreUnavailable

log = logging.getLogger(__name__)

POLL = 0.2
"""Seconds between looks for other processes' commits, while somebody watches. Each look costs an idle host
about a quarter of a millisecond."""

T = TypeVar("T")


@dataclass(slots=True, kw_only=True)
class _Job:
    query: Callable[[sqlite3.Connection], object]
    future: asyncio.Future[Any]


class Reader:
    """Call everything but the thread's own body from the event loop's thread."""

    def __init__(
        self, file: StoreFile, *, loop: asyncio.AbstractEventLoop, changed: Callable[[], None]
    ) -> None:
        """`changed` is called in the event loop when somebody committed, while inside `watching`."""
        self._file = file
        self._loop = loop
        self._changed = changed
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._connection: sqlite3.Connection | None = None
        self._version = -1
        self._thread = threading.Thread(target=self._run, name="vcl-store-reader", daemon=True)
        self._stopping = False
        self._watchers = 0
        self.stopped = asyncio.Event()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Refuse what waits, finish what runs, then set `stopped`."""
        self._stopping = True
        self._jobs.put(None)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Look for other processes' commits meanwhile; without watchers the thread sleeps."""
        self._watchers += 1
        self._jobs.put(None)
        try:
            yield
        finally:
            self._watchers -= 1

    async def read(self, query: Callable[[sqlite3.Connection], T], *, timeout: float) -> T:
        """The query's answer; StoreUnavailable after `timeout` seconds, or when SQLite fails."""
        if self._stopping:
            raise closed(self._file.path)
        future: asyncio.Future[T | StoreUnavailable] = self._loop.create_future()
        self._jobs.put(_Job(query=query, future=future))
        await asyncio.wait([future], timeout=timeout)
        if not future.done():
            future.cancel()
            raise StoreUnavailable(
                f"the store {self._file.path} did not answer within {timeout:g} s",
                cure="look at its disk and at the load of this host",
            )
        answer = future.result()
        if isinstance(answer, StoreUnavailable):
            raise answer
        return answer

    def _run(self) -> None:
        poll_at = time.monotonic()
        try:
            while not self._stopping:
                self._next(max(0.0, poll_at - time.monotonic()) if self._watchers else None)
                if self._watchers and time.monotonic() >= poll_at:
                    self._poll()
                    poll_at = time.monotonic() + POLL
        finally:
            self._stopping = True
            self._drain()
            self._disconnect()
            post(self._loop, self.stopped.set)

    def _next(self, wait: float | None) -> None:
        """Serve the next read; None waits for it without end."""
        try:
            job = self._jobs.get(timeout=wait)
        except queue.Empty:
            return
        if job is not None and not job.future.cancelled():
            self._answer(job, self._ask(job.query))

    def _ask(self, query: Callable[[sqlite3.Connection], object]) -> object:
        try:
            self._file.require_same()
            return query(self._connected())
        except sqlite3.Error as error:
            self._disconnect()
            return translate(error, self._file.path)
        except StoreUnavailable as error:
            return error

    def _poll(self) -> None:
        """Look whether anybody committed. When that fails the watchers look too, and get the error."""
        version = self._ask(data_version)
        if version != self._version:
            self._version = version if isinstance(version, int) else -1
            post(self._loop, self._changed)

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = self._file.connect(writer=False)
        return self._connection

    def _disconnect(self) -> None:
        connection, self._connection, self._version = self._connection, None, -1
        try:
            if connection is not None:
                connection.close()
        except sqlite3.Error as error:
            log.warning("store %s: closing it failed: %s", self._file.path, error)

    def _drain(self) -> None:
        while True:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return
            if job is not None:
                self._answer(job, closed(self._file.path))

    def _answer(self, job: _Job, answer: object) -> None:
        post(self._loop, lambda: None if job.future.done() else job.future.set_result(answer))
