"""A live migration as people see it: its record, and what its two hosts say of it.

Invariant: nothing here decides anything; a migration without a record that can be read says so.
"""

from __future__ import annotations

from typing import Any

from reconciler.planning.snapshots import Reader, Snapshot
from reconciler.resources import keys
from reconciler.resources.kinds import API_VERSION, Kind
from reconciler.resources.migrations import (
    ENDED,
    MigrationPhase,
    MigrationRecord,
    MigrationSide,
    Progress,
)

PROGRESSING = {
    MigrationPhase.OPEN: "both nodes get ready for it",
    MigrationPhase.RUNNING: "its memory is being copied",
    MigrationPhase.RESOLVING: "both nodes look at what they have of it",
}


def migration_object(snapshot: Snapshot, name: str) -> dict[str, Any] | None:
    """The merged Migration, or None when there is none."""
    key = keys.migration(name)
    reader = Reader(snapshot)
    if not reader.exists(key):
        return None
    record = reader.record(key, MigrationRecord)
    metadata: dict[str, Any] = {"name": name, "uid": name, "generation": 1}
    spec: dict[str, Any] = {}
    if record is None:
        status: dict[str, Any] = {"message": f"the store's record {key} cannot be read"}
    else:
        sides = {node: _side(reader, record, node) for node in (record.source, record.target)}
        status = _status(record, sides[record.source])
        spec = {"vm": record.vm, "to": record.target}
        metadata["creationTimestamp"] = record.requested
    metadata["resourceVersion"] = str(reader.revision)
    return {
        "apiVersion": API_VERSION,
        "kind": Kind.MIGRATION.value,
        "metadata": metadata,
        "spec": spec,
        "status": status,
    }


def _side(reader: Reader, record: MigrationRecord, node: str) -> MigrationSide | None:
    found = reader.record(keys.migrating(record.id, node), MigrationSide)
    return found if found is not None and found.id == record.id else None


def _status(record: MigrationRecord, source: MigrationSide | None) -> dict[str, Any]:
    going = record.phase not in ENDED
    words = record.message or PROGRESSING.get(record.phase, "")
    times = {"requested": record.requested, "began": record.began, "finished": record.finished}
    told = source.progress if source is not None and going else None
    return {
        "phase": record.phase.value,
        "vm": record.vm,
        "sourceNode": record.source,
        "targetNode": record.target,
        "reason": record.reason,
        "message": words,
        **{key: value for key, value in times.items() if value},
        **({"progress": _progress(told)} if told is not None and told.total else {}),
    }


def _progress(told: Progress) -> dict[str, Any]:
    """Bytes, bytes per second, seconds."""
    share = 100 * (told.total - min(told.left, told.total)) // told.total
    found: dict[str, Any] = {"percent": share, "total": told.total, "left": told.left, "rate": told.rate}
    if told.rate:
        found["secondsLeft"] = round(told.left / told.rate, 1)
    return found
