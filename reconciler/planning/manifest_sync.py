"""From what is in the manifest directory to what the store should hold.

The invariant: a file's bytes and the objects derived from them change in one transaction, or not at all; and
every write compares the revisions that it was decided on, so a decision from a stale copy is taken again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from reconciler.planning.admission import admit, settle_intent
from reconciler.planning.manifest_base import update_base
from reconciler.planning.manifest_deletion import Deletions, note_absences, plan_deletions
from reconciler.planning.manifest_standing import Standings, judge, owned_by_path
from reconciler.planning.manifest_values import (
    SETTLE_SECONDS,
    Absences,
    FileVerdict,
    FileView,
    Manifest,
    ObjectKey,
    Standing,
    StoredObject,
    SyncPlan,
    SyncView,
    Write,
)
from reconciler.resources import keys
from reconciler.resources.records import SpecRecord, dump
from reconciler.resources.status import ManifestStatus

BATCH_FILES = 50
BATCH_BYTES = 2 * 2**20
STATUS_PROBLEMS = 20
"""No more problems than this are kept in an object's status; the file's report has all of them."""


def plan_sync(view: SyncView, *, batch: int = BATCH_FILES) -> SyncPlan:
    """Decide what to write; `batch`: the most files in one transaction."""
    if not view.ours:
        problem = view.scan.problem or "this is not the directory that the node knows"
        return SyncPlan(absences=Absences(), base=view.base, problem=problem)
    standings = judge(view)
    absences = note_absences(view, standings)
    deletions = plan_deletions(view, standings, absences)
    good = [file for file in view.files if standings.verdicts[file.path].standing is Standing.GOOD]
    blocked = [file for file in view.files if _shown(file, standings.verdicts[file.path], view)]
    takes = [write for file in good if (write := _take(file, view)) is not None]
    takes += [write for file in blocked if (write := _show(file, view)) is not None]
    statuses = _statuses(view, standings, deletions) if view.master else ()
    return SyncPlan(
        writes=_batches((*takes, *deletions.writes), batch),
        statuses=_batches(statuses, batch),
        verdicts=tuple(standings.verdicts[file.path] for file in view.files),
        absences=absences,
        base=update_base(view, [file.path for file in (*good, *blocked)], deletions.writes),
        held=deletions.held,
        again=_again(view, standings, deletions),
        problem=_problem(view),
    )


def _problem(view: SyncView) -> str:
    if not view.scan.complete:
        return view.scan.problem or "the directory could not be read completely"
    if view.scan.git_busy:
        return (
            "a git command is at work (.git/index.lock exists), so nothing is deleted, and nothing comes in "
            "from other nodes; if none runs, remove the lock file"
        )
    return ""


def _shown(file: FileView, verdict: FileVerdict, view: SyncView) -> bool:
    """Whether the other nodes are to have a file's bytes although nothing is taken from it: every directory
    is the same. One whose objects are on their way from another file comes with them."""
    match verdict.standing:
        case Standing.BROKEN | Standing.CLASHING:
            return file.data is not None
        case Standing.WAITING:
            olds = (view.store.objects.get(manifest.key) for manifest in file.manifests)
            return any(old is not None and old.terminating for old in olds)
        case _:
            return False


def _show(file: FileView, view: SyncView) -> Write | None:
    """The write that brings a file's bytes into the store, and nothing else."""
    stored = view.store.files.get(file.path)
    if file.data is None or (stored is not None and stored.digest == file.digest):
        return None
    key = keys.manifest(file.path)
    return Write(compares={key: stored.revision if stored else 0}, puts={key: file.data})


def _take(file: FileView, view: SyncView) -> Write | None:
    """The write that brings a good file into the store, or None when it is there already."""
    stored = view.store.files.get(file.path)
    same = stored is not None and stored.digest == file.digest
    before = {
        manifest.key: old
        for manifest in file.manifests
        if (old := view.store.objects.get(manifest.key)) is not None
    }
    if same and all(_derived(before.get(manifest.key), file) for manifest in file.manifests):
        return None
    key = keys.manifest(file.path)
    write = Write(compares={key: stored.revision if stored else 0})
    if not same and file.data is not None:
        write = replace(write, puts={key: file.data})
    for manifest in file.manifests:
        old = before.get(manifest.key)
        write = _take_object(write, manifest, file, old.record if old else None, view)
    return write


def _derived(stored: StoredObject | None, file: FileView) -> bool:
    """Whether the store's object was made from these bytes. The bytes alone do not say so: they may have come
    while the file was blocked."""
    if stored is None or stored.record.source.path != file.path:
        return False
    return stored.record.source.digest in ("", file.digest)


def _take_object(
    write: Write, manifest: Manifest, file: FileView, before: SpecRecord | None, view: SyncView
) -> Write:
    after = admit(manifest, file.path, before, view.moment)
    after = replace(after, source=replace(after.source, digest=file.digest))
    key = keys.spec(manifest.key.kind, manifest.key.name)
    stored = view.store.objects.get(manifest.key)
    compares = {**write.compares, key: stored.revision if stored else 0}
    if before is not None and dump(before) == dump(after):
        return replace(write, compares=compares)
    puts = {**write.puts, key: dump(after)}
    deletes = set(write.deletes)
    asked = view.store.intents.get(manifest.key)
    if asked is not None:
        intent_key = keys.intent(manifest.key.kind, manifest.key.name)
        rest = settle_intent(asked.intent, before, after)
        if rest is None:
            deletes.add(intent_key)
            compares[intent_key] = asked.revision
        elif rest != asked.intent:
            puts[intent_key] = dump(rest)
            compares[intent_key] = asked.revision
    reason = _reason(manifest.key, before, after)
    return Write(compares=compares, puts=puts, deletes=frozenset(deletes), reasons=(*write.reasons, *reason))


