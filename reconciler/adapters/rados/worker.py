"""The one thread of this process that reads and writes the state, with group commit.

It takes what has queued up, applies it in order to a draft on its replica, and sends the draft as one atomic
operation that compares the version. Accepted: the replica was current, and everything asked in this round -
reads too - is answered from it. Refused: it reads what the others wrote, and the requests go back to the head
of the queue. Invariants: a request that nobody waits for any more is never sent again, so that an outcome
once called unknown is settled by the version alone; and requests are taken in the order in which they came,
so that a `Resolve` stands behind everything this process asked for earlier.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, assert_never

from reconciler.adapters.event_loop import post
from reconciler.adapters.rados.errors import closed
from reconciler.adapters.rados.follow import follow
from reconciler.adapters.rados.link import Link, Write, WriteFailed
from reconciler.adapters.rados.replica import Draft, Limits, Replica
from reconciler.resources.errors import OutcomeUnknown, StoreError, StoreUnavailable
from reconciler.resources.transactions import Committed, Txn

log = logging.getLogger(__name__)

MAX_BATCH = 512
MAX_BATCH_BYTES = 8 * 2**20
BACKOFF = (0.0005, 0.02)
"""Seconds: the first and the longest wait (at random, up to this) after a round that another client won."""


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
    """Work, and the future (of the event loop's thread) that gets its Answer; errors come as results."""

    work: Work
    future: asyncio.Future[Any]
    given_up: bool = False

    @property
    def size(self) -> int:
        return sum(len(put.value) for put in self.work.puts) if isinstance(self.work, Txn) else 0


class Worker:
    """Call everything but the thread's own body from the event loop's thread."""

    def __init__(
        self,
        link: Link,
        replica: Replica,
        *,
        limits: Limits,
        loop: asyncio.AbstractEventLoop,
        moved: Callable[[int], None],
    ) -> None:
        """`moved` is called in this thread with the new revision after every commit of this process."""
        self._link = link
        self._where = str(link.place)
        self._replica = replica
        self._limits = limits
        self._loop = loop
        self._moved = moved
        self._queue: dict[Request, None] = {}
        self._condition = threading.Condition()
        self._stopping = False
        self._doubtful = False
        self._lost_rounds = 0
        self._thread = threading.Thread(target=self._run, name="vcl-rados", daemon=True)
        self.stopped = asyncio.Event()
        self.revision = replica.version.revision

    def start(self) -> None:
        self._thread.start()

    def submit(self, work: Work) -> Request:
        """Queue it; StoreUnavailable once the worker stops."""
        request = Request(work=work, future=self._loop.create_future())
        with self._condition:
            if self._stopping:
                raise closed(self._where)
            self._queue[request] = None
            self._condition.notify()
        return request

    def withdraw(self, request: Request) -> bool:
        """Nobody waits for it any more. True: it is gone without a trace. False: it was taken."""
        with self._condition:
            request.given_up = True
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
        self._answer((request, closed(self._where)) for request in queued)

    def join(self, seconds: float) -> bool:
        """Wait for the thread's end; False when it still runs."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while taken := self._take():
                self._round(taken)
        finally:
            self.stop()
            post(self._loop, self.stopped.set)

    def _take(self) -> list[Request]:
        """What is next, as much as fits in one operation; nothing when it is time to stop."""
        with self._condition:
            self._condition.wait_for(lambda: self._stopping or self._queue)
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

    def _round(self, taken: list[Request]) -> None:
        """Answer them, or put them back because another client was faster."""
        try:
            current = self._doubtful and self._read()
            looks = [request for request in taken if isinstance(request.work, Look)]
            if len(looks) == len(taken):
                if not current and not all(self._known(request.work) for request in looks):
                    self._read()
                self._answer([(request, self._look(request)) for request in looks])
                return
            draft, plan = self._draft(taken)
            if not draft.changed and not current:
                self._read()
                draft, plan = self._draft(taken)
        except StoreUnavailable as error:
            self._doubtful = True
            self._answer([(request, _again(error)) for request in taken])
            return
        if draft.changed:
            self._commit(draft, plan)
        else:
            self._finish(plan)

    def _draft(self, taken: list[Request]) -> tuple[Draft, dict[Request, Answer]]:
        """What to write, and the answers that hold once it is. Looks are answered at the end of the round."""
        draft = Draft(self._replica)
        plan: dict[Request, Answer] = {}
        for request in taken:
            match request.work:
                case Txn() as txn:
                    plan[request] = draft.apply(txn)
                case Resolve() as question:
                    plan[request] = draft.resolve(question.id, after=question.after)
                case Look():
                    plan[request] = None
                case _:
                    assert_never(request.work)
        return draft, plan

    def _commit(self, draft: Draft, plan: dict[Request, Answer]) -> None:
        before, after = self._replica.version, draft.version(self._limits)
        entries = tuple(draft.entries)
        try:
            accepted = self._link.write(Write(before=before, after=after, items=draft.items, entries=entries))
        except WriteFailed as error:
            self._doubtful = True
            self._fail(plan, error, sent=True)
            return
        except StoreUnavailable as error:
            self._fail(plan, error, sent=False)
            return
        if accepted:
            self._replica.advance(after, entries)
            self._finish(plan)
            if after.revision > before.revision:
                self._moved(after.revision)
        else:
            self._lose(plan, before.revision)

    def _finish(self, plan: dict[Request, Answer]) -> None:
        self._lost_rounds = 0
        self.revision = self._replica.version.revision
        self._answer(
            [
                (request, self._look(request) if isinstance(request.work, Look) else answer)
                for request, answer in plan.items()
            ]
        )

    def _lose(self, plan: dict[Request, Answer], base: int) -> None:
        """Another client was faster. Look what it did, and put back what is still to be done.

        A refusal can be the answer to a second sending of an operation whose first one was accepted: then the
        log has the ids, unless it was trimmed since, and then nobody knows.
        """
        try:
            self._read()
        except StoreUnavailable as error:
            self._doubtful = True
            self._fail(plan, error, sent=True)
            return
        trimmed = self._replica.version.compacted > base
        answers: list[tuple[Request, Answer]] = []
        again: list[Request] = []
        for request, planned in plan.items():
            if isinstance(request.work, Look):
                answers.append((request, self._look(request)))
            elif isinstance(request.work, Txn) and isinstance(planned, Committed) and trimmed:
                answers.append(
                    (
                        request,
                        self._unknown(
                            request.work, f"the change log of {self._where} was trimmed during a write"
                        ),
                    )
                )
            else:
                again.append(request)
        self._answer(answers)
        self._put_back(again)
        self._lost_rounds += 1
        shortest, longest = BACKOFF
        pause = random.uniform(0, min(longest, shortest * 2 ** min(self._lost_rounds, 10)))
        time.sleep(pause)

    def _put_back(self, requests: list[Request]) -> None:
        """To the head of the queue; those in the log already are answered, and those given up are not sent
        again, since somebody may have settled them."""
        done: list[tuple[Request, Answer]] = []
        with self._condition:
            kept: dict[Request, None] = {}
            for request in requests:
                work = request.work
                revision = self._replica.revision_of(work.id) if isinstance(work, Txn) else None
                if revision is not None:
                    done.append((request, Committed(revision=revision)))
                elif self._stopping:
                    done.append((request, closed(self._where)))
                elif not request.given_up:
                    kept[request] = None
            self._queue = kept | self._queue
        self._answer(done)

    def _fail(
        self, plan: dict[Request, Answer], error: StoreUnavailable | WriteFailed, *, sent: bool
    ) -> None:
        """The operation failed; `sent`: and may be applied nevertheless."""
        answers: list[tuple[Request, Answer]] = []
        for request, planned in plan.items():
            if sent and isinstance(request.work, Txn) and isinstance(planned, Committed):
                answers.append((request, self._unknown(request.work, _words(error))))
            else:
                answers.append((request, self._unavailable(error)))
        self._answer(answers)

    def _read(self) -> bool:
        """Bring the replica up to date; always True."""
        self._replica = follow(self._link, self._replica)
        self._doubtful = False
        self.revision = self._replica.version.revision
        return True

    def _known(self, work: Work) -> bool:
        return isinstance(work, Look) and work.past is not None and self._replica.version.revision > work.past

    def _look(self, request: Request) -> Answer:
        return request.work.query(self._replica) if isinstance(request.work, Look) else None

    def _unknown(self, txn: Txn, why: str) -> OutcomeUnknown:
        return OutcomeUnknown(
            f"{why}; whether a write was applied is unknown",
            txn_id=txn.id,
            cure="look at `ceph status` and at the network to its hosts",
        )

    def _unavailable(self, error: StoreUnavailable | WriteFailed) -> StoreUnavailable:
        if isinstance(error, StoreUnavailable):
            return _again(error)
        return StoreUnavailable(str(error), cure="look at `ceph status`")

    def _answer(self, answers: Iterable[tuple[Request, Answer]]) -> None:
        pairs = [(request.future, answer) for request, answer in answers]
        if pairs:
            post(self._loop, lambda: _deliver(pairs))


def _deliver(pairs: list[tuple[asyncio.Future[Any], Answer]]) -> None:
    for future, answer in pairs:
        if not future.done():
            future.set_result(answer)


def _again(error: StoreUnavailable) -> StoreUnavailable:
    """The same for another caller: each raises one of its own."""
    copy = StoreUnavailable(error.message, cure=error.cure)
    copy.__cause__ = error.__cause__
    return copy


def _words(error: StoreError | WriteFailed) -> str:
    return error.message if isinstance(error, StoreError) else str(error)
