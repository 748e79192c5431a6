"""Is this directory really the pool? A mount point without its mount must not look like "no images".

The first use writes a random id into `.vcl-pool` and remembers it on this node, outside the pool; from then
on a directory without that very id is PoolUnavailable. Nodes that share the directory share the id.
Invariant: nothing is said about images unless the id was read through the same open directory.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path

from reconciler.resources.errors import PoolUnavailable

MARKER = ".vcl-pool"


class Marker:
    """The id of the pool at `path`; `remembered` is a file of this node, or None to remember it only until
    the daemon ends."""

    def __init__(self, path: Path, remembered: Path | None) -> None:
        self._path = path
        self._remembered = remembered
        self._known: str | None = None

    def verify(self, directory: int) -> None:
        """Check an open directory. Raises PoolUnavailable, OSError."""
        found = _read(directory)
        if self._known is None:
            self._known = self._recall()
        if self._known is None:
            self._known = found or _write(directory)
            self._remember(self._known)
        elif found != self._known:
            raise PoolUnavailable(
                f"{self._path} is not the pool that it was: its file {MARKER} is "
                + ("missing" if not found else "another one"),
                cure=self._cure(),
            )

    def _cure(self) -> str:
        forget = f"remove {self._remembered} and restart" if self._remembered else "restart vcld"
        return f"mount the pool's file system; if it was replaced on purpose, {forget}"

    def _recall(self) -> str | None:
        if self._remembered is None:
            return None
        try:
            value, _, path = self._remembered.read_text(encoding="utf-8").partition("\n")
        except FileNotFoundError:
            return None
        return value if path.strip() == str(self._path) else None  # the StoragePool was moved on purpose

    def _remember(self, value: str) -> None:
        if self._remembered is None:
            return
        self._remembered.parent.mkdir(parents=True, exist_ok=True)
        partial = self._remembered.with_name(f"{self._remembered.name}.{uuid.uuid4().hex}.tmp")
        with partial.open("w", encoding="utf-8") as file:
            file.write(f"{value}\n{self._path}\n")
            file.flush()
            os.fsync(file.fileno())
        partial.rename(self._remembered)


def _read(directory: int) -> str:
    """The id, or nothing when there is no (complete) marker."""
    try:
        descriptor = os.open(MARKER, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=directory)
    except FileNotFoundError:
        return ""
    try:
        return os.read(descriptor, 200).decode("ascii", "replace").strip()
    finally:
        os.close(descriptor)


def _write(directory: int) -> str:
    """Make a marker; when another node was faster, its id counts."""
    value, partial = str(uuid.uuid4()), f"{MARKER}.{uuid.uuid4().hex}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    descriptor = os.open(partial, flags, 0o644, dir_fd=directory)
    try:
        os.write(descriptor, f"{value}\n".encode())
        os.fsync(descriptor)
        os.link(partial, MARKER, src_dir_fd=directory, dst_dir_fd=directory)
    except FileExistsError:
        value = _read(directory)
    finally:
        os.close(descriptor)
        os.unlink(partial, dir_fd=directory)
    os.fsync(directory)
    return value
