"""Blocking calls on threads of their own, each with a deadline.

libvirt's calls cannot be cancelled: a hung libvirtd keeps a thread until the connection is closed. So the
threads are few and daemonic (they never hold up the process' end), the event loop waits only until the
deadline, and work that was abandoned goes no further than the call it is in.

Invariant: after the deadline of a piece of work no *new* step of it begins (`Ticket.step`).
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from reconciler.resources.errors import ControllerUnavailable

T = TypeVar("T")


class Abandoned(Exception):
    """Raised inside a piece of work whose caller has stopped waiting; nobody sees it."""


@dataclass(slots=True, eq=False)
class Ticket:
    """One piece of work. `step` is called before each call that changes something."""

    work: Callable[[Ticket], Any]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    ended: Callable[[], None]
    lock: threading.Lock = field(default_factory=threading.Lock)
    begun: bool = False
    abandoned: bool = False

    def step(self) -> None:
        """Raises Abandoned when the deadline has passed."""
        with self.lock:
            if self.abandoned:
                raise Abandoned

    def abandon(self) -> bool:
        """No further step begins; whether a thread has taken the work up."""
        with self.lock:
            self.abandoned = True
            return self.begun


class Workers:
    """`size` daemon threads, made when first needed."""

    def __init__(self, *, name: str, size: int) -> None:
        self._name = name
        self._size = size
        self._queue: queue.SimpleQueue[Ticket | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._busy = 0

    @property
    def busy(self) -> int:
        """How many calls have not returned, those nobody waits for included."""
        return self._busy

    async def run(
        self,
        work: Callable[[Ticket], T],
        *,
        timeout: float,
        what: str,
        ended: Callable[[], None] = lambda: None,
    ) -> T:
        """The result of `work(ticket)`, or its exception; ControllerUnavailable after `timeout` seconds.

        `ended` is called, on whatever thread, once no part of the work runs or can begin any more.
        """
        loop = asyncio.get_running_loop()
        ticket = Ticket(work=work, loop=loop, future=loop.create_future(), ended=ended)
        self._submit(ticket)
        try:
            async with asyncio.timeout(timeout):
                result: T = await ticket.future
                return result
        except TimeoutError as error:
            begun = ticket.abandon()
            doing = "has not ended" if begun else f"has not begun ({self._busy} calls are unanswered)"
            raise ControllerUnavailable(
                f"libvirt did not answer within {timeout:g} s: {what} {doing}",
                cure="see whether libvirtd hangs: virsh list; systemctl status libvirtd",
            ) from error
        except asyncio.CancelledError:
            ticket.abandon()
            raise

    def close(self) -> None:
        """The idle threads end; busy ones end after their call."""
        with self._lock:
            for _ in self._threads:
                self._queue.put(None)
            self._threads.clear()

    def _submit(self, ticket: Ticket) -> None:
        with self._lock:
            self._queue.put(ticket)
            waiting = self._queue.qsize() + self._busy
            if len(self._threads) < min(self._size, waiting):
                thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self) -> None:
        while (ticket := self._queue.get()) is not None:
            with self._lock:
                self._busy += 1
            try:
                _perform(ticket)
            finally:
                with self._lock:
                    self._busy -= 1


def _perform(ticket: Ticket) -> None:
    result: Any = None
    failure: BaseException | None = None
    try:
        if not ticket.abandoned:
            ticket.begun = True
            result = ticket.work(ticket)
    except Abandoned:
        return
    except BaseException as error:  # noqa: BLE001 - handed over to the one who waits
        failure = error
    finally:
        ticket.ended()
    _deliver(ticket, result, failure)


def _deliver(ticket: Ticket, result: Any, failure: BaseException | None) -> None:
    def settle() -> None:
        if ticket.future.done():
            return
        if failure is not None:
            ticket.future.set_exception(failure)
        else:
            ticket.future.set_result(result)

    try:
        ticket.loop.call_soon_threadsafe(settle)
    except RuntimeError:
        # The loop is closed: whoever asked is gone.
        return
