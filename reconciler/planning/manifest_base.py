"""What a node remembers of its manifest directory, and when it changes.

The invariant: what is written to the store is named here before, so that a crash between the two cannot make
a later deletion look like that of a file that was never here; and what was only meant to be written is never
mistaken for something that was seen.
"""

from __future__ import annotations

from collections.abc import Iterable

from reconciler.planning.manifest_values import SyncView, Write
from reconciler.resources import keys
from reconciler.resources.scans import Base


def update_base(view: SyncView, paths: Iterable[str], deletions: Iterable[Write]) -> Base:
    """The base to save before a plan is written. `paths`: the files that the store is to have as they are in
    the directory; `deletions`: what the plan deletes."""
    here = {file.path: file.digest for file in view.files if file.data is not None}
    files, taken, mine = dict(view.base.files), dict(view.base.taken), set(view.base.mine)
    _prune(view, files, taken, mine)
    for path in sorted(here.keys() - view.foreign):
        stored, digest = view.store.files.get(path), here[path]
        if stored is not None and stored.digest == digest:
            if digest in files.get(path, ()) and digest not in taken.get(path, ()):
                mine.add(path)
            files[path] = taken[path] = (digest,)
    for path in paths:
        if path not in view.foreign:
            _offer(view, path, here[path], files, taken, mine)
    for write in deletions:
        for path in (keys.manifest_path(key) for key in write.deletes if key.startswith(keys.MANIFESTS)):
            taken.pop(path, None)  # whatever is there after this is a user's, even the very same bytes
    return Base(
        marker=view.base.marker,
        files=files,
        taken=taken,
        mine=tuple(sorted(mine)),
        cluster=view.base.cluster,
        revision=view.base.revision,
    )


def _prune(
    view: SyncView, files: dict[str, tuple[str, ...]], taken: dict[str, tuple[str, ...]], mine: set[str]
) -> None:
    """Forget paths that are nowhere any more. A file that may only be hidden (the scan was not complete) and
    that the store dropped is still to be removed when it shows, so what was taken is kept until then."""
    known = {file.path for file in view.files} | {file.path for file in view.scan.files}
    known |= view.store.files.keys()
    for path in (files.keys() | taken.keys() | mine) - known:
        files.pop(path, None)
        mine.discard(path)
        if view.trusted:
            taken.pop(path, None)


def _offer(
    view: SyncView,
    path: str,
    digest: str,
    files: dict[str, tuple[str, ...]],
    taken: dict[str, tuple[str, ...]],
    mine: set[str],
) -> None:
    """Note bytes that the store is about to get, unless it has them."""
    stored = view.store.files.get(path)
    if stored is not None and stored.digest == digest:
        return
    known = tuple(d for d in files.get(path, ()) if stored is not None and d == stored.digest)
    files[path] = known if digest in known else (*known, digest)
    taken[path] = tuple(d for d in taken.get(path, ()) if d != digest)
    if not taken[path]:
        del taken[path]
    mine.add(path)
