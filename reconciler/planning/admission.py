"""From a document in a file to the record in the store: identity, defaults of metadata, generation counting.

The invariant: an object keeps its uid and its creation time for as long as it lives, whichever file defines
it, and `generation` grows exactly when the meaning of the spec changes - not with comments, labels or order.
"""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID, uuid5

from reconciler.planning.manifest_values import Manifest, Moment
from reconciler.resources.kinds import Kind
from reconciler.resources.records import Intent, ObjectMeta, Source, SpecRecord, dump

FINALISED_KINDS = frozenset({Kind.VIRTUAL_MACHINE})
"""Kinds whose deletion takes work: the record stays, marked, until the master removes it."""


def admit(manifest: Manifest, path: str, before: SpecRecord | None, moment: Moment) -> SpecRecord:
    """The record for a valid document. `before` is the living record of the same object, if there is one."""
    source = Source(path=path, line=manifest.line)
    key = manifest.key
    if before is None:
        metadata = ObjectMeta(
            name=key.name,
            uid=str(uuid5(UUID(moment.seed), str(key))),
            labels=manifest.labels,
            annotations=manifest.annotations,
            creation_timestamp=moment.wall,
        )
        return SpecRecord(kind=key.kind, metadata=metadata, spec=manifest.spec, source=source)
    changed = dump(before.spec) != dump(manifest.spec)
    metadata = replace(
        before.metadata,
        generation=before.metadata.generation + (1 if changed else 0),
        labels=manifest.labels,
        annotations=manifest.annotations,
    )
    return replace(before, metadata=metadata, spec=manifest.spec, source=source)


def terminate(record: SpecRecord, *, purge: bool, moment: Moment) -> SpecRecord:
    """The record of an object whose deletion begins now."""
    metadata = replace(record.metadata, deletion_timestamp=moment.wall)
    return replace(record, metadata=metadata, purge=record.purge or purge)


def settle_intent(intent: Intent, before: SpecRecord | None, after: SpecRecord) -> Intent | None:
    """The intent that is left after the spec became `after`; None when nothing is.

    A new object starts without what was asked for a former one of its name; a new runStrategy is a newer
    word than `vcl start` and `vcl stop`.
    """
    if before is None:
        return None
    if before.spec.get("runStrategy") == after.spec.get("runStrategy"):
        return intent
    rest = replace(intent, run=None, force=False, run_strategy=None)
    return None if replace(rest, requested="") == Intent() else rest
