"""An asyncio event loop of one simulated process, run by the world's schedule on virtual time.

Each process has a loop of its own, so it can stand still (SIGSTOP) and go on with everything late, or vanish
(SIGKILL, a power cut) at any `await` while the others run.

Invariant: of a loop that was dropped nothing runs any more, no `finally` block either, until the world is
over. So its suspended coroutines are kept; `bury` closes them when nothing they do matters.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import sys
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Executor
from heapq import heappop, heappush
from itertools import count
from typing import Any, TypeVar, TypeVarTuple, Unpack

from reconciler.sim.world.schedule import Schedule

RESOLUTION = 1e-9
"""Timers that are due within so many seconds are due now, as in asyncio."""
LIVELOCK = 100_000
"""So many callbacks in a row without any time passing are a loop that never waits."""
CLOSE_TRIES = 1_000

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")

Failed = Callable[[str, BaseException | None], None]
"""Told of what nobody handled: in words, and the exception."""


class Call(asyncio.TimerHandle):
    """A callback that waits for its turn; leaner than asyncio's own."""

    __slots__ = ()

    def __init__(
        self,
        when: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: asyncio.AbstractEventLoop,
        context: contextvars.Context | None,
    ) -> None:
        self._when = when
        self._callback = callback
        self._args = args
        self._loop = loop
        self._context = context if context is not None else contextvars.copy_context()
        self._cancelled = False
        self._scheduled = False
        self._source_traceback = None
        self._repr = None

    def cancel(self) -> None:
        """See asyncio.Handle.cancel."""
        self._cancelled = True
        self._callback = _nothing
        self._args = ()


class NodeTask(asyncio.Task[Any]):
    """A task whose hash is its number: sets of tasks then have the same order in every run."""

    def __init__(self, coro: Generator[Any, None, Any] | Coroutine[Any, Any, Any], **options: Any) -> None:
        self.serial: int = next(options["loop"].serials)
        super().__init__(coro, **options)

    def __hash__(self) -> int:
        return self.serial


