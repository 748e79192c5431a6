"""The cluster log as one stream, which goes on when the daemon has been restarted.

Invariant: each record comes once, and none of those that the nodes still have is left out in between.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from vcl.client import ApiError, Client, Unreachable, WatchEvent
from vcl.durations import now

Object = dict[str, Any]

FIRST_PAUSE, LONGEST_PAUSE = 0.25, 5.0
"""Seconds between attempts to reach a daemon that has gone."""


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
        self._seen: dict[str, tuple[int, int]] = {}
        self._lost = False

    def lines(self) -> Iterator[WatchEvent]:
        """Records and notices. Raises VclError when the daemon cannot be reached at first, or refuses."""
        pause = FIRST_PAUSE
        while True:
            try:
                for line in self._connected():
                    pause = FIRST_PAUSE
                    yield line
                if not self._follow:
                    return
                self._gone()
            except (Unreachable, ApiError) as error:
                refused = isinstance(error, ApiError) and error.code < 500
                if refused or not self._follow or not self._begun:
                    raise
                self._gone()
            self._pause(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _connected(self) -> Iterator[WatchEvent]:
        """One connection's new lines."""
        query = self._query
        if self._begun:
            query = {k: v for k, v in query.items() if k != "tail"} | {"since": self._begun}
        begun = now().isoformat()
        for line in self._client.stream("logs", query):
            self._begun = self._begun or begun
            if self._lost:
                self._lost = False
                self._say("vcld is back")
            if line.type != "BOOKMARK" and (line.type != "RECORD" or self._is_new(line.object)):
                yield line

    def _is_new(self, record: Object) -> bool:
        node = str(record.get("node", ""))
        position = (int(record.get("session", 0)), int(record.get("sequence", 0)))
        if position <= self._seen.get(node, (-1, -1)):
            return False
        self._seen[node] = position
        return True

    def _gone(self) -> None:
        if not self._lost:
            self._lost = True
            self._say(f"vcld at {self._client.path} has gone; waiting for it, Ctrl-C to leave")
