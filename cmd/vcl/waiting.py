"""Waiting for an object to be as asked, by looking at it again and again until a deadline.

Looking again survives what a stream would not: a daemon that restarts while we wait.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from reconciler.resources.errors import VclError
from reconciler.resources.kinds import KindInfo
from vcl.client import Client, Unreachable, is_not_found

Object = dict[str, Any]
Goal = Callable[[Object | None], bool]
"""Whether the object (None: it does not exist) is as wanted."""

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 1.0
FOR_EVER = 7 * 86400.0
"""What a negative timeout means: a week, as in kubectl."""


class TimedOut(VclError):
    """The deadline passed first."""


def deadline(timeout: float) -> float:
    """The monotonic time at which waiting ends."""
    return time.monotonic() + (timeout if timeout >= 0 else FOR_EVER)


def wait_until(client: Client, info: KindInfo, name: str, goal: Goal, until: float) -> Object | None:
    """Look until the goal is reached; returns the object as it was then. Raises TimedOut."""
    pause, seen, item = FIRST_PAUSE, False, None
    progress = Progress(info, name)
    while True:
        try:
            item, seen = look(client, info, name), True
            if goal(item):
                return item
            progress.show(item)
        except Unreachable:
            if not seen:
                raise
        left = until - time.monotonic()
        if left <= 0:
            raise TimedOut(
                f"timed out waiting for the condition on {info.singular}/{name}{_state(item)}",
                cure=f"look at 'vcl describe {info.singular} {name}', or wait longer with --timeout",
            )
        time.sleep(min(pause, left))
        pause = min(pause * 1.5, LONGEST_PAUSE)


def look(client: Client, info: KindInfo, name: str) -> Object | None:
    """The object, or None when the daemon says that there is none."""
    try:
        return client.object(info, name)
    except VclError as error:
        if is_not_found(error):
            return None
        raise


def status_of(item: Object | None) -> Object:
    """An object's status, empty when there is none."""
    return (item or {}).get("status") or {}


def phase_is(*phases: str) -> Goal:
    """Reached when the status word is one of these."""
    return lambda item: status_of(item).get("phase") in phases


def is_gone(item: Object | None) -> bool:
    """Reached when the object does not exist."""
    return item is None


def condition_is(kind: str, wanted: str) -> Goal:
    """Reached when a condition that speaks of the current generation has this status (any case)."""

    def goal(item: Object | None) -> bool:
        generation = ((item or {}).get("metadata") or {}).get("generation") or 0
        return any(
            str(condition.get("type", "")).lower() == kind.lower()
            and str(condition.get("status", "")).lower() == wanted.lower()
            and (condition.get("observedGeneration") or generation) >= generation
            for condition in status_of(item).get("conditions") or []
        )

    return goal


class Progress:
    """On a terminal, one line on stderr for each new state; nothing elsewhere."""

    def __init__(self, info: KindInfo, name: str) -> None:
        self._label = f"{info.singular}/{name}"
        self._last = ""

    def show(self, item: Object | None) -> None:
        state = _state(item)
        if state and state != self._last and sys.stderr.isatty():
            print(f"{self._label}{state}", file=sys.stderr)
        self._last = state


def _state(item: Object | None) -> str:
    status = status_of(item)
    words = [str(status[key]) for key in ("phase", "progress", "message") if status.get(key)]
    return f": {', '.join(words)}" if words else ""
