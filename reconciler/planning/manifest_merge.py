"""Where the directory and the store differ, whose bytes count: a three-way merge for each path.

The base is what this node saw in both places last. The invariant: bytes are replaced or removed only when
they came from the store; a user's bytes that lose are kept beside the file first; and what this node merely
meant to write never counts as something that a user changed or removed (SAFETY rule 19).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from reconciler.planning.manifest_values import SETTLE_SECONDS, StoredFile
from reconciler.resources.scans import Base, ManifestFile, Scan


class Difference(StrEnum):
    """What is to be done about a path."""

    SAME = "same"
    PUSH = "push"
    """A user saved it here: the store is to have it."""
    DELETED = "deleted"
    """A user seems to have removed it here: what the deletion plan decides about."""
    PULL = "pull"
    """The store's bytes go into the directory."""
    REMOVE = "remove"
    """It was removed on another node."""
    CONFLICT = "conflict"
    """Saved here and elsewhere: the store's bytes count, ours are kept beside them."""
    UNKNOWN = "unknown"
    """It is there and could not be read."""


class Side(StrEnum):
    """Whose bytes count for a path."""

    DIRECTORY = "directory"
    STORE = "store"
    NEITHER = "neither"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A change of the directory. `expect`: the digest of what is there, None for nothing; `aside`: those
    bytes are kept beside the file first."""

    path: str
    expect: str | None
    remove: bool = False
    aside: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Merge:
    """`base` is to be saved before the `steps`. `blocked`: why a path cannot be as in the store; `again`:
    look once more after so many seconds. `waiting`: there are steps, and it is no time for them."""

    sides: Mapping[str, Side]
    steps: tuple[Step, ...]
    base: Base
    blocked: Mapping[str, str] = field(default_factory=dict)
    again: float | None = None
    waiting: bool = False

    @property
    def foreign(self) -> frozenset[str]:
        """The paths that count as the store has them."""
        return frozenset(path for path, side in self.sides.items() if side is Side.STORE)


_SIDES = {
    Difference.SAME: Side.DIRECTORY,
    Difference.PUSH: Side.DIRECTORY,
    Difference.UNKNOWN: Side.DIRECTORY,
    Difference.PULL: Side.STORE,
    Difference.CONFLICT: Side.STORE,
    Difference.REMOVE: Side.NEITHER,
    Difference.DELETED: Side.NEITHER,
}


def differ(
    here: str | None, stored: str | None, given: tuple[str, ...], taken: tuple[str, ...]
) -> Difference:
    """Judge one path by digests; None: not there. `given` and `taken` are the base's `files` and `taken`."""
    if here == stored:
        return Difference.SAME
    if here is None:
        return Difference.DELETED if stored in given else Difference.PULL
    if stored is None:
        return Difference.REMOVE if here in taken else Difference.PUSH
    if here in taken and here not in given:
        return Difference.PULL  # we put it there, and the store has moved on
    if stored in given and stored not in taken:
        return Difference.PUSH  # we gave it to the store, and a user has saved since
    if here in taken:
        return Difference.PULL
    if stored in given:
        return Difference.PUSH
    return Difference.CONFLICT


def merge(
    scan: Scan,
    stored: Mapping[str, StoredFile],
    base: Base,
    ages: Mapping[str, float],
    *,
    wait: bool = False,
) -> Merge:
    """Decide about every path. `ages`: seconds since the bytes in the directory were first seen; `wait`: do
    nothing to the directory now."""
    here = {file.path: file for file in scan.files}
    sides: dict[str, Side] = {}
    steps: list[Step] = []
    blocked: dict[str, str] = {}
    unsettled = []
    for path in sorted(here.keys() | stored.keys()):
        difference = _difference(here.get(path), path in scan.ignored, stored.get(path), path, base)
        sides[path] = _SIDES[difference]
        step = _step(path, difference, here.get(path))
        if path in scan.ignored and path in stored:
            sides[path] = Side.STORE
            blocked[path] = f"{path} is not as in the store: it {scan.ignored[path]}"
        elif step is not None and step.aside and ages.get(path, 0.0) < SETTLE_SECONDS:
            unsettled.append(SETTLE_SECONDS - ages.get(path, 0.0))  # a user may still be writing
        elif step is not None:
            steps.append(step)
    waiting, steps = wait and bool(steps), [] if wait else steps
    return Merge(
        sides=sides,
        steps=tuple(steps),
        waiting=waiting,
        base=_taking(base, steps, stored),
        blocked=blocked,
        again=max(min(unsettled), 0.05) if unsettled else None,
    )


def agreed(base: Base, digests: Mapping[str, str]) -> Base:
    """The base after the store has taken these bytes (path -> digest) from the directory."""
    known = {path: (digest,) for path, digest in digests.items()}
    return replace(
        base,
        files={**base.files, **known},
        taken={**base.taken, **known},
        mine=tuple(sorted({*base.mine, *known})),
    )


def forget(base: Base, paths: Collection[str]) -> Base:
    """The base after files were removed on both sides: whatever is saved there from now on is a user's."""
    return replace(
        base,
        files={path: digests for path, digests in base.files.items() if path not in paths},
        taken={path: digests for path, digests in base.taken.items() if path not in paths},
        mine=tuple(path for path in base.mine if path not in paths),
    )


def _difference(
    here: ManifestFile | None, ignored: bool, stored: StoredFile | None, path: str, base: Base
) -> Difference:
    if here is not None and here.data is None:
        return Difference.UNKNOWN
    if here is None and ignored:
        return Difference.UNKNOWN
    return differ(
        here.digest if here is not None else None,
        stored.digest if stored is not None else None,
        base.files.get(path, ()),
        base.taken.get(path, ()),
    )


def _step(path: str, difference: Difference, here: ManifestFile | None) -> Step | None:
    expect = here.digest if here is not None else None
    match difference:
        case Difference.PULL:
            return Step(path=path, expect=expect)
        case Difference.REMOVE:
            return Step(path=path, expect=expect, remove=True)
        case Difference.CONFLICT:
            return Step(path=path, expect=expect, aside=True)
        case _:
            return None


def _taking(base: Base, steps: list[Step], stored: Mapping[str, StoredFile]) -> Base:
    """The base that names bytes before they are written: a crash in between must neither make them look like
    a user's, nor their absence like a deletion."""
    files, taken = dict(base.files), dict(base.taken)
    for step in steps:
        if step.remove:
            files.pop(step.path, None)
            continue
        path, digest = step.path, stored[step.path].digest
        known = files.get(path, ())
        kept = [d for d in taken.get(path, ()) if d != digest and (d == step.expect or d in known)]
        taken[path] = (*kept, digest)
        files[path] = tuple(d for d in known if d != digest)
        if not files[path]:
            del files[path]
    written = {step.path for step in steps}
    return replace(
        base, files=files, taken=taken, mine=tuple(path for path in base.mine if path not in written)
    )
