"""Hints that something changed in the manifest directory, from inotify where it works.

A hint may be lost (a full queue, no watches left, a network file system): the rescan is the truth. A
directory that was replaced by another of the same name is watched anew.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from watchdog.events import FileSystemEvent, FileSystemEventHandler

from reconciler.planning.manifest_apply import counts, keeps_conflict
from reconciler.planning.manifest_marker import MARKER_FILE

if TYPE_CHECKING:
    from watchdog.observers.api import BaseObserver

log = logging.getLogger(__name__)

_KINDS = frozenset({"created", "modified", "deleted", "moved", "closed"})

MakeObserver = Callable[[], "BaseObserver"]


def inotify_observer() -> BaseObserver:
    """A new inotify observer. OSError when the limits of the system are reached."""
    from watchdog.observers.inotify import InotifyObserver

    return InotifyObserver()


class DirectoryWatch:
    """Calls `wake` (from another thread) for events that concern manifests. `ensure` keeps it alive."""

    def __init__(
        self, root: Path, wake: Callable[[], None], *, make: MakeObserver = inotify_observer
    ) -> None:
        self._root = root
        self._wake = wake
        self._make = make
        self._observer: BaseObserver | None = None
        self._identity: tuple[int, int] | None = None
        self._complained = ""

    @property
    def working(self) -> bool:
        """Whether events arrive; otherwise the directory has to be polled."""
        return self._observer is not None and self._observer.is_alive() and bool(self._observer.emitters)

    def ensure(self) -> bool:
        """Watch the directory that is there now; True when that was not the case before. Blocks briefly."""
        try:
            found = os.stat(self._root)
        except OSError:
            self.close()
            return False
        identity = (found.st_dev, found.st_ino)
        if self.working and identity == self._identity:
            return False
        self.close()
        return self._start(identity)

    def close(self) -> None:
        """Stop watching."""
        observer, self._observer, self._identity = self._observer, None, None
        if observer is None:
            return
        observer.stop()
        if observer.is_alive():
            observer.join(5.0)

    def _start(self, identity: tuple[int, int]) -> bool:
        observer: BaseObserver | None = None
        try:
            observer = self._make()
            observer.schedule(_Handler(self._root, self._wake), str(self._root), recursive=True)
            observer.start()
        except OSError as error:
            if observer is not None:
                observer.stop()
            reason = error.strerror or str(error)
            if reason != self._complained:
                log.warning(
                    "cannot watch %s (%s); it is polled instead; raise fs.inotify.max_user_watches or "
                    "max_user_instances for quicker reactions",
                    self._root,
                    reason,
                )
            self._complained = reason
            return False
        self._observer, self._identity, self._complained = observer, identity, ""
        return True


class _Handler(FileSystemEventHandler):
    def __init__(self, root: Path, wake: Callable[[], None]) -> None:
        self._root = str(root)
        self._wake = wake

    def on_any_event(self, event: FileSystemEvent) -> None:
        if event.event_type in _KINDS and any(
            self._concerns(os.fsdecode(path), event) for path in (event.src_path, event.dest_path) if path
        ):
            self._wake()

    def _concerns(self, path: str, event: FileSystemEvent) -> bool:
        inside = os.path.relpath(path, self._root)
        *parents, name = inside.split("/")
        if any(part.startswith(".") and part != "." for part in parents):
            return False
        if event.is_directory:
            return event.event_type != "modified" and (inside == "." or not name.startswith("."))
        return counts(name) or keeps_conflict(name) or name == MARKER_FILE