def _reason(key: ObjectKey, before: SpecRecord | None, after: SpecRecord) -> tuple[str, ...]:
    path = after.source.path
    if before is None:
        return (f"{key}: created from {path}",)
    if before.metadata.generation != after.metadata.generation:
        return (f"{key}: configured from {path}, generation {after.metadata.generation}",)
    if before.source.path != path:
        return (f"{key}: now defined by {path} instead of {before.source.path}",)
    if before.metadata != after.metadata:
        return (f"{key}: labels or annotations changed in {path}",)
    return ()


def _batches(writes: Iterable[Write], limit: int) -> tuple[Write, ...]:
    """Writes joined into transactions of a bounded size. Their keys are disjoint."""
    batches: list[list[Write]] = []
    size = 0
    for write in writes:
        weight = sum(map(len, write.puts.values()))
        if not batches or len(batches[-1]) >= limit or size + weight > BATCH_BYTES:
            batches.append([])
            size = 0
        batches[-1].append(write)
        size += weight
    return tuple(_join(batch) for batch in batches)


def _join(writes: list[Write]) -> Write:
    compares: dict[str, int] = {}
    puts: dict[str, bytes] = {}
    deletes: set[str] = set()
    for write in writes:
        compares.update(write.compares)
        puts.update(write.puts)
        deletes |= write.deletes
    reasons = tuple(reason for write in writes for reason in write.reasons)
    return Write(compares=compares, puts=puts, deletes=frozenset(deletes), reasons=reasons)


def _again(view: SyncView, standings: Standings, deletions: Deletions) -> float | None:
    """Seconds until something unsettled has settled."""
    waits = [deletions.again] if deletions.again is not None else []
    for file in view.files:
        if standings.verdicts[file.path].standing is Standing.SETTLING:
            waits.append(max(SETTLE_SECONDS - file.age, 0.05))
    return max(min(waits), 0.05) if waits else None


def _statuses(view: SyncView, standings: Standings, deletions: Deletions) -> tuple[Write, ...]:
    """What every object's manifest has to be told about, as the difference to what the store says."""
    wanted: dict[ObjectKey, ManifestStatus] = {}
    unsettled: set[ObjectKey] = set()
    owned = owned_by_path(view)
    for file in view.files:
        verdict = standings.verdicts[file.path]
        concerned = (owned.get(file.path, frozenset()) | set(verdict.objects)) & view.store.objects.keys()
        if verdict.standing is Standing.SETTLING:
            unsettled |= concerned
            continue
        for key in sorted(concerned):
            status = _status(key, file, view, standings)
            if status is not None and (key not in wanted or not status.valid):
                wanted[key] = status
    for key, note in deletions.notes.items():
        wanted.setdefault(key, ManifestStatus(valid=False, message=note))
    writes = []
    for key in sorted(wanted.keys() | view.store.statuses.keys()):
        if key in unsettled:
            continue
        before = view.store.statuses.get(key) if key in view.store.objects else None
        after = _dated(wanted.get(key), before, view.moment.wall)
        if after == view.store.statuses.get(key):
            continue
        name = keys.manifest_status(key.kind, key.name)
        if after is not None:
            writes.append(Write(puts={name: dump(after)}))
        else:
            writes.append(Write(deletes=frozenset({name})))
    return tuple(writes)


def _dated(wanted: ManifestStatus | None, before: ManifestStatus | None, now: str) -> ManifestStatus | None:
    """`wanted` with the time at which `valid` became what it is. Nothing is kept of an object that has always
    been valid and needs no remark; one that was not at some time keeps when it became so."""
    valid = wanted is None or wanted.valid
    if before is not None and before.valid == valid:
        since = before.since
    else:
        since = "" if before is None and valid else now
    if wanted is None and not since:
        return None
    return replace(wanted or ManifestStatus(valid=True), since=since)


def _status(key: ObjectKey, file: FileView, view: SyncView, standings: Standings) -> ManifestStatus | None:
    verdict = standings.verdicts[file.path]
    if verdict.standing is Standing.BROKEN and standings.definers.get(key, (file.path,)) != (file.path,):
        return None
    if verdict.standing in (Standing.BROKEN, Standing.CLASHING):
        problems = verdict.problems[:STATUS_PROBLEMS]
        head = problems[0].splitlines()[0] if problems else f"{file.path} is not valid"
        return ManifestStatus(valid=False, message=head, problems=problems)
    if verdict.standing is Standing.WAITING:
        return ManifestStatus(valid=True, message=f"{file.path}: {verdict.waiting}")
    remarks = sorted(view.remarks.get(key, ()), key=lambda remark: not remark.severe)
    texts = (*(remark.text for remark in remarks), *file.warnings)[:STATUS_PROBLEMS]
    if not texts:
        return None
    valid = not any(remark.severe for remark in remarks)
    return ManifestStatus(valid=valid, message=texts[0].splitlines()[0], problems=texts)
