"""Ages as kubectl prints them, and durations as Go and people write them."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from reconciler.resources.errors import InvalidInput

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_NUMBER = r"[0-9]{1,9}(?:\.[0-9]{1,9})?"
_SECONDS = re.compile(rf"-?{_NUMBER}")
_PART = re.compile(rf"({_NUMBER})(ms|s|m|h|d)")
_DURATION = re.compile(rf"-?(?:{_PART.pattern})+")

MINUTE, HOUR, DAY, YEAR = 60, 3600, 86400, 365 * 86400


def parse_duration(text: str) -> float:
    """Seconds of `30s`, `1m30s`, `500ms`, or a plain number of seconds; negative ones are kept."""
    if _SECONDS.fullmatch(text):
        return float(text)
    if not _DURATION.fullmatch(text):
        raise InvalidInput(f"'{text[:40]}' is not a duration", cure="write it like 30s, 5m or 1h30m")
    total = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    return -total if text.startswith("-") else total


def human_duration(seconds: float) -> str:
    """kubectl's short form. Source: k8s.io/apimachinery/pkg/util/duration, HumanDuration."""
    whole = int(seconds)
    if whole < -1:
        return "<invalid>"
    if whole < 0:
        return "0s"
    if whole < 2 * MINUTE:
        return f"{whole}s"
    if whole < 10 * MINUTE:
        return _two(whole // MINUTE, "m", whole % MINUTE, "s")
    if whole < 3 * HOUR:
        return f"{whole // MINUTE}m"
    if whole < 8 * HOUR:
        return _two(whole // HOUR, "h", whole % HOUR // MINUTE, "m")
    if whole < 2 * DAY:
        return f"{whole // HOUR}h"
    if whole < 8 * DAY:
        return _two(whole // DAY, "d", whole % DAY // HOUR, "h")
    if whole < 2 * YEAR:
        return f"{whole // DAY}d"
    if whole < 8 * YEAR:
        return _two(whole // YEAR, "y", whole % YEAR // DAY, "d")
    return f"{whole // YEAR}y"


def _two(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return f"{large}{large_unit}" + (f"{small}{small_unit}" if small else "")


def now() -> datetime:
    """The time that ages are counted to."""
    return datetime.now(UTC)


def age(timestamp: object, at: datetime) -> str:
    """How long ago an RFC 3339 time was, or `<unknown>`."""
    if not isinstance(timestamp, str) or not timestamp:
        return "<unknown>"
    try:
        then = datetime.fromisoformat(timestamp)
    except ValueError:
        return "<unknown>"
    if then.tzinfo is None:
        then = then.replace(tzinfo=UTC)
    return human_duration((at - then).total_seconds())
