"""What the nodes' logs consist of: one record a line, and what a reader wants to see of them.

Invariant: (session, sequence) of one node only ever grows, so that a reader can say where it is, and go on
from there after anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from reconciler.resources.errors import InvalidInput

MESSAGE_LIMIT = 8192
"""Characters of a message that are kept; a traceback fits."""

NAME_LIMIT = 200
"""Characters of a logger's or a VM's name that are kept."""


class LogLevel(StrEnum):
    """How much a record matters. What Python calls critical is an error here."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"

    @property
    def weight(self) -> int:
        """Larger matters more."""
        return _WEIGHTS[self]


_WEIGHTS = {level: number for number, level in enumerate(LogLevel)}


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry:
    """What was said, before its node and number are known. `time`: as `log_time` makes it."""

    time: str
    level: LogLevel
    logger: str
    message: str
    vm: str | None = None


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in one node's log: that of the record, or right behind it."""

    session: int
    sequence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRecord:
    """One line of a node's log. `session`: that of the daemon which said it; `sequence` counts from 1 in it.

    `time` is RFC 3339 in UTC with six digits of a second, so that times compare as text. `vm`: the virtual
    machine that it is about, if it is about one.
    """

    node: str
    session: int
    sequence: int
    time: str
    level: LogLevel
    logger: str
    message: str
    vm: str | None = None

    @property
    def position(self) -> Position:
        return Position(self.session, self.sequence)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFilter:
    """What a reader wants. `since`: begin at this time (as in LogRecord); `tail`: begin with so many of the
    last records; both only say where to begin. `level`: this and what matters more. `follow`: go on with
    what is said from now on."""

    node: str | None = None
    vm: str | None = None
    level: LogLevel = LogLevel.DEBUG
    since: str | None = None
    tail: int | None = None
    follow: bool = False

    def wants(self, record: LogRecord) -> bool:
        """Whether the record is one of those wanted, wherever the reader begins."""
        return (
            record.level.weight >= self.level.weight
            and self.vm in (None, record.vm)
            and self.node in (None, record.node)
        )


def log_time(moment: datetime) -> str:
    """The time as records carry it, such as 2026-01-31T12:00:00.000000Z."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def parse_log_time(text: str) -> str:
    """Any RFC 3339 time as records carry it; one without an offset is UTC. Raises InvalidInput."""
    try:
        moment = datetime.fromisoformat(text)
        return log_time(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    except (ValueError, OverflowError) as error:
        raise InvalidInput(
            f"'{text[:40]}' is not a time", cure="write it like 2026-01-31T12:00:00Z"
        ) from error


def earlier(time: str, seconds: float) -> str:
    """The time so many seconds before; the beginning of all time when there is none so early."""
    try:
        return log_time(datetime.fromisoformat(time) - timedelta(seconds=seconds))
    except OverflowError:
        return log_time(datetime.min.replace(tzinfo=UTC))


def parse_level(text: str) -> LogLevel:
    """The level of this name, in any case; `warn` and `critical` will do. Raises InvalidInput."""
    word = {"warn": "warning", "critical": "error"}.get(text.lower(), text.lower())
    try:
        return LogLevel(word)
    except ValueError as error:
        raise InvalidInput(
            f"'{text[:40]}' is not a level", cure=f"use one of {', '.join(LogLevel)}"
        ) from error


def record_to_json(record: LogRecord) -> dict[str, Any]:
    """The record as it is sent, printed and kept in files. By hand: codec.encode takes ten times as long."""
    found: dict[str, Any] = {
        "time": record.time,
        "node": record.node,
        "level": record.level.value,
        "logger": record.logger,
        "message": record.message,
        "session": record.session,
        "sequence": record.sequence,
    }
    if record.vm is not None:
        found["vm"] = record.vm
    return found


def record_from_json(data: object) -> LogRecord:
    """The record that such a mapping says; what is too long is cut. Raises InvalidInput."""
    if not isinstance(data, Mapping):
        raise InvalidInput(f"a log record must be a map, got {type(data).__name__}")
    vm = data.get("vm")
    return LogRecord(
        node=_text(data, "node"),
        session=_number(data, "session"),
        sequence=_number(data, "sequence"),
        time=_time(data),
        level=parse_level(_text(data, "level")),
        logger=_text(data, "logger")[:NAME_LIMIT],
        message=_text(data, "message")[:MESSAGE_LIMIT],
        vm=_text(data, "vm")[:NAME_LIMIT] if vm is not None else None,
    )


def position_to_json(position: Position) -> list[int]:
    """As messages carry it."""
    return [position.session, position.sequence]


def position_from_json(data: object) -> Position:
    """The position that such a list says. Raises InvalidInput."""
    match data:
        case [int(session), int(sequence)] if session >= 0 and sequence >= 0:
            return Position(int(session), int(sequence))
    raise InvalidInput("a position in a log must be a list of two numbers")


def _text(data: Mapping[str, Any], name: str) -> str:
    value = data.get(name)
    if not isinstance(value, str):
        raise InvalidInput(f"{name}: must be a text in a log record")
    return value


def _number(data: Mapping[str, Any], name: str) -> int:
    value = data.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise InvalidInput(f"{name}: must be a whole number in a log record")
    return value


def _time(data: Mapping[str, Any]) -> str:
    text = _text(data, "time")
    if len(text) == 27 and text[10] == "T" and text[19] == "." and text[26] == "Z":
        return text
    return parse_log_time(text)
