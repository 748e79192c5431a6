"""The manifest directory and the status tree, as the loops see them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestFile:
    """One regular file that counts. `path` is relative with '/'; `data` is None when it could not be read
    or is over the size limit, and then `error` says why."""

    path: str
    data: bytes | None
    digest: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """`complete`: every entry was read, and the directory is the one with our marker.

    `marker`: the directory's id, empty when it has none. `problem`: why it is not complete.
    `ignored`: entries with a manifest's name that are not taken, path -> why (a FIFO, a link that leads out).
    `git_busy`: a `.git/index.lock` exists, so absences do not count (SAFETY rule 19).
    """

    files: tuple[ManifestFile, ...] = ()
    complete: bool
    marker: str = ""
    problem: str = ""
    ignored: Mapping[str, str] = field(default_factory=dict)
    git_busy: bool = False


class ManifestDirectory(Protocol):
    """The watched directory. Calls may block on disk: adapters run them on a worker thread."""

    async def scan(self, *, timeout: float) -> Scan:
        """Read everything that counts. Unchanged files (same stat) are not read again."""
        ...

    async def initialise(self, marker: str) -> None:
        """Write the marker file into a new, empty (or first seen) directory."""
        ...

    async def write(self, path: str, data: bytes, *, expect: str | None) -> None:
        """Replace (or, with `expect` None, create) a file whose digest is `expect`, atomically and durably.
        ConflictError when it holds something else by then: its bytes stay."""
        ...

    async def remove(self, path: str, *, expect: str) -> None:
        """Remove a file whose digest is `expect`; ConflictError otherwise."""
        ...

    def changes(self) -> AsyncIterator[None]:
        """Hints that something changed, coalesced; the scan is the truth."""
        ...


class StatusSink(Protocol):
    """Where merged objects are shown outside the store: a tree of YAML files."""

    async def write(self, kind: str, name: str, document: Mapping[str, Any]) -> None: ...

    async def remove(self, kind: str, name: str) -> None: ...
