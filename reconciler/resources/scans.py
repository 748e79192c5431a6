"""A look at the manifest directory, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """What this node itself saw in the directory with this `marker`, kept on the node (SAFETY rule 19).

    `files`: path -> the digests of the bytes it gave to the store last. A file that is missing here, and in
    the directory, was never ours to delete.
    """

    marker: str = ""
    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
