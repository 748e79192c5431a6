"""The manifest directory and the status tree, as the loops see them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from reconciler.resources.scans import Base, Scan


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
        Directories on the way to a new file are made.
        ConflictError when it holds something else by then: its bytes stay. ManifestDirectoryError when it
        cannot be written (full, read-only, no such directory): the old file stays whole."""
        ...

    async def remove(self, path: str, *, expect: str) -> None:
        """Remove a file whose digest is `expect`; ConflictError otherwise."""
        ...

    async def keep(self, path: str, data: bytes) -> str:
        """Keep bytes that lost against others beside the file `path`, durably, in a conflict file that is
        not followed; the answer is its path. Never replaces a file; the same bytes are kept once."""
        ...

    def changes(self) -> AsyncIterator[None]:
        """Hints that something changed, coalesced; the scan is the truth."""
        ...


class BaseStore(Protocol):
    """Where the node keeps what it saw in its manifest directory; survives restarts."""

    async def load(self) -> Base:
        """What was saved last; an empty Base when there is none or it cannot be read."""
        ...

    async def save(self, base: Base) -> None:
        """Replace it atomically and durably. ManifestDirectoryError when it cannot be written."""
        ...


class StatusSink(Protocol):
    """Where merged objects are shown outside the store: a tree of YAML files."""

    async def names(self) -> frozenset[tuple[str, str]]:
        """(kind, name) of everything shown, also by an earlier run."""
        ...

    async def write(self, kind: str, name: str, document: Mapping[str, Any]) -> None: ...

    async def remove(self, kind: str, name: str) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyInput:
    """One input of `vcl apply`: `name` is what the user called it, `content` its exact bytes.

    `path`: the file to replace (vcl edit), relative to the manifest directory; None lets vcl choose.
    `expect`: the SHA-256 (hexadecimal) of the bytes that the change began from: a file that holds others by
    then is left alone; None replaces whatever is there.
    """

    name: str
    content: bytes
    path: str | None = None
    expect: str | None = None


class ApplyOutcome(StrEnum):
    CREATED = "created"
    CONFIGURED = "configured"
    UNCHANGED = "unchanged"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyResult:
    """What became of one object (or, with an empty kind and name, of an input that holds none)."""

    source: str
    kind: str = ""
    name: str = ""
    result: ApplyOutcome
    path: str | None = None
    warnings: tuple[str, ...] = ()
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyReport:
    """`problems` are rendered, with their source lines, sorted by file and position."""

    results: tuple[ApplyResult, ...]
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FileReport:
    """One manifest file as the sync loop sees it. `objects`: (kind, name) of what it defines."""

    path: str
    objects: tuple[tuple[str, str], ...]
    valid: bool
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldDeletions:
    """Deletions that the mass-delete guard holds until a person confirms `id`."""

    id: str
    objects: tuple[tuple[str, str], ...]
    reason: str


class ManifestService(Protocol):
    """What the API asks of the manifest sync loop of this node."""

    async def apply(self, inputs: Sequence[ApplyInput], *, dry_run: bool) -> ApplyReport:
        """Write the inputs into the directory and wait until the store has them."""
        ...

    async def delete(self, kind: str, name: str, *, purge: bool) -> None:
        """Take the object out of the file that defines it. NotFound, ConflictError."""
        ...

    async def files(self) -> tuple[FileReport, ...]: ...

    async def read(self, path: str) -> bytes:
        """A file's bytes. NotFound."""
        ...

    def held(self) -> HeldDeletions | None: ...

    async def confirm(self, id: str) -> None:
        """Let the held deletions pass. NotFound when there are none with this id any more."""
        ...
