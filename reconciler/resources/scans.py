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
    `conflicts`: the `NAME.conflict-NODE.yaml` files that are there, until a person has looked at them.
    """

    files: tuple[ManifestFile, ...] = ()
    complete: bool
    marker: str = ""
    problem: str = ""
    ignored: Mapping[str, str] = field(default_factory=dict)
    git_busy: bool = False
    conflicts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """What this node itself saw in the directory with this `marker`, kept on the node (SAFETY rule 19).

    By path, digests: `files` are the bytes that it gave to the store, or was about to give; `taken` those
    that the store gave to the directory, or was about to. Bytes in both were in both places at once. Only
    what is in `files` can be deleted by its absence, and only what is in `taken` may be replaced.
    `mine`: the paths (sorted) whose bytes in the store came from this node.
    `cluster` and `revision`: the store that this was true of, and how far it was.
    """

    marker: str = ""
    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    taken: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    mine: tuple[str, ...] = ()
    cluster: str = ""
    revision: int = field(default=0, compare=False)
