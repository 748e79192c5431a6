"""Which file an input of `vcl apply` becomes, and what that makes of each object.

The invariant: applying an input changes only the objects that it names. A file is replaced as a whole, so an
input that would drop another object of that file, or that is spread over several files, is refused.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from reconciler.planning.manifest_values import FileView, Manifest, ObjectKey, StoreView
from reconciler.resources import keys
from reconciler.resources.manifesttext import MAX_BYTES
from reconciler.resources.records import dump

MAX_DEPTH = 16
"""Directories that a manifest may be nested in."""
MAX_NAME = 255
"""Bytes that a file's name has at most."""

SUFFIXES = (".yaml", ".yml", ".json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where to write, and the digest of what is there now (None: nothing)."""

    path: str
    expect: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why an input is not taken, and what to do."""

    message: str


Choice: TypeAlias = Target | Refusal


class Effect(StrEnum):
    """What taking a document makes of its object."""

    CREATED = "created"
    CONFIGURED = "configured"
    UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """The directory and the store, as `choose` looks at them. `definers`: the valid files that define an
    object; `taken`: object -> the input of the same call that defines it already."""

    files: Mapping[str, FileView]
    store: StoreView
    definers: Mapping[ObjectKey, frozenset[str]] = field(default_factory=dict)
    taken: Mapping[ObjectKey, str] = field(default_factory=dict)

    def defined_in(self, path: str) -> frozenset[ObjectKey]:
        """What would be lost if the file went away."""
        file = self.files.get(path)
        if file is not None and file.valid:
            return frozenset(manifest.key for manifest in file.manifests)
        kept = {
            key
            for key, stored in self.store.objects.items()
            if stored.from_file and stored.record.source.path == path
        }
        return frozenset(kept | (file.mentions if file is not None else frozenset()))

    def paths_of(self, key: ObjectKey) -> frozenset[str]:
        """The files that define the object, or did when they were last good."""
        found = set(self.definers.get(key, frozenset()))
        stored = self.store.objects.get(key)
        if stored is not None and stored.from_file:
            source = stored.record.source.path
            file = self.files.get(source)
            if (file is None and not found) or (file is not None and not file.valid):
                found.add(source)
        return frozenset(found)


def index(files: Iterable[FileView]) -> dict[ObjectKey, frozenset[str]]:
    """The valid files that define each object."""
    found: dict[ObjectKey, set[str]] = defaultdict(set)
    for file in files:
        for manifest in file.manifests if file.valid else ():
            found[manifest.key].add(file.path)
    return {key: frozenset(paths) for key, paths in found.items()}


def choose(manifests: tuple[Manifest, ...], source: str, path: str | None, places: Places) -> Choice:
    """The file for an input that was found valid. `path`: where the user wants it, None to choose."""
    wanted = sorted({manifest.key for manifest in manifests})
    if not wanted:
        return Refusal(message="it defines no object; a manifest needs apiVersion, kind, metadata and spec")
    refusal = _refuse_objects(wanted, places)
    if refusal is not None:
        return refusal
    holders = {key: places.paths_of(key) for key in wanted}
    paths = sorted({holder for found in holders.values() for holder in found})
    if path is not None:
        return _explicit(path, paths, places)
    if len(paths) > 1:
        where = ", ".join(f"{key.name} in {holder}" for key in wanted for holder in sorted(holders[key]))
        return Refusal(
            message=f"its objects are defined in several files ({where}); apply them one file at a time"
        )
    if not paths:
        return _fresh(manifests[0].key, source, wanted, places)
    return _replace(paths[0], wanted, places)


def effect(manifest: Manifest, store: StoreView) -> Effect:
    """What taking the document makes of the object; comments and order change nothing."""
    stored = store.objects.get(manifest.key)
    if stored is None:
        return Effect.CREATED
    before = stored.record
    same = (
        dump(before.spec) == dump(manifest.spec)
        and before.metadata.labels == manifest.labels
        and before.metadata.annotations == manifest.annotations
    )
    return Effect.UNCHANGED if same else Effect.CONFIGURED


def default_path(key: ObjectKey, source: str, *, lower: bool = True) -> str:
    """`KIND-NAME.yaml`, lower case; `.json` for an input that is called so."""
    stem = f"{key.kind.value.lower()}-{key.name.lower() if lower else key.name}"
    return stem + (".json" if source.endswith(".json") else ".yaml")


def path_problem(path: str) -> str:
    """Why a file of this path would not be followed, or nothing."""
    parts = path.split("/")
    if path.startswith("/") or ".." in parts or "" in parts or "\0" in path:
        return f"{path!r} is not a path inside the manifest directory"
    if any(part.startswith(".") for part in parts):
        return f"{path!r}: names that start with a dot are not followed"
    if not counts(parts[-1]):
        return f"{path!r}: only *.yaml, *.yml and *.json are followed, and no *.conflict-* files"
    return ""


def conflict_name(name: str, node: str, number: int) -> str:
    """What a file is called that keeps what lost against `name` on a node: `web.conflict-r1.yaml`, then
    `web.conflict-r1-2.yaml`. A name of 255 bytes is cut to make room."""
    stem, dot, suffix = name.rpartition(".")
    more = f".conflict-{node}{'' if number == 1 else f'-{number}'}{dot}{suffix}"
    while len(f"{stem}{more}".encode(errors="surrogateescape")) > MAX_NAME:
        stem = stem[:-1]
    return stem + more


def keeps_conflict(name: str) -> bool:
    """Whether a file of this name was made by `conflict_name`."""
    return ".conflict-" in name and name.endswith(SUFFIXES) and not name.startswith(".")


def stored_problem(key: str, size: int) -> str:
    """Why a file of the store, of `size` bytes, can be in no directory, or nothing: another version of vcl,
    or somebody by hand, may have written it."""
    path = keys.manifest_path(key)
    problem = path_problem(path)
    if problem:
        return problem
    if keys.manifest(path) != key:
        return f"{path!r} is not how vcl writes this path in the store"
    if path.count("/") > MAX_DEPTH:
        return f"{path!r} is nested deeper than {MAX_DEPTH} directories"
    if any(len(part.encode()) > MAX_NAME for part in path.split("/")):
        return f"{path!r} has a name of more than {MAX_NAME} bytes"
    return f"{path!r} is larger than a manifest may be" if size > MAX_BYTES else ""


def counts(name: str) -> bool:
    """Whether a file of this name is a manifest. Editors' backups and swap files are not."""
    return (
        name.endswith(SUFFIXES)
        and not name.startswith(".")
        and ".conflict-" not in name
        and name not in SUFFIXES
    )


def _refuse_objects(wanted: list[ObjectKey], places: Places) -> Refusal | None:
    for key in wanted:
        if key in places.taken:
            return Refusal(message=f"{key} is defined by {places.taken[key]} as well; keep one of them")
        if key in places.store.unreadable:
            return Refusal(message=f"the store's record of {key} is of another version of vcl")
        stored = places.store.objects.get(key)
        if stored is not None and stored.terminating:
            short = f"{key.kind.value.lower()}/{key.name}"
            return Refusal(
                message=f"{key} is being deleted; apply it again when that has ended "
                f"(vcl wait --for=delete {short})"
            )
    return None


def _explicit(path: str, paths: list[str], places: Places) -> Choice:
    problem = path_problem(path)
    if problem:
        return Refusal(message=problem)
    others = [other for other in paths if other != path and other in places.files]
    if others:
        return Refusal(message=f"its objects are defined in {', '.join(others)} already; change them there")
    return _target(path, places)


def _replace(path: str, wanted: list[ObjectKey], places: Places) -> Choice:
    lost = sorted(places.defined_in(path) - set(wanted))
    if lost:
        names = ", ".join(map(str, lost))
        return Refusal(
            message=f"{path}, which it would replace, also defines {names}; change {path} itself, with vcl "
            "edit or an editor, or apply all of its objects together"
        )
    return _target(path, places)


def _fresh(first: ObjectKey, source: str, wanted: list[ObjectKey], places: Places) -> Choice:
    path = default_path(first, source)
    if path in places.files and places.files[path].valid:
        path = default_path(first, source, lower=False)
    file = places.files.get(path)
    if file is None:
        return Target(path=path, expect=None)
    if not file.valid and not places.defined_in(path):
        return Refusal(message=f"{path} exists and cannot be understood; repair or remove it first")
    return _replace(path, wanted, places)


def _target(path: str, places: Places) -> Choice:
    file = places.files.get(path)
    if file is not None and file.data is None:
        return Refusal(message=f"{path} cannot be read: {'; '.join(file.problems)}")
    return Target(path=path, expect=file.digest if file is not None else None)
