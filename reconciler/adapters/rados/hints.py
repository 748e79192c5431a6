"""Hints between the clients of one object: `notify` after a commit, `watch` to hear of the others'.

Hints only make it fast. A watch dies in a long freeze or a blocklisting, and not every death is reported, so
it is checked and made again here, and whoever waits for changes looks by itself from time to time. Everything
here runs on a thread of its own: reads and writes never wait for it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import rados

from reconciler.adapters.rados.link import Link

log = logging.getLogger(__name__)

CHECK = 1.0
"""Seconds between looks at the watch."""
SPACING = 0.005
"""Seconds between notifications at least; one tells of everything before it."""
PATIENCE = 2.0
"""Seconds that a notification waits for watchers that do not answer."""
MAX_UNDER_WAY = 4
DRAIN = 7.0
"""Seconds at the end for notifications under way: librados crashes the process that disconnects meanwhile
(tried: `rados_shutdown` of 16.2, in one of twenty while an OSD stood still)."""


class Hints:
    """One thread; `tell` and `listen` may be called from any."""

    def __init__(self, link: Link, heard: Callable[[int], None], *, drain: float = DRAIN) -> None:
        """`heard` gets a revision that somebody committed, on a thread of librados; 0: perhaps some."""
        self._link = link
        self._heard = heard
        self._drain = drain
        self._condition = threading.Condition()
        self._stopping = False
        self._listening = False
        self._pending = 0
        self._under_way = 0
        self._watch: Any = None
        self._broken = False
        self._complained = False
        self._check_at = 0.0
        self._thread = threading.Thread(target=self._run, name="vcl-rados-hints", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def listen(self) -> None:
        """Hear of others' commits from now on."""
        if not self._listening:
            with self._condition:
                self._listening = True
                self._condition.notify()

    def tell(self, revision: int) -> None:
        """Let the others know, soon."""
        with self._condition:
            self._pending = max(self._pending, revision)
            self._condition.notify()

    def stop(self) -> None:
        with self._condition:
            self._stopping = True
            self._condition.notify()

    def join(self, seconds: float) -> bool:
        """Wait for the thread's end and the notifications under way; False when any is left."""
        self._thread.join(seconds + self._drain)
        return not self._thread.is_alive() and self._under_way == 0

    def _run(self) -> None:
        while self._wait():
            if self._listening and (self._broken or time.monotonic() >= self._check_at):
                self._renew()
                self._check_at = time.monotonic() + CHECK
            if self._may_tell():
                self._notify()
                time.sleep(SPACING)
        self._unwatch()
        with self._condition:
            self._condition.wait_for(lambda: self._under_way == 0, timeout=self._drain)

    def _wait(self) -> bool:
        """Until there is something to do; False when it is time to stop."""
        with self._condition:
            wait = max(0.0, self._check_at - time.monotonic()) if self._listening else None
            self._condition.wait_for(
                lambda: (
                    self._stopping
                    or self._may_tell()
                    or (self._listening and (self._broken or self._watch is None))
                ),
                timeout=wait,
            )
            return not self._stopping

    def _may_tell(self) -> bool:
        return self._pending > 0 and self._under_way < MAX_UNDER_WAY

    def _renew(self) -> None:
        """Make sure that the watch lives."""
        try:
            if self._watch is not None and not self._broken:
                self._watch.check()
                return
        except rados.Error as error:
            log.info("store %s: the watch died (%s), making a new one", self._link.place, error)
        self._unwatch()
        self._broken = False
        try:
            self._watch = self._link.watch(self._on_notification, self._on_error)
        except rados.Error as error:
            if not self._complained:
                log.warning("store %s: no watch, changes are found by polling: %s", self._link.place, error)
            self._complained = True
        else:
            self._complained = False
            self._heard(0)

    def _unwatch(self) -> None:
        watch, self._watch = self._watch, None
        try:
            if watch is not None:
                self._link.unwatch(watch)
        except rados.Error as error:
            log.debug("store %s: a dead watch could not be removed: %s", self._link.place, error)

    def _notify(self) -> None:
        with self._condition:
            revision, self._pending = self._pending, 0
            self._under_way += 1
        try:
            self._link.notify(str(revision), timeout=PATIENCE, done=self._on_told)
        except rados.Error as error:
            log.debug("store %s: the others hear of revision %d later: %s", self._link.place, revision, error)
            self._on_told()

    def _on_told(self) -> None:
        with self._condition:
            self._under_way -= 1
            self._condition.notify()

    def _on_notification(self, message: bytes) -> None:
        self._heard(int(message) if message.isdigit() else 0)

    def _on_error(self) -> None:
        with self._condition:
            self._broken = True
            self._condition.notify()
