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
import random
import threading
import time
from collections.abc import Callable, Iterable
from typing import assert_never

from reconciler.adapters.event_loop import post
from reconciler.adapters.rados.errors import closed
from reconciler.adapters.rados.follow import follow
from reconciler.adapters.rados.link import Link, Write, WriteFailed
from reconciler.adapters.rados.replica import Draft, Limits, Replica
from reconciler.adapters.rados.requests import Answer, Look, Request, Requests, Resolve, Work
from reconciler.resources.errors import OutcomeUnknown, StoreError, StoreUnavailable
from reconciler.resources.transactions import Committed, Txn

BACKOFF = (0.0005, 0.02)
"""Seconds: the first and the longest wait (at random, up to this) after a round that another client won."""
FRESH = 1.0
"""Seconds since the last contact, after which a write is preceded by a read: it would only be refused, and a
refusal on top of a state that the log has forgotten since says too little."""


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
        self._requests = Requests(loop)
        self._doubtful = False
        self._contact = time.monotonic()
        self._lost_rounds = 0
        self._thread = threading.Thread(target=self._run, name="vcl-rados", daemon=True)
        self.stopped = asyncio.Event()
        self.revision = replica.version.revision

    def start(self) -> None:
        self._thread.start()

    def submit(self, work: Work) -> Request:
        """Queue it; StoreUnavailable once the worker stops."""
        request = Request(work=work, future=self._loop.create_future())
        if not self._requests.add(request):
            raise closed(self._where)
        return request

    def withdraw(self, request: Request) -> bool:
        """Nobody waits for it any more. True: it is gone without a trace. False: it was taken."""
        return self._requests.withdraw(request)

    def stop(self) -> None:
        """Refuse what is queued, finish what was taken, then set `stopped`."""
        self._refuse(self._requests.stop())

    def join(self, seconds: float) -> bool:
        """Wait for the thread's end; False when it still runs."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while taken := self._requests.take():
                self._round(taken)
        finally:
            self.stop()
            post(self._loop, self.stopped.set)

    def _round(self, taken: list[Request]) -> None:
        """Answer them, or put them back because another client was faster."""
        try:
            stale = self._doubtful or time.monotonic() > self._contact + FRESH
            current = stale and self._read()
            looks = [request for request in taken if isinstance(request.work, Look)]
            if len(looks) == len(taken):
                if not current and not all(self._known(request.work) for request in looks):
                    self._read()
                self._requests.answer([(request, self._look(request)) for request in looks])
                return
            draft, plan = self._draft(taken)
            if not draft.changed and not current:
                self._read()
                draft, plan = self._draft(taken)
        except StoreUnavailable as error:
            self._doubtful = True
            self._requests.answer([(request, _copy(error)) for request in taken])
            return
        if draft.changed:
            self._commit(draft, plan)
        else:
            self._finish(plan)

    def _draft(self, taken: list[Request]) -> tuple[Draft, dict[Request, Answer]]:
        """What to write, and the answers that hold once it is. Looks are answered at the end of the round.

        What was given up is left out: another client may have settled it before the state that this draft
        is on top of was read.
        """
        draft = Draft(self._replica)
        plan: dict[Request, Answer] = {}
        for request in taken:
            if request.given_up:
                continue
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
        for request in plan:
            request.base = before.revision if request.base is None else request.base
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
            self._contact = time.monotonic()
            self._replica.advance(after, entries)
            self._finish(plan)
            if after.revision > before.revision:
                self._moved(after.revision)
        else:
            self._lose(plan, before.revision)

    def _finish(self, plan: dict[Request, Answer]) -> None:
        self._lost_rounds = 0
        self.revision = self._replica.version.revision
        self._requests.answer(
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
                why = f"the change log of {self._where} was trimmed during a write"
                answers.append((request, self._unknown(request.work, why)))
            else:
                again.append(request)
        self._requests.answer(answers)
        self._again(again)
        self._lost_rounds += 1
        shortest, longest = BACKOFF
        pause = random.uniform(0, min(longest, shortest * 2 ** min(self._lost_rounds, 10)))
        time.sleep(pause)

    def _again(self, requests: Iterable[Request]) -> None:
        """Put them back, but for those that the log has already."""
        done: list[tuple[Request, Answer]] = []
        open_: list[Request] = []
        for request in requests:
            work = request.work
            revision = self._replica.revision_of(work.id) if isinstance(work, Txn) else None
            if revision is None:
                open_.append(request)
            else:
                done.append((request, Committed(revision=revision)))
        self._requests.answer(done)
        self._refuse(self._requests.put_back(open_))

    def _refuse(self, requests: Iterable[Request]) -> None:
        self._requests.answer([(request, closed(self._where)) for request in requests])

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
        self._requests.answer(answers)

    def _read(self) -> bool:
        """Bring the replica up to date; always True."""
        now = time.monotonic()
        self._replica = follow(self._link, self._replica)
        self._doubtful = False
        self._contact = now
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
            return _copy(error)
        return StoreUnavailable(str(error), cure="look at `ceph status`")


def _copy(error: StoreUnavailable) -> StoreUnavailable:
    """The same for another caller: each raises one of its own."""
    copy = StoreUnavailable(error.message, cure=error.cure)
    copy.__cause__ = error.__cause__
    return copy


def _words(error: StoreError | WriteFailed) -> str:
    return error.message if isinstance(error, StoreError) else str(error)
