"""The queue between the event loop and the worker's thread.

Invariant: a request is either queued, where it can be withdrawn without a trace, or taken; one that comes
back from the worker (another client was faster) goes to the head of the queue, unless nobody waits for it any
more.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from reconciler.adapters.event_loop import post
from reconciler.adapters.rados.replica import Replica
from reconciler.resources.transactions import Txn

MAX_BATCH = 512
MAX_BATCH_BYTES = 8 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolve:
    """Ask what became of transaction `id`, which cannot have committed at or before revision `after`."""

    id: str
    after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """A question to the current state; `past`: what is known will do once it is past this revision."""

    query: Callable[[Replica], object]
    past: int | None = None


Work = Txn | Resolve | Look
Answer = object
"""What the work asked for, or a StoreError."""


@dataclass(slots=True, kw_only=True, eq=False)
class Request:
    """Work, and the future (of the event loop's thread) that gets its Answer; errors come as results.

    `base`: the revision that it was first sent on top of; it cannot have committed at or before that.
    """

    work: Work
    future: asyncio.Future[Any]
    base: int | None = None
    given_up: bool = False

    @property
    def size(self) -> int:
        """Bytes of values."""
        return sum(len(put.value) for put in self.work.puts) if isinstance(self.work, Txn) else 0


class Requests:
    """Any thread may call anything here."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._queue: dict[Request, None] = {}
        self._condition = threading.Condition()
        self._stopped = False

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, request: Request) -> bool:
        """False once stopped."""
        with self._condition:
            if not self._stopped:
                self._queue[request] = None
                self._condition.notify()
            return not self._stopped

    def withdraw(self, request: Request) -> bool:
        """Nobody waits for it any more. True: it is gone without a trace. False: it was taken."""
        with self._condition:
            request.given_up = True
            if request not in self._queue:
                return False
            del self._queue[request]
            return True

    def take(self) -> list[Request]:
        """Wait for some, and take as many as fit in one operation, the oldest first; none once stopped."""
        with self._condition:
            self._condition.wait_for(lambda: self._stopped or self._queue)
            taken: list[Request] = []
            size = 0
            for request in self._queue:
                size += request.size
                if len(taken) == MAX_BATCH or (taken and size > MAX_BATCH_BYTES):
                    break
                taken.append(request)
            for request in taken:
                del self._queue[request]
            return taken

    def put_back(self, requests: Iterable[Request]) -> list[Request]:
        """To the head, but for those given up; those that it is too late for are returned."""
        with self._condition:
            wanted = [request for request in requests if not request.given_up]
            if self._stopped:
                return wanted
            self._queue = dict.fromkeys(wanted) | self._queue
            return []

    def stop(self) -> list[Request]:
        """Refuse everything from now on; returns what was queued."""
        with self._condition:
            self._stopped = True
            queued = list(self._queue)
            self._queue.clear()
            self._condition.notify()
            return queued

    def answer(self, answers: Iterable[tuple[Request, Answer]]) -> None:
        """Hand the answers to whoever still waits for them."""
        pairs = [(request.future, answer) for request, answer in answers]
        if pairs:
            post(self._loop, lambda: _deliver(pairs))


def _deliver(pairs: list[tuple[asyncio.Future[Any], Answer]]) -> None:
    for future, answer in pairs:
        if not future.done():
            future.set_result(answer)