class NodeLoop(asyncio.BaseEventLoop):
    """`origin`: what its monotonic clock shows now; `rate`: how many of its seconds pass in one of ours."""

    def __init__(
        self, schedule: Schedule, name: str, failed: Failed, *, origin: float = 0.0, rate: float = 1.0
    ) -> None:
        self._running = False
        super().__init__()
        self.name = name
        self.serials = count(1)
        self.rate = rate
        self.paused = False
        self.dropped = False
        self._schedule = schedule
        self._failed = failed
        self._here, self._there = origin, schedule.now
        self._shown = origin
        self._due: deque[Call] = deque()
        self._timers: list[tuple[float, int, Call]] = []
        self._timer_serial = 0
        self._wakes_at = float("inf")
        self._asked: set[float] = set()
        self._alive: dict[asyncio.Task[Any], None] = {}
        self._ended_badly: list[tuple[float, asyncio.Task[Any]]] = []

    # -- what asyncio asks of a loop -------------------------------------------------------------------

    def time(self) -> float:
        """The process's monotonic clock."""
        found = self._here + (self._schedule.now - self._there) * self.rate
        return found if found > self._shown else self._shown

    def call_soon(
        self,
        callback: Callable[[Unpack[_Ts]], object],
        *args: *_Ts,
        context: contextvars.Context | None = None,
    ) -> Call:
        """See asyncio. May also be called by the world: the loop then wakes."""
        call = Call(0.0, callback, args, self, context)
        if not self.dropped:
            self._due.append(call)
            if not self._running:
                self._wake(self._schedule.now)
        return call

    call_soon_threadsafe = call_soon

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[_Ts]], object],
        *args: *_Ts,
        context: contextvars.Context | None = None,
    ) -> Call:
        """See asyncio."""
        call = Call(when, callback, args, self, context)
        if not self.dropped:
            self._timer_serial += 1
            heappush(self._timers, (when, self._timer_serial, call))
            if not self._running:
                self._wake_for_timers()
        return call

    def call_later(
        self,
        delay: float,
        callback: Callable[[Unpack[_Ts]], object],
        *args: *_Ts,
        context: contextvars.Context | None = None,
    ) -> Call:
        """See asyncio."""
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def create_task(
        self,
        coro: Generator[Any, None, Any] | Coroutine[Any, Any, Any],
        *,
        name: object = None,
        context: contextvars.Context | None = None,
    ) -> NodeTask:
        """See asyncio."""
        task = NodeTask(coro, loop=self, name=str(name) if name is not None else "task", context=context)
        self._alive[task] = None
        task.add_done_callback(self._ended)
        return task

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[_Ts]], _T], *args: *_Ts
    ) -> asyncio.Future[_T]:
        """There are no threads: the work is done at once, its result comes in the loop's next turn."""
        future: asyncio.Future[_T] = self.create_future()
        try:
            result = func(*args)
        except Exception as error:  # noqa: BLE001 - handed to the caller, like an executor does
            self.call_soon(_settle, future, None, error)
        else:
            self.call_soon(_settle, future, result, None)
        return future

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Whatever nobody handled fails the run, unless the process is dead."""
        if not self.dropped:
            self._failed(str(context.get("message", "unhandled")), context.get("exception"))

    def get_debug(self) -> bool:
        """Never: a debug loop is slow and looks at the real clock."""
        return False

    def is_running(self) -> bool:
        """Whether one of its callbacks runs at this moment."""
        return self._running

    # -- what the world does with it -------------------------------------------------------------------

    def pause(self) -> None:
        """SIGSTOP: nothing runs until `resume`; its clock goes on."""
        self.paused = True

    def resume(self) -> None:
        """SIGCONT: what arrived meanwhile is handled first, then the timers that are late."""
        self.paused = False
        if not self.dropped:
            self._wake(self._schedule.now)

    def set_rate(self, rate: float) -> None:
        """From now on `rate` of its seconds pass in one of the world's."""
        self._here, self._there, self.rate = self.time(), self._schedule.now, rate
        self._wakes_at = float("inf")
        self._wake_for_timers()

    def drop(self) -> None:
        """The process is gone. Its coroutines stay as they are, for ever suspended."""
        self.dropped = True
        self._due.clear()
        self._timers.clear()
        self._ended_badly.clear()

    def bury(self) -> None:
        """Close what was suspended; only once the world is over, since `finally` blocks run now."""
        self.drop()
        before = events._get_running_loop()
        events._set_running_loop(self)
        try:
            while self._alive:
                task, _ = self._alive.popitem()
                _close(task.get_coro())
        finally:
            events._set_running_loop(before)
            self._closed = True

    def forgotten(self, before: float = float("inf")) -> list[tuple[str, BaseException]]:
        """Tasks that ended with an exception by then (world time) which nobody has asked for; told once."""
        found: list[tuple[str, BaseException]] = []
        late: list[tuple[float, asyncio.Task[Any]]] = []
        for at, task in self._ended_badly:
            if at > before:
                late.append((at, task))
            elif _unseen(task):
                error = task.exception()
                assert error is not None
                found.append((f"task {task.get_name()} failed and nobody looked", error))
        self._ended_badly = late
        return found

    # -- inside ----------------------------------------------------------------------------------------

    def _wake(self, when: float) -> None:
        if when < self._wakes_at:
            self._wakes_at = when
            if when not in self._asked:
                self._asked.add(when)
                self._schedule.call_at(when, self._woken, when)

    def _wake_for_timers(self) -> None:
        timers = self._timers
        while timers and timers[0][2]._cancelled:
            heappop(timers)
        if timers:
            when = self._there + (timers[0][0] - self._here) / self.rate
            self._wake(max(when, self._schedule.now))

    def _woken(self, when: float) -> None:
        self._asked.discard(when)
        if when != self._wakes_at:
            return
        self._wakes_at = float("inf")
        if self.paused or self.dropped:
            return
        self._running = True
        before = events._get_running_loop()
        hooks = sys.get_asyncgen_hooks()
        events._set_running_loop(self)
        sys.set_asyncgen_hooks(finalizer=self._finalize)
        try:
            self._turns()
        finally:
            sys.set_asyncgen_hooks(*hooks)
            events._set_running_loop(before)
            self._running = False
        if not self.dropped and not self.paused:
            if self._due:
                self._wake(self._schedule.now)
            else:
                self._wake_for_timers()

    def _turns(self) -> None:
        """Run until nothing is due: what came from outside first, then timers, then what these cause."""
        due, timers = self._due, self._timers
        now = self.time() + RESOLUTION
        left = LIVELOCK
        while True:
            while timers and timers[0][0] <= now:
                when, _, call = heappop(timers)
                if not call._cancelled:
                    due.append(call)
                    if when > self._shown:
                        self._shown = when  # or, by a rounding error, a timer could be due and not be due
            if not due:
                return
            for _ in range(len(due)):
                call = due.popleft()
                if not call._cancelled:
                    self._run(call)
                if self.dropped or self.paused:
                    return
            left -= 1
            if not left:
                self._failed("runs and runs while no time passes: it never waits", None)
                self.drop()
                return

    def _run(self, call: Call) -> None:
        try:
            call._context.run(call._callback, *call._args)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 - recorded, and it fails the run
            self.call_exception_handler({"message": f"callback {call._callback} failed", "exception": error})

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._alive.pop(task, None)
        if _unseen(task):
            self._ended_badly.append((self._schedule.now, task))

    def _finalize(self, generator: Any) -> None:
        self.call_soon(self.create_task, generator.aclose())


def _unseen(task: asyncio.Task[Any]) -> bool:
    """Whether it has an exception that nobody has asked for: asking for it here would hide it."""
    return bool(getattr(task, "_log_traceback", False))


def _settle(future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)


def _close(coro: Any) -> None:
    """Unwind a suspended coroutine, however often its `finally` blocks wait for something."""
    for _ in range(CLOSE_TRIES):
        try:
            coro.close()
        except RuntimeError as error:
            if "ignored GeneratorExit" in str(error):
                continue
            return
        except BaseException:  # noqa: BLE001, S110 - it dies with its process, which said all it had to say
            pass
        return


def _nothing() -> None:
    """In place of a callback that was cancelled."""


@contextlib.contextmanager
def nobody_running() -> Generator[None]:
    """No loop counts as running: the world is run from inside a test that may itself be a coroutine."""
    before = events._get_running_loop()
    events._set_running_loop(None)
    try:
        yield
    finally:
        events._set_running_loop(before)
