"""Is this the directory that the node knows? A marker file with an id answers (SAFETY rule 19).

An unmounted or exchanged directory looks like one whose files were all deleted. So nothing is read from a
directory without the marker, and the marker is made only when no file that the store knows would be missing.
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
    if not base.marker and not missing:
        return Create()
    if base.marker and stored and all(digests.get(path) == file.digest for path, file in stored.items()):
        return Create(marker=base.marker)
    marker = base.marker or "any id"
    return Refuse(
        problem=(
            f"the file {MARKER_FILE} is missing{_lacks(missing)}, so this may be the wrong directory (is it "
            f"mounted?), and nothing in it is followed; if it is the right one, write {marker} into that file"
        )
    )


def _lacks(missing: list[str]) -> str:
    if not missing:
        return ""
    more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
    return f", and so is {missing[0]}{more} that the store knows"
