"""The manifest directory's twins: in memory, with every fault that a file system can have on request.

What the real one promises, these promise too (reconciler/testing/manifest_directory_contract.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import count
from typing import Any

from reconciler.planning.manifest_apply import conflict_name, keeps_conflict, path_problem
from reconciler.resources.errors import ConflictError, ManifestDirectoryError
from reconciler.resources.scans import Base, ManifestFile, Scan


@dataclass(slots=True)
class DirectoryFaults:
    """`problem`: the scan is incomplete, and why; `gone`: there is no directory; `full`: no writes;
    `unreadable`, `unwritable`: path -> why; `git_busy`: a git command is at work."""

    problem: str = ""
    gone: bool = False
    full: bool = False
    git_busy: bool = False
    unreadable: dict[str, str] = field(default_factory=dict)
    unwritable: dict[str, str] = field(default_factory=dict)
    ignored: dict[str, str] = field(default_factory=dict)


class MemoryManifestDirectory:
    """`files` is the directory: tests change it like a user, then call `hint`. `before_write` is called just
    before a write looks at the file, as another program's write would happen. `node` names conflict files."""

    def __init__(self, node: str = "r1") -> None:
        self.node = node
        self.files: dict[str, bytes] = {}
        self.marker = ""
        self.faults = DirectoryFaults()
        self.before_write: Callable[[], None] | None = None
        self.scans = 0
        self._hints: asyncio.Queue[None] = asyncio.Queue()

    def hint(self) -> None:
        """Tell the loop that something changed."""
        self._hints.put_nowait(None)

    async def scan(self, *, timeout: float) -> Scan:
        """What `files` holds, through the faults."""
        self.scans += 1
        if self.faults.gone:
            return Scan(complete=False, problem="the directory is not there; create or mount it")
        found = [self._file(path) for path in sorted(self.files) if not path_problem(path)]
        problems = [self.faults.problem] if self.faults.problem else []
        problems += [file.error for file in found if file.data is None]
        return Scan(
            files=tuple(found),
            complete=not problems,
            marker=self.marker,
            problem="; ".join(problems),
            ignored=dict(self.faults.ignored),
            git_busy=self.faults.git_busy,
            conflicts=tuple(path for path in sorted(self.files) if keeps_conflict(path.rpartition("/")[2])),
        )

    async def initialise(self, marker: str) -> None:
        """Mark the directory."""
        self._require_room("the marker")
        self.marker = marker

    async def write(self, path: str, data: bytes, *, expect: str | None) -> None:
        """See the port."""
        self._require_room(path, path_problem(path) or self._obstacle(path))
        self._expect(path, expect)
        self.files[path] = data
        self.hint()

    async def remove(self, path: str, *, expect: str) -> None:
        """See the port."""
        self._require_room(path, path_problem(path))
        self._expect(path, expect)
        del self.files[path]
        self.hint()

    async def keep(self, path: str, data: bytes) -> str:
        """See the port."""
        self._require_room(path, path_problem(path))
        parent, slash, name = path.rpartition("/")
        for number in count(1):
            kept = parent + slash + conflict_name(name, self.node, number)
            if self.files.setdefault(kept, data) == data:
                return kept
        raise AssertionError("numbers do not end")

    async def changes(self) -> AsyncIterator[None]:
        """A hint for each burst of calls of `hint`."""
        while True:
            await self._hints.get()
            while not self._hints.empty():
                self._hints.get_nowait()
            yield

    def _file(self, path: str) -> ManifestFile:
        if path in self.faults.unreadable:
            return ManifestFile(path=path, data=None, error=self.faults.unreadable[path])
        data = self.files[path]
        return ManifestFile(path=path, data=data, digest=sha256(data).hexdigest())

    def _obstacle(self, path: str) -> str:
        """A file where a directory is needed, or the other way round."""
        parts = path.split("/")
        for end in range(1, len(parts)):
            if "/".join(parts[:end]) in self.files:
                return f"{'/'.join(parts[:end])} is a file"
        inside = any(other.startswith(f"{path}/") for other in self.files)
        return "it is a directory" if inside else ""

    def _require_room(self, path: str, problem: str = "") -> None:
        problem = problem or self.faults.unwritable.get(path, "")
        if self.faults.gone or self.faults.full or problem:
            raise ManifestDirectoryError(
                f"{path} was not written, and is as it was: {problem or 'it is full'}"
            )

    def _expect(self, path: str, expect: str | None) -> None:
        if self.before_write is not None:
            self.before_write()
        there = self.files.get(path)
        if (sha256(there).hexdigest() if there is not None else None) != expect:
            raise ConflictError(f"{path} was changed by somebody else just now", cure="try again")


class MemoryBaseStore:
    """What a node remembers, in memory; `full` makes saving fail."""

    def __init__(self, base: Base | None = None) -> None:
        self.base = base or Base()
        self.full = False

    async def load(self) -> Base:
        """What was saved last."""
        return self.base

    async def save(self, base: Base) -> None:
        """Remember it."""
        if self.full:
            raise ManifestDirectoryError("the state directory is full")
        self.base = base


class MemoryStatusSink:
    """What is shown, in `shown`; `writes` counts."""

    def __init__(self) -> None:
        self.shown: dict[tuple[str, str], Mapping[str, Any]] = {}
        self.writes = 0
        self.full = False

    async def names(self) -> frozenset[tuple[str, str]]:
        """Everything that is shown."""
        return frozenset(self.shown)

    async def write(self, kind: str, name: str, document: Mapping[str, Any]) -> None:
        """Show it."""
        if self.full:
            raise ManifestDirectoryError("the status tree is full")
        self.writes += 1
        self.shown[kind, name] = document

    async def remove(self, kind: str, name: str) -> None:
        """Show it no more."""
        self.shown.pop((kind, name), None)
