"""From Python's logging to the cluster log.

Invariants: a log call costs microseconds, from whatever thread, and never waits for anybody, fails, or logs
in its turn; what is said before the cluster log is there is kept, up to a bound, and told then. Nothing is
added to what was said: secrets stay out of the log because nobody says them.
"""

from __future__ import annotations

import asyncio
import logging
import re
import threading
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime

from reconciler.adapters.event_loop import post
from reconciler.resources.logrecords import MESSAGE_LIMIT, NAME_LIMIT, LogEntry, LogLevel, log_time

WAITING = 2000
"""Entries that wait for the event loop at most; the oldest go first."""

_VM = re.compile(r"vm ([A-Za-z0-9][A-Za-z0-9.-]{0,62}): ")

Sink = Callable[[LogEntry], None]


class ClusterLogHandler(logging.Handler):
    """Made before the event loop runs; `connect` gives it the cluster log, `disconnect` takes it away."""

    def __init__(self, *, waiting: int = WAITING) -> None:
        super().__init__()
        self._waiting: deque[LogEntry] = deque(maxlen=waiting)
        self._sink: Sink | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken = False
        self._dropped = 0
        self._busy = threading.local()
        self._formatter = logging.Formatter()

    def createLock(self) -> None:
        """None is needed: a deque's append is atomic, and nobody shall wait for a thread that logs."""
        self.lock = None

    def handle(self, record: logging.LogRecord) -> bool:
        """As in the standard library, without the lock."""
        wanted = bool(self.filter(record))
        if wanted:
            self.emit(record)
        return wanted

    def connect(self, sink: Sink) -> None:
        """Tell `sink` everything, in the running loop's thread."""
        self._loop, self._sink = asyncio.get_running_loop(), sink
        self._pass_on()

    def disconnect(self) -> None:
        """Tell what is waiting; what is said afterwards waits for the next `connect`."""
        self._pass_on()
        self._loop = self._sink = None

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it, and have the loop's thread fetch it."""
        if getattr(self._busy, "now", False):
            return  # making the text of a record has logged something
        self._busy.now = True
        try:
            entry = self._entry(record)
        except Exception:  # noqa: BLE001 - as in the standard library: a log call must not fail its caller
            self.handleError(record)
            return
        finally:
            self._busy.now = False
        if len(self._waiting) == self._waiting.maxlen:
            self._dropped += 1
        self._waiting.append(entry)
        loop = self._loop
        if loop is not None and not self._woken:
            self._woken = True
            post(loop, self._pass_on)

    def _pass_on(self) -> None:
        self._woken = False  # first: what is said from here on wakes the loop again
        sink = self._sink
        if sink is None:
            return
        dropped, self._dropped = self._dropped, 0
        if dropped:
            sink(_too_many(dropped))
        for _ in range(len(self._waiting)):
            sink(self._waiting.popleft())

    def _entry(self, record: logging.LogRecord) -> LogEntry:
        message = record.getMessage()
        if record.exc_info or record.exc_text or record.stack_info:
            message = self._formatter.format(record).removeprefix("\n")
        return LogEntry(
            time=log_time(datetime.fromtimestamp(record.created, UTC)),
            level=_level(record.levelno),
            logger=record.name[:NAME_LIMIT],
            message=_short(_sound(message)),
            vm=_vm(record, message),
        )


def _level(number: int) -> LogLevel:
    if number >= logging.ERROR:
        return LogLevel.ERROR
    if number >= logging.WARNING:
        return LogLevel.WARNING
    return LogLevel.INFO if number >= logging.INFO else LogLevel.DEBUG


def _vm(record: logging.LogRecord, message: str) -> str | None:
    """The VM that the record is about: extra={"vm": NAME}, or `vm NAME: ...`."""
    named = getattr(record, "vm", None)
    if isinstance(named, str) and named:
        return _sound(named)[:NAME_LIMIT]
    found = _VM.match(message)
    return found[1] if found else None


def _sound(text: str) -> str:
    """Without halves of surrogate pairs (file names have them), which are no UTF-8."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def _short(message: str) -> str:
    """Of a long text, such as a traceback, the beginning and the end."""
    if len(message) <= MESSAGE_LIMIT:
        return message
    half = MESSAGE_LIMIT // 2 - 20
    cut = len(message) - 2 * half
    return f"{message[:half]}\n[{cut} characters]\n{message[-half:]}"


def _too_many(dropped: int) -> LogEntry:
    return LogEntry(
        time=log_time(datetime.now(UTC)),
        level=LogLevel.WARNING,
        logger=__name__,
        message=f"log: {dropped} records were dropped here: too many at once",
    )
