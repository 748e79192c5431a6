"""When something that is missing from the directory means that a person deleted it (SAFETY rule 19).

Only if this node took the file before, the scan was complete, the directory is the right one, no git command
is at work, the absence lasted, and not suspiciously much is gone at once: else it is held until somebody says
`vcl confirm`. What `vcl delete` asked for needs none of this: a person named the object.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256

from reconciler.planning.admission import FINALISED_KINDS, terminate
from reconciler.planning.manifest_standing import Standings
from reconciler.planning.manifest_values import (
    SETTLE_SECONDS,
    Absences,
    Held,
    ObjectKey,
    Standing,
    SyncView,
    Write,
)
from reconciler.resources import keys
from reconciler.resources.records import Source, dump

UNTAKEN = "untaken"
"""Instead of the digest of a source: nothing was taken from the file yet."""

FEW = 3
"""So many deletions at once need no confirmation, as long as something is left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletions:
    """`notes`: why an object without a file is still there."""

    writes: tuple[Write, ...] = ()
    held: Held | None = None
    again: float | None = None
    notes: Mapping[ObjectKey, str] = field(default_factory=dict)


def note_absences(view: SyncView, standings: Standings) -> Absences:
    """What is missing now, and since when. A scan that cannot be trusted starts the count again."""
    if not view.trusted:
        return Absences()
    now = view.moment.monotonic
    present = {file.path for file in view.files}
    living = {key: stored for key, stored in view.store.objects.items() if stored.from_file}
    paths = set(view.store.files) | {stored.record.source.path for stored in living.values()}
    return Absences(
        objects={
            key: view.absences.objects.get(key, now)
            for key in sorted(living)
            if not standings.definers.get(key)
        },
        files={path: view.absences.files.get(path, now) for path in sorted(paths - present)},
    )


def plan_deletions(view: SyncView, standings: Standings, absences: Absences) -> Deletions:
    """What is deleted now, what is held, and what is kept although its file is missing."""
    asked = {
        key
        for key in view.asked.deletions
        if key in view.store.objects
        and not view.store.objects[key].terminating
        and not standings.definers.get(key)
    }
    kept = {
        key: note
        for key in absences.objects
        if key not in asked and (note := _kept(key, view, standings)) is not None
    }
    notes = {key: note for key, note in kept.items() if _lasted(absences.objects[key], view)}
    candidates = [key for key in absences.objects if key not in asked and key not in kept]
    again = _remaining((absences.objects[key] for key in candidates), view)
    held = _guard(candidates, len(asked), view) if again is None else None
    if held is not None:
        notes |= dict.fromkeys(held.objects, f"its manifest is gone; {held.reason}")
    passed = set() if held or again is not None else set(candidates)
    gone = frozenset(asked | passed)
    waiting = _remaining((absences.files[path] for path in absences.files), view)
    return Deletions(
        writes=_writes(view, standings, absences, gone),
        held=held,
        again=again if again is not None else waiting,
        notes=notes,
    )


def _kept(key: ObjectKey, view: SyncView, standings: Standings) -> str | None:
    """Why a missing object is not even a candidate for deletion."""
    path = view.store.objects[key].record.source.path
    if key in standings.mentioned:
        return f"{path} no longer defines it, and {standings.mentioned[key]}, which is not valid, may do"
    if any(file.path == path for file in view.files):
        if path in view.base.mine:
            return None
        return (
            f"{path} no longer defines it; the node on which it was taken out deletes it, and if that node "
            "does not come back, vcl delete does"
        )
    if not _materialised(path, view):
        return (
            f"its file {path} is missing, but this node never had that file in this directory, so it is no "
            "deletion; put the file back, or delete the object with vcl delete"
        )
    return None


def _materialised(path: str, view: SyncView) -> bool:
    """Whether this node had the file, with the bytes that the store has."""
    stored = view.store.files.get(path)
    digests = view.base.files.get(path, ())
    return bool(digests) and (stored is None or stored.digest in digests)


def _lasted(since: float, view: SyncView) -> bool:
    return view.moment.monotonic - since >= SETTLE_SECONDS


def _remaining(since: Iterable[float], view: SyncView) -> float | None:
    """Seconds until the youngest of these absences counts; None when all do."""
    left = max((SETTLE_SECONDS - (view.moment.monotonic - moment) for moment in since), default=0.0)
    return left if left > 0 else None


