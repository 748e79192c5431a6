"""Waiting for an object to be as asked, by looking at it again and again until a deadline.

Looking again survives what a stream would not: a daemon that restarts while we wait.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from reconciler.resources.errors import VclError
from reconciler.resources.kinds import KindInfo
from vcl.client import Client, Unreachable, is_not_found
from vcl.progress import Progress

Object = dict[str, Any]
Goal = Callable[[Object | None], bool]
"""Whether the object (None: it does not exist) is as wanted."""

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 1.0
FEW = 8
"""So many objects are looked at one by one; of more, all of their kind are listed."""

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
    progress, label = Progress(1, plain=False), f"{info.singular}/{name}"
    while True:
        try:
            item, seen = look(client, info, name), True
            if goal(item):
                return item
            progress.say(label, *_words(item))
        except Unreachable:
            if not seen:
                raise
        left = until - time.monotonic()
        if left <= 0:
            raise _timed_out(info, name, item)
        time.sleep(min(pause, left))
        pause = min(pause * 1.5, LONGEST_PAUSE)


def wait_for_all(
    client: Client, info: KindInfo, goals: Mapping[str, Goal], until: float, progress: Progress
) -> Iterator[tuple[str, VclError | None]]:
    """Look at all of them until each has reached its goal: the name and None as soon as it has, or why not
    (TimedOut) at the deadline. Raises Unreachable when the daemon never answered."""
    pause, seen = FIRST_PAUSE, False
    left, items = dict(goals), dict[str, Object | None]()
    while left:
        try:
            items, seen = _look_at(client, info, tuple(left)), True
        except Unreachable:
            if not seen:
                raise
        for name in [name for name in left if name in items and left[name](items[name])]:
            del left[name]
            yield name, None
        for name in left:
            progress.say(f"{info.singular}/{name}", *_words(items.get(name)))
        seconds = until - time.monotonic()
        if left and seconds <= 0:
            yield from ((name, _timed_out(info, name, items.get(name))) for name in left)
            return
        if left:
            time.sleep(min(pause, seconds))
            pause = min(pause * 1.5, LONGEST_PAUSE)


def _look_at(client: Client, info: KindInfo, names: Sequence[str]) -> dict[str, Object | None]:
    """These objects, None for those that there are not. Many are asked for at once."""
    if len(names) <= FEW:
        return {name: look(client, info, name) for name in names}
    items = client.objects(info).get("items") or []
    found = {str(item["metadata"]["name"]): item for item in items}
    return {name: found.get(name) for name in names}


def _timed_out(info: KindInfo, name: str, item: Object | None) -> TimedOut:
    return TimedOut(
        f"timed out waiting for the condition on {info.singular}/{name}{_state(item)}",
        cure=f"look at 'vcl describe {info.singular} {name}', or wait longer with --timeout",
    )


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


def _state(item: Object | None) -> str:
    words = [word for word in _words(item) if word]
    return f": {', '.join(words)}" if words else ""


def _words(item: Object | None) -> tuple[str, str]:
    """The status word, and the rest of how it stands."""
    status = status_of(item)
    more = (str(status[key]) for key in ("progress", "message") if status.get(key))
    return str(status.get("phase") or ""), ", ".join(more)
