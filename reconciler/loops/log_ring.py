"""The last part of one node's log, in memory.

Invariants: bounded in records and in bytes, whoever reads and however slowly; a reader keeps only a position,
and learns how many records went before it got there.
"""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from reconciler.resources.logrecords import LogFilter, LogRecord, Position

RECORDS = 10_000
BYTES = 8 * 2**20
OVERHEAD = 500
"""Bytes of memory that a record takes besides its message, about."""

_SLACK = 100
"""Records that are gone already, and leave the list together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Some records that a reader wants. `upto`: where to go on; `more`: there is more already; `dropped`:
    so many were gone before the reader came to them (those it would not have wanted included)."""

    records: tuple[LogRecord, ...]
    upto: Position
    more: bool = False
    dropped: int = 0


class LogRing:
    """The records in order of their positions."""

    def __init__(self, *, records: int = RECORDS, size: int = BYTES) -> None:
        self._most_records = records
        self._most_bytes = size
        self._records: list[LogRecord] = []
        self._start = 0
        self._bytes = 0
        self._evicted: Position | None = None

    def __len__(self) -> int:
        return len(self._records) - self._start

    def append(self, record: LogRecord) -> None:
        """Add the newest record; the oldest make room."""
        self._records.append(record)
        self._bytes += _cost(record)
        self._shrink()

    def prepend(self, records: Iterable[LogRecord]) -> None:
        """Add what was said before all of these; what does not fit, or is not older, is left out."""
        ours = self._records[self._start :]
        older = sorted(records, key=_position)
        if ours:
            older = older[: bisect_right(older, ours[0].position, key=_position)]
            older = [record for record in older if record.position != ours[0].position]
        self._records, self._start = [*older, *ours], 0
        self._bytes = sum(map(_cost, self._records))
        self._shrink()

    def page(self, wanted: LogFilter, after: Position | None, *, records: int, size: int) -> Page:
        """What comes `after` a position, or from where the filter begins; at most so many records and about
        so many bytes, and one at least if there is one."""
        begin, dropped = self._begin(wanted), 0
        if after is not None:
            begin, dropped = self._behind(after), self._gone(after)
        found: list[LogRecord] = []
        for index in range(begin, len(self._records)):
            record = self._records[index]
            if not wanted.wants(record):
                continue
            size -= _cost(record)
            if found and (len(found) == records or size < 0):
                upto = self._records[index - 1].position
                return Page(records=tuple(found), upto=upto, more=True, dropped=dropped)
            found.append(record)
        end = max(after, self._end()) if after is not None else self._end()
        return Page(records=tuple(found), upto=end, dropped=dropped)

    def _begin(self, wanted: LogFilter) -> int:
        begin = self._start
        if wanted.since is not None:
            since = wanted.since
            rest = islice(self._records, begin, None)
            fresh = (number for number, record in enumerate(rest) if record.time >= since)
            begin += next(fresh, len(self))
        if wanted.tail is not None:
            begin = _last(self._records, begin, wanted)
        return begin

    def _behind(self, after: Position) -> int:
        return bisect_right(self._records, after, lo=self._start, key=_position)

    def _gone(self, after: Position) -> int:
        if self._evicted is None or self._evicted <= after:
            return 0
        same = self._evicted.session == after.session
        return self._evicted.sequence - (after.sequence if same else 0)

    def _end(self) -> Position:
        return self._records[-1].position if len(self) else self._evicted or Position(0, 0)

    def _shrink(self) -> None:
        while len(self) > self._most_records or (self._bytes > self._most_bytes and len(self) > 1):
            gone = self._records[self._start]
            self._bytes -= _cost(gone)
            self._evicted = max(gone.position, self._evicted or gone.position)
            self._start += 1
        if self._start >= _SLACK:
            del self._records[: self._start]
            self._start = 0


def _last(records: Sequence[LogRecord], begin: int, wanted: LogFilter) -> int:
    """Where the last `tail` records that are wanted begin."""
    left = wanted.tail or 0
    for index in range(len(records) - 1, begin - 1, -1):
        if left == 0:
            return index + 1
        left -= wanted.wants(records[index])
    return begin


def _position(record: LogRecord) -> Position:
    return record.position


def _cost(record: LogRecord) -> int:
    return OVERHEAD + sys.getsizeof(record.message)