def _guard(candidates: list[ObjectKey], asked: int, view: SyncView) -> Held | None:
    """The mass-delete guard: half of everything, or all of it, is more likely an accident."""
    total = sum(stored.from_file for stored in view.store.objects.values()) - asked
    count = len(candidates)
    many = (count > FEW and 2 * count >= total) or (count >= 2 and count == total)
    if not many:
        return None
    ident = sha256("\n".join(str(key) for key in candidates).encode()).hexdigest()[:8]
    if ident in view.asked.confirmed:
        return None
    return Held(
        id=ident,
        objects=tuple(candidates),
        reason=(
            f"{count} of {total} objects would be deleted at once; put the files back, "
            f"or let them go with: vcl confirm {ident}"
        ),
    )


def _writes(
    view: SyncView, standings: Standings, absences: Absences, gone: frozenset[ObjectKey]
) -> tuple[Write, ...]:
    """One write for each file: its key goes with the last object that came from it."""
    left, leaving = _tenants(view, standings, gone)
    old_enough = {
        path for path, since in absences.files.items() if _lasted(since, view) and _materialised(path, view)
    }
    present = {file.path for file in view.files}
    writes = []
    for path in sorted(set(leaving) | old_enough):
        asked = bool(leaving.get(path)) and all(key in view.asked.deletions for key in leaving[path])
        heirs = _heirs(left[path], standings)
        drop = path not in present and heirs is not None and (path in old_enough or asked)
        drop = drop and path in view.store.files and not view.store.unreadable
        write = _write(path, leaving.get(path, []), view, drop=drop)
        if drop and heirs:
            write = _inherit(write, heirs, view)
        if write.puts or write.deletes:
            writes.append(write)
    return tuple(writes)


def _tenants(
    view: SyncView, standings: Standings, gone: frozenset[ObjectKey]
) -> tuple[dict[str, list[ObjectKey]], dict[str, list[ObjectKey]]]:
    """Of each path: which objects still belong to it after this plan, and which leave."""
    left: dict[str, list[ObjectKey]] = defaultdict(list)
    leaving: dict[str, list[ObjectKey]] = defaultdict(list)
    for key in sorted(view.store.objects):
        stored = view.store.objects[key]
        path = stored.record.source.path
        if key in gone:
            leaving[path].append(key)
        elif not stored.terminating and not _moves(key, path, standings):
            left[path].append(key)
    return left, leaving


def _moves(key: ObjectKey, path: str, standings: Standings) -> bool:
    """Whether another file takes the object over in this very plan."""
    definers = standings.definers.get(key, ())
    if len(definers) != 1 or definers[0] == path:
        return False
    verdict = standings.verdicts.get(definers[0])
    return verdict is not None and verdict.standing is Standing.GOOD


def _heirs(tenants: list[ObjectKey], standings: Standings) -> dict[ObjectKey, str] | None:
    """For each object that a file leaves behind another file that defines it (several may, and block each
    other); None when there is none for one of them, so that the file has to stay."""
    heirs = {key: standings.definers.get(key, ()) for key in tenants}
    return {key: paths[0] for key, paths in heirs.items() if paths} if all(heirs.values()) else None


def _inherit(write: Write, heirs: Mapping[ObjectKey, str], view: SyncView) -> Write:
    """Hand objects over to other files without taking anything from these: the objects stay as they are."""
    compares, puts = dict(write.compares), dict(write.puts)
    for key, path in heirs.items():
        stored = view.store.objects[key]
        spec = keys.spec(key.kind, key.name)
        compares[spec] = stored.revision
        puts[spec] = dump(replace(stored.record, source=Source(path=path, digest=UNTAKEN)))
    return replace(write, compares=compares, puts=puts)


def _write(path: str, leaving: list[ObjectKey], view: SyncView, *, drop: bool) -> Write:
    compares: dict[str, int] = {}
    puts: dict[str, bytes] = {}
    deletes: set[str] = set()
    reasons = []
    if drop:
        compares[keys.manifest(path)] = view.store.files[path].revision
        deletes.add(keys.manifest(path))
    for key in leaving:
        stored = view.store.objects[key]
        spec = keys.spec(key.kind, key.name)
        compares[spec] = stored.revision
        purge = view.asked.deletions.get(key, False)
        if key.kind in FINALISED_KINDS:
            puts[spec] = dump(terminate(stored.record, purge=purge, moment=view.moment))
        else:
            deletes.add(spec)
        why = "vcl delete" if key in view.asked.deletions else f"{path} no longer defines it"
        reasons.append(f"{key}: deleted: {why}")
    return Write(compares=compares, puts=puts, deletes=frozenset(deletes), reasons=tuple(reasons))
