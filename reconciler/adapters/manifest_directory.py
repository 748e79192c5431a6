"""The manifest directory on a real file system: scans, checked atomic writes, and hints.

Everything runs on one worker thread, each call with a deadline: a hung network file system makes the scan
incomplete, and never stops the daemon's loop.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from reconciler.adapters.files import (
    Changed,
    create,
    holds,
    make_parents,
    remove_checked,
    replace_checked,
    write_durably,
)
from reconciler.adapters.manifest_scan import Scanner
from reconciler.adapters.manifest_watch import DirectoryWatch, MakeObserver, inotify_observer
from reconciler.planning.manifest_apply import conflict_name, path_problem
from reconciler.planning.manifest_marker import MARKER_FILE
from reconciler.resources.errors import ConflictError, ManifestDirectoryError
from reconciler.resources.scans import Scan

log = logging.getLogger(__name__)

T = TypeVar("T")

QUIET_SECONDS = 0.04
"""Events that follow each other faster than this are one hint..."""
LONGEST_QUIET_SECONDS = 0.2
"""...but a hint is held back no longer than this."""
CHECK_SECONDS = 2.0
"""How often the watch is checked; also how often the directory is polled while it cannot be watched."""
WRITE_SECONDS = 10.0

_MARKER_NOTE = (
    "\n# The line above is how vcl knows this directory. Without it nothing here is followed, and nothing\n"
    "# is deleted. Keep it with the manifests; git may ignore it.\n"
)


class LocalManifestDirectory:
    """`node` names conflict files (`web.conflict-r1.yaml`). Call `close` at the end."""

    def __init__(
        self,
        root: Path,
        *,
        node: str,
        check_seconds: float = CHECK_SECONDS,
        make_observer: MakeObserver = inotify_observer,
    ) -> None:
        self.root = root
        self._node = node
        self._check_seconds = check_seconds
        self._scanner = Scanner(root)
        self._threads = ThreadPoolExecutor(max_workers=1, thread_name_prefix="manifests")
        self._stuck: Future[object] | None = None
        self._hint = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watch = DirectoryWatch(root, self._wake, make=make_observer)

    @property
    def watching(self) -> bool:
        """Whether changes are noticed at once, or by polling."""
        return self._watch.working

    async def scan(self, *, timeout: float) -> Scan:
        """What is there. A directory that does not answer within `timeout` gives an incomplete scan."""
        stuck = Scan(complete=False, problem=f"{self.root} does not answer; is its file system hung?")
        if self._stuck is not None and not self._stuck.done():
            return stuck  # an earlier call still hangs: another would only wait behind it
        try:
            return await self._run(self._scanner.scan, timeout)
        except ManifestDirectoryError:
            return stuck

    async def initialise(self, marker: str) -> None:
        """Write the marker file."""
        path = self.root / MARKER_FILE
        data = (marker + _MARKER_NOTE).encode()
        await self._change(MARKER_FILE, lambda: write_durably(path, data, mode=0o644))

    async def write(self, path: str, data: bytes, *, expect: str | None) -> None:
        """See the port. A new file gets mode 0640: a manifest may hold a guest's passwords."""
        await self._change(path, lambda: self._write(path, data, expect))

    async def remove(self, path: str, *, expect: str) -> None:
        """See the port."""
        await self._change(path, lambda: self._remove(path, expect))

    async def keep(self, path: str, data: bytes) -> str:
        """See the port."""
        return await self._change(path, lambda: self._keep(path, data))

    async def changes(self) -> AsyncIterator[None]:
        """Hints: a burst of events is one. Polls while the directory cannot be watched."""
        self._loop = asyncio.get_running_loop()
        while True:
            fresh = await self._ensure_watch()
            if fresh:
                yield
            try:
                async with asyncio.timeout(self._check_seconds):
                    await self._hint.wait()
            except TimeoutError:
                if not self.watching:
                    yield
                continue
            await self._until_quiet()
            yield

    async def close(self) -> None:
        """Stop watching, and let a call under way end."""
        self._threads.submit(self._watch.close)
        self._threads.shutdown(wait=False)

    async def _ensure_watch(self) -> bool:
        try:
            return await self._run(self._watch.ensure, WRITE_SECONDS)
        except ManifestDirectoryError:
            return False

    async def _until_quiet(self) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + LONGEST_QUIET_SECONDS
        while loop.time() < deadline:
            self._hint.clear()
            try:
                async with asyncio.timeout(QUIET_SECONDS):
                    await self._hint.wait()
            except TimeoutError:
                return
        self._hint.clear()

    def _wake(self) -> None:
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._hint.set)

    async def _change(self, path: str, work: Callable[[], T]) -> T:
        """Run a change, and say in words what the file system objected to."""
        try:
            return await self._run(work, WRITE_SECONDS)
        except Changed as error:
            where = f"; bytes found beside it are in {error.kept.name}" if error.kept else ""
            raise ConflictError(
                f"{path} was changed by somebody else just now{where}", cure="look at it, and try again"
            ) from error
        except OSError as error:
            raise _explain(path, error) from error

    async def _run(self, work: Callable[[], T], timeout: float) -> T:
        future = self._threads.submit(work)
        try:
            async with asyncio.timeout(timeout):
                return await asyncio.shield(asyncio.wrap_future(future))
        except TimeoutError as error:
            self._stuck = future  # type: ignore[assignment]
            raise ManifestDirectoryError(
                f"{self.root} did not answer within {timeout:g} s", cure="is its file system hung?"
            ) from error

    def _write(self, path: str, data: bytes, expect: str | None) -> None:
        target = self._target(path)
        if expect is None:
            make_parents(Path(os.path.realpath(self.root)), target)
            create(target, data, mode=0o640)
        else:
            replace_checked(target, data, expect=expect, aside=lambda: self._aside(target))

    def _remove(self, path: str, expect: str) -> None:
        target = self._target(path, follow=False)
        if target.is_symlink():
            raise ConflictError(f"{path} is a link", cure="remove the link by hand")
        remove_checked(target, expect=expect, aside=lambda: self._aside(target))

    def _keep(self, path: str, data: bytes) -> str:
        target = self._target(path)
        for kept in self._asides(target):
            try:
                if not holds(kept, data):
                    create(kept, data, mode=0o640)
            except Changed:
                continue
            return str(kept.relative_to(os.path.realpath(self.root)))
        raise OSError(errno.EEXIST, "too many conflict files")

    def _target(self, path: str, *, follow: bool = True) -> Path:
        """The real file: a link inside the directory keeps being one, and what it leads to is changed."""
        problem = path_problem(path)
        if problem:
            raise ManifestDirectoryError(problem)
        target = self.root / path
        root = os.path.realpath(self.root)
        real = os.path.realpath(target) if follow else os.path.realpath(target.parent)
        if os.path.commonpath([root, real]) != root:
            raise ManifestDirectoryError(f"{path} leads out of the manifest directory, to {real}")
        parent = os.path.join(root, os.path.dirname(path)).rstrip("/")
        if os.path.realpath(parent) != parent:
            raise ManifestDirectoryError(
                f"{path} goes through a link to a directory", cure="such links are not followed; remove it"
            )
        return Path(real) if follow else target

    def _aside(self, target: Path) -> Path:
        """A free name for bytes that cannot stay: `web.conflict-NODE.yaml`, which is not followed."""
        for candidate in self._asides(target):
            if not os.path.lexists(candidate):
                return candidate
        raise OSError(errno.EEXIST, "too many conflict files")

    def _asides(self, target: Path) -> Iterator[Path]:
        for number in range(1, 1000):
            yield target.with_name(conflict_name(target.name, self._node, number))


def _explain(path: str, error: OSError) -> ManifestDirectoryError:
    cures = {
        errno.ENOSPC: "the file system is full; free some space",
        errno.EDQUOT: "the disk quota is used up",
        errno.EROFS: "the file system is read-only",
        errno.EACCES: "vcld may not write there; check the owner and mode of the directory",
        errno.EPERM: "vcld may not write there; check the owner, mode and attributes",
        errno.ENOENT: "its directory does not exist; create it",
    }
    reason = error.strerror or str(error)
    cure = cures.get(error.errno or 0, "look at the file system")
    return ManifestDirectoryError(f"{path} was not written, and is as it was: {reason}", cure=cure)
