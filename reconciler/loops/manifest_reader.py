"""From a scan and the node's copy of the store to the view that the sync is planned from.

What has not changed is not parsed, hashed or decoded again: a rescan of 1,000 files costs milliseconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import replace
from hashlib import sha256

from reconciler.loops.views import Views
from reconciler.planning.manifest_apply import stored_problem
from reconciler.planning.manifest_merge import Side, Step
from reconciler.planning.manifest_parsed import ParseFile, file_view, unreadable
from reconciler.planning.manifest_values import (
    FileView,
    ObjectKey,
    StoredFile,
    StoredIntent,
    StoredObject,
    StoreView,
)
from reconciler.resources import keys
from reconciler.resources.kinds import Kind
from reconciler.resources.records import Intent, SpecRecord
from reconciler.resources.scans import ManifestFile, Scan
from reconciler.resources.status import ManifestStatus

PARSED_BEFORE_YIELDING = 10
"""After so many files the event loop gets a turn: parsing is the only long work on its thread."""


def digest(data: bytes) -> str:
    """How bytes are compared: the same digest as a scan's."""
    return sha256(data).hexdigest()


_Since = dict[str, tuple[str, float]]
"""By path: what it holds, and since when (monotonic seconds)."""


class ManifestReader:
    """Remembers parsed files by digest, and since when it has seen them. `refused`: what the store has and no
    directory can hold, path -> why."""

    def __init__(self, parse: ParseFile, views: Views) -> None:
        self._parse = parse
        self._views = views
        self._files: dict[str, FileView] = {}
        self._since: _Since = {}
        self._here: _Since = {}
        self.refused: dict[str, str] = {}
        self._digests: dict[str, StoredFile] = {}

    def contents(self, steps: Iterable[Step]) -> dict[str, bytes]:
        """The store's bytes that these steps write, as of now."""
        items = ((step.path, self._views.cache.get(keys.manifest(step.path))) for step in steps)
        return {path: item.value for path, item in items if item is not None}

    def ages(self, scan: Scan, now: float) -> dict[str, float]:
        """For how many seconds each file of the scan has held what it holds at `now` (monotonic seconds)."""
        self._here = _since(self._here, scan.files, now)
        return {path: now - since for path, (_, since) in self._here.items()}

    async def files(self, scan: Scan, sides: Mapping[str, Side], now: float) -> tuple[FileView, ...]:
        """Every file that counts, the directory's or the store's, parsed, with its age at `now`."""
        chosen = self._chosen(scan, sides)
        found: dict[str, FileView] = {}
        parsed = 0
        for file in chosen:
            view = self._files.get(file.path)
            if view is None or view.digest != file.digest or view.data is None:
                view = self._view(file)
                parsed += 1
                if parsed % PARSED_BEFORE_YIELDING == 0:
                    await asyncio.sleep(0)
            found[file.path] = view
        self._files, self._since = found, _since(self._since, chosen, now)
        return tuple(replace(view, age=now - self._since[path][1]) for path, view in sorted(found.items()))

    def _chosen(self, scan: Scan, sides: Mapping[str, Side]) -> list[ManifestFile]:
        here = {file.path: file for file in scan.files}
        chosen = []
        for path, side in sides.items():
            if side is Side.DIRECTORY and path in here:
                chosen.append(here[path])
            elif side is Side.STORE:
                item = self._views.cache.get(keys.manifest(path))
                if item is not None:
                    chosen.append(ManifestFile(path=path, data=item.value, digest=self._digests[path].digest))
        return chosen

    def parse(self, path: str, data: bytes) -> FileView:
        """Bytes that are not in the directory (yet)."""
        return file_view(self._parse(path, data), digest=digest(data), data=data)

    def store(self) -> StoreView:
        """What the node's copy of the store says about manifests."""
        objects: dict[ObjectKey, StoredObject] = {}
        unreadable_keys = set()
        for item in self._views.cache.prefix(keys.SPECS):
            key = _object_key(item.key, keys.SPECS)
            if key is None:
                continue
            record = self._views.record(item.key, SpecRecord)
            if record is None:
                unreadable_keys.add(key)
            else:
                objects[key] = StoredObject(record=record, revision=item.revision)
        return StoreView(
            files=self._stored_files(),
            objects=objects,
            intents=self._intents(),
            statuses=self._statuses(),
            unreadable=frozenset(unreadable_keys),
        )

    def _view(self, file: ManifestFile) -> FileView:
        if file.data is None:
            return unreadable(file.path, file.error or f"{file.path} cannot be read")
        return file_view(self._parse(file.path, file.data), digest=file.digest, data=file.data)

    def _stored_files(self) -> dict[str, StoredFile]:
        fresh: dict[str, StoredFile] = {}
        refused: dict[str, str] = {}
        for item in self._views.cache.prefix(keys.MANIFESTS):
            path = keys.manifest_path(item.key)
            known = self._digests.get(path)
            if known is None or known.revision != item.revision:
                why = stored_problem(item.key, len(item.value))
                if why:
                    refused[path] = why
                    continue
                known = StoredFile(digest=digest(item.value), revision=item.revision)
            fresh[path] = known
        self._digests, self.refused = fresh, refused
        return fresh

    def _intents(self) -> dict[ObjectKey, StoredIntent]:
        found = {}
        prefix = f"{keys.INTENTS}{Kind.VIRTUAL_MACHINE}/"
        for item in self._views.cache.prefix(prefix):
            intent = self._views.record(item.key, Intent)
            if intent is not None:
                key = ObjectKey(Kind.VIRTUAL_MACHINE, item.key.removeprefix(prefix))
                found[key] = StoredIntent(intent=intent, revision=item.revision)
        return found

    def _statuses(self) -> dict[ObjectKey, ManifestStatus]:
        found = {}
        for item in self._views.cache.prefix(keys.MANIFEST_STATUS):
            key = _object_key(item.key, keys.MANIFEST_STATUS)
            status = self._views.record(item.key, ManifestStatus)
            if key is not None:
                found[key] = status or ManifestStatus(valid=False)
        return found


def _since(before: _Since, files: Iterable[ManifestFile], now: float) -> _Since:
    found = {}
    for file in files:
        identity = file.digest or file.error
        last = before.get(file.path)
        found[file.path] = last if last is not None and last[0] == identity else (identity, now)
    return found


def _object_key(key: str, prefix: str) -> ObjectKey | None:
    found = keys.split_object(key, prefix)
    return ObjectKey(*found) if found is not None else None
