"""Which file stands for which object: valid, broken, clashing with another, waiting.

Invalid is not absent: a blocked file keeps every object that the store took from it. Two files that define
one object block each other, and both name the other; nothing of either is taken until one gives way.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from reconciler.planning.manifest_values import (
    SETTLE_SECONDS,
    FileVerdict,
    FileView,
    ObjectKey,
    Standing,
    SyncView,
)

Owned = Mapping[str, frozenset[ObjectKey]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Standings:
    """`verdicts` by path; `definers`: the files that define an object, or did when they were last good;
    `mentioned`: objects that a file which is not valid may define."""

    verdicts: Mapping[str, FileVerdict]
    definers: Mapping[ObjectKey, tuple[str, ...]]
    mentioned: Mapping[ObjectKey, str]
    clashes: Mapping[ObjectKey, tuple[str, ...]] = field(default_factory=dict)


def owned_by_path(view: SyncView) -> dict[str, frozenset[ObjectKey]]:
    """What the store took from each file; objects that are being deleted belong to none any more."""
    found: dict[str, set[ObjectKey]] = defaultdict(set)
    for key, stored in view.store.objects.items():
        if not stored.terminating:
            found[stored.record.source.path].add(key)
    return {path: frozenset(keys) for path, keys in found.items()}


def judge(view: SyncView) -> Standings:
    """Judge every file of the scan against the others and against the store."""
    owned = owned_by_path(view)
    definers, clashes = _claims(view.files, owned)
    ages = {file.path: file.age for file in view.files}
    return Standings(
        verdicts={file.path: _verdict(file, view, owned, clashes, ages) for file in view.files},
        definers=definers,
        mentioned=_mentioned(view, definers),
        clashes=clashes,
    )


def _mentioned(view: SyncView, definers: Mapping[ObjectKey, tuple[str, ...]]) -> dict[ObjectKey, str]:
    """Objects without a file that a file which is not valid seems to define: it may have been renamed and
    broken in one go (a merge conflict)."""
    unclear = [file for file in view.files if not file.valid]
    found: dict[ObjectKey, str] = {}
    if not unclear:
        return found
    for key, stored in sorted(view.store.objects.items()):
        if not stored.from_file or definers.get(key):
            continue
        named = re.compile(
            rb"\bname[\"']?\s*:\s*[\"']?" + re.escape(key.name.encode()) + rb"(?![A-Za-z0-9.-])"
        )
        for file in unclear:
            if key in file.mentions or (file.data is not None and named.search(file.data)):
                found.setdefault(key, file.path)
    return found


def _claims(
    files: Iterable[FileView], owned: Owned
) -> tuple[dict[ObjectKey, tuple[str, ...]], dict[ObjectKey, tuple[str, ...]]]:
    """Definers and clashes of every object. A file that clashes falls back to what it defined before, which
    may clash in turn: repeat until nothing new is blocked (at most once for each file)."""
    files = list(files)
    blocked = {file.path for file in files if not file.valid}
    while True:
        found: dict[ObjectKey, set[str]] = defaultdict(set)
        for file in files:
            if file.valid:
                for manifest in file.manifests:
                    found[manifest.key].add(file.path)
            if file.path in blocked:
                for key in owned.get(file.path, frozenset()):
                    found[key].add(file.path)
        clashes = {key: tuple(sorted(paths)) for key, paths in sorted(found.items()) if len(paths) > 1}
        fresh = {path for paths in clashes.values() for path in paths} - blocked
        if not fresh:
            return {key: tuple(sorted(paths)) for key, paths in found.items()}, clashes
        blocked |= fresh


def _verdict(
    file: FileView,
    view: SyncView,
    owned: Owned,
    clashes: Mapping[ObjectKey, tuple[str, ...]],
    ages: Mapping[str, float],
) -> FileVerdict:
    kept = owned.get(file.path, frozenset())
    objects = tuple(sorted({m.key for m in file.manifests} if file.valid else kept | file.mentions))
    if not file.valid:
        settling = file.age < SETTLE_SECONDS
        standing = Standing.SETTLING if settling else Standing.BROKEN
        return FileVerdict(path=file.path, standing=standing, objects=objects, problems=file.problems)
    mine = {key: paths for key, paths in clashes.items() if file.path in paths}
    if mine:
        young = any(ages[path] < SETTLE_SECONDS for paths in mine.values() for path in paths)
        standing = Standing.SETTLING if young else Standing.CLASHING
        return FileVerdict(
            path=file.path,
            standing=standing,
            objects=objects,
            problems=tuple(_clash(file, key, paths, view) for key, paths in sorted(mine.items())),
        )
    waiting = _waiting(file, view)
    if waiting:
        return FileVerdict(path=file.path, standing=Standing.WAITING, objects=objects, waiting=waiting)
    return FileVerdict(path=file.path, standing=Standing.GOOD, objects=objects)


def _clash(file: FileView, key: ObjectKey, paths: tuple[str, ...], view: SyncView) -> str:
    line = next((m.line for m in file.manifests if m.key == key), 1)
    stored = view.store.objects.get(key)
    keeps = ""
    if stored is not None and not stored.terminating:
        keeps = f" ({key.name} stays as it was last taken from {stored.record.source.path})"
    return (
        f"{file.path}:{line}: {key} is defined by {_and(paths)}: neither change is taken{keeps}; "
        "remove it from all but one of them"
    )


def _waiting(file: FileView, view: SyncView) -> str:
    """Why a valid file has to wait, or nothing."""
    for manifest in file.manifests:
        key = manifest.key
        if key in view.store.unreadable:
            return f"the store's record of {key} was written by another version of vcl and cannot be read"
        stored = view.store.objects.get(key)
        if stored is None:
            continue
        if stored.terminating:
            return f"{key} is still being deleted; the file is taken when that has ended"
        old = stored.record.source.path
        if old and old != file.path and not _gave_up(old, view):
            return f"{key} was taken from {old}; it moves here when that file has surely gone"
    return ""


def _gave_up(path: str, view: SyncView) -> bool:
    """Whether a file that is not in the scan has been gone for long enough for another to take over."""
    if any(file.path == path for file in view.files):
        return True
    since = view.absences.files.get(path)
    return view.trusted and since is not None and view.moment.monotonic - since >= SETTLE_SECONDS


def _and(paths: tuple[str, ...]) -> str:
    return ", ".join(paths[:-1]) + " and " + paths[-1] if len(paths) > 1 else paths[0]
