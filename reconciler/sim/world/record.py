"""What happened in the world, line by line: faults, what nodes said, and what their loggers wrote.

Invariant: the same seed gives the same lines; so a line has virtual time and nothing of this machine.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import NamedTuple


class Line(NamedTuple):
    """`at` in virtual seconds; `node` is empty for what concerns the world."""

    at: float
    node: str
    text: str

    def __str__(self) -> str:
        return f"{self.at:10.3f}  {self.node or '*':<8}  {self.text}"


class Log:
    """Grows only. `str` gives it as text, one line each."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.lines: list[Line] = []
        self._now = now

    def write(self, node: str, text: str) -> None:
        """One more line, now."""
        self.lines.append(Line(self._now(), node, text))

    def said(self, text: str, *, node: str | None = None, since: float = 0.0) -> list[Line]:
        """The lines that contain `text`, of that node if it is given (empty: the world's own)."""
        return [
            line
            for line in self.lines
            if text in line.text and line.at >= since and (node is None or line.node == node)
        ]

    def __iter__(self) -> Iterator[Line]:
        return iter(self.lines)

    def __len__(self) -> int:
        return len(self.lines)

    def __str__(self) -> str:
        return "".join(f"{line}\n" for line in self.lines)


class NodeLogs(logging.Handler):
    """Writes the log records of production code under the name of the node whose loop is running."""

    def __init__(self, log: Log, running: Callable[[], str | None], level: int) -> None:
        super().__init__(level)
        self._log = log
        self._running = running

    def emit(self, record: logging.LogRecord) -> None:
        """One line; what is logged outside every node is not the world's."""
        node = self._running()
        if node is None:
            return
        text = f"{record.levelname} {record.name}: {record.getMessage()}"
        if record.exc_info is not None and record.exc_info[1] is not None:
            error = record.exc_info[1]
            text += f" ({type(error).__name__}: {error})"
        self._log.write(node, text)
