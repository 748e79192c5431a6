"""Is this the directory that the node knows? A marker file with an id answers (SAFETY rule 19).

An unmounted or exchanged directory looks like one whose files were all deleted. So nothing is read from a
directory without the marker, and a lost marker is made again only when no file that the store knows is
missing. A directory that the node sees for the first time is filled from the store: as long as the node
remembers nothing of it, nothing that is missing in it can be taken for deleted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from reconciler.planning.manifest_values import StoredFile
from reconciler.resources.scans import Base, Scan

MARKER_FILE = ".vcl-directory"


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """It is the directory of the base."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopt:
    """This node sees the directory for the first time, and it has a marker already: remember it."""

    marker: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Create:
    """Write the marker file; an empty `marker` means a new id."""

    marker: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuse:
    """Leave it alone. `problem` says why and what to do."""

    problem: str


Decision: TypeAlias = Known | Adopt | Create | Refuse


def judge_marker(scan: Scan, base: Base, stored: Mapping[str, StoredFile]) -> Decision:
    """Decide from what was found and from what this node remembers."""
    if scan.marker:
        if scan.marker == base.marker:
            return Known()
        if not base.marker:
            return Adopt(marker=scan.marker)
        return Refuse(
            problem=(
                f"this is another directory: its {MARKER_FILE} says {scan.marker}, and the node knows "
                f"{base.marker}; bring the right directory back (is it mounted?), or, if this one is to be "
                f"used from now on, write {base.marker} into its {MARKER_FILE}"
            )
        )
    if not scan.complete:
        return Refuse(problem=scan.problem or "the directory cannot be read")
    digests = {file.path: file.digest for file in scan.files}
    missing = sorted(path for path in stored if path not in digests)
    if not base.marker:
        return Create()
    if base.marker and stored and _familiar(digests, base, stored):
        return Create(marker=base.marker)
    return Refuse(
        problem=(
            f"the file {MARKER_FILE} is missing{_lacks(missing)}, so this may be the wrong directory (is it "
            f"mounted?), and nothing in it is followed; if it is the right one, write {base.marker} into "
            "that file"
        )
    )


def _familiar(digests: Mapping[str, str], base: Base, stored: Mapping[str, StoredFile]) -> bool:
    """Whether every file that this node knows is there, as it knows it."""
    if all(digests.get(path) == file.digest for path, file in stored.items()):
        return True
    known = {path: (*base.files.get(path, ()), *base.taken.get(path, ())) for path in stored}
    return any(known.values()) and all(
        digests.get(path) in (*seen, stored[path].digest) for path, seen in known.items() if seen
    )


def _lacks(missing: list[str]) -> str:
    if not missing:
        return ""
    more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
    return f", and so is {missing[0]}{more} that the store knows"
