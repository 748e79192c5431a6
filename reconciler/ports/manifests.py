"""The manifest directory and the status tree, as the loops see them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol

from reconciler.resources.scans import Scan


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
