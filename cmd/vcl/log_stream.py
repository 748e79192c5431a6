"""The cluster log as one stream, which goes on where it was when the connection breaks.

That happens when the daemon is restarted, and when nobody has read on for long (`vcl logs | less`).
Invariant: each record comes once, and none of those that the nodes still have is left out in between.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from reconciler.resources.logrecords import parse_log_time
from vcl.client import ApiError, Client, Unreachable, WatchEvent
from vcl.durations import now

Object = dict[str, Any]

FIRST_PAUSE, LONGEST_PAUSE = 0.25, 5.0
"""Seconds between attempts to reach a daemon that has gone."""


@dataclass(frozen=True, slots=True)
class _Last:
    """The last record that was shown of a node."""

    position: tuple[int, int]
    time: str


class LogStream:
    """Read once. `say` is told when the daemon goes and comes; `pause` waits for so many seconds."""

    def __init__(
        self,
        client: Client,
        query: Mapping[str, str],
        *,
        say: Callable[[str], None],
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = client
        self._query = dict(query)
        self._follow = "follow" in query
        self._say = say
        self._pause = pause
        self._begun = ""
        self._floor = ""
        self._latest = ""
        self._shown: dict[str, _Last] = {}
        self._lost = False

    def lines(self) -> Iterator[WatchEvent]:
        """Records and notices. Raises VclError when the daemon cannot be reached at first, or refuses."""
        pause = FIRST_PAUSE
        while True:
            advanced = False
            try:
                for line in self._connected():
                    if line.type == "RECORD":
                        pause, advanced = FIRST_PAUSE, True
                    yield line
                if not self._follow:
                    return
            except (Unreachable, ApiError) as error:
                refused = isinstance(error, ApiError) and error.code < 500
                if refused or not (advanced or (self._follow and self._begun)):
                    raise
            if self._follow:
                self._gone()
                self._pause(pause)
                pause = min(2 * pause, LONGEST_PAUSE)

    def _connected(self) -> Iterator[WatchEvent]:
        """One connection's new lines."""
        query, begun = self._going_on() if self._begun else self._query, parse_log_time(now().isoformat())
        for line in self._client.stream("logs", query):
            self._begun = self._begun or begun
            if self._lost:
                self._lost = False
                self._say("vcld is back")
            if line.type != "BOOKMARK" and (line.type != "RECORD" or self._is_new(line.object)):
                yield line

    def _going_on(self) -> dict[str, str]:
        """What to ask for to get everything that was not shown, and as little else as can be."""
        query = {name: value for name, value in self._query.items() if name != "tail"}
        if self._latest:
            self._floor = min(self._begun, self._latest)
            query["since"] = min(self._floor, *(last.time for last in self._shown.values()))
        elif "tail" in self._query:
            self._floor = query["since"] = self._begun
        return query

    def _is_new(self, record: Object) -> bool:
        node, at = str(record.get("node", "")), str(record.get("time", ""))
        position = (int(record.get("session", 0)), int(record.get("sequence", 0)))
        last = self._shown.get(node)
        # A node of which nothing was shown: what is older than all that was shown was not asked for.
        if position <= last.position if last is not None else at < self._floor:
            return False
        self._shown[node], self._latest = _Last(position, at), at
        return True

    def _gone(self) -> None:
        if not self._lost:
            self._lost = True
            self._say(f"vcld at {self._client.path} has gone; waiting for it, Ctrl-C to leave")
