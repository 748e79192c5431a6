"""Calls into the kernel that may hang (a dead NFS server), each on a worker thread with a deadline.

Invariant: at most `WORKERS` threads of one pool hang; later calls then fail at their deadline too, and the
event loop never waits.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

WORKERS = 4


class Workers:
    """A few threads that are started when they are first needed."""

    def __init__(self, name: str) -> None:
        self._pool = ThreadPoolExecutor(max_workers=WORKERS, thread_name_prefix=name)

    async def call(self, work: Callable[[], T], *, timeout: float | None) -> T:
        """The result of `work`. Raises TimeoutError after `timeout` seconds; the work may still be done."""
        future = asyncio.get_running_loop().run_in_executor(self._pool, work)
        return await asyncio.wait_for(future, timeout)

    async def call_to_the_end(self, work: Callable[[threading.Event], T]) -> T:
        """The result of long work, without a deadline. When this task is cancelled, the work's event is set,
        and its end is awaited before the cancellation goes on: nothing is still at work afterwards."""
        stop = threading.Event()
        future = asyncio.get_running_loop().run_in_executor(self._pool, work, stop)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            stop.set()
            while not future.done():
                await asyncio.wait({future})
            if not future.cancelled():
                future.exception()
            raise

    def close(self) -> None:
        """Let the threads end when they can."""
        self._pool.shutdown(wait=False, cancel_futures=True)
