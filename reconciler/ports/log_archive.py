"""Where a node's log outlives its daemon."""

from __future__ import annotations

from typing import Protocol

from reconciler.resources.logrecords import LogRecord


class LogArchive(Protocol):
    """Keeps the last part of the log; what it cannot keep is dropped, and said in the log."""

    async def load(self, most: int) -> tuple[LogRecord, ...]:
        """The last `most` records that were kept, oldest first; called before the first `write`."""
        ...

    def write(self, record: LogRecord) -> None:
        """Keep it soon; returns at once."""
        ...
