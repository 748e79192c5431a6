"""One familiar object out of the many records that the store keeps about it (docs/api.md, "merged").

Everybody writes records of their own, so that nobody overwrites anybody; people see them as one. Invariants:
the same snapshot gives the same object, and `dependents` names every object that a key's change can alter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reconciler.planning.conditions import merged_conditions
from reconciler.planning.merge_fencing import failover_object
from reconciler.planning.merge_migration import migration_object
from reconciler.planning.merge_node import node_status, with_ready
from reconciler.planning.merge_vm import (
    CLUSTER_NAME,
    manifest_conditions,
    manifest_message,
    power_on,
    vm_status,
)
from reconciler.planning.snapshots import Reader, Snapshot
from reconciler.resources import keys
from reconciler.resources.codec import encode
from reconciler.resources.infrastructure import Power
from reconciler.resources.kinds import API_VERSION, Kind
from reconciler.resources.records import ClusterRecord, ObjectMeta, SpecRecord

_REPORTED = (Kind.NODE, Kind.STORAGE_POOL)
"""Kinds whose objects may exist without a manifest, because a node reports on them."""

IMPLIED = (*_REPORTED, Kind.CLUSTER)
"""Kinds whose objects stay the same when a manifest for them comes or goes, although their uid is another."""

_BY_OBJECT = (keys.SPECS, keys.INTENTS, keys.NODE_STATUS, keys.MASTER_STATUS, keys.MANIFEST_STATUS)


def object_exists(snapshot: Snapshot, kind: Kind, name: str) -> bool:
    """Whether there is such an object, written by a user or implied by what a node reports."""
    if snapshot.get(keys.spec(kind, name)) is not None:
        return True
    if kind is Kind.FAILOVER:
        return snapshot.get(keys.failover(name)) is not None
    if kind is Kind.MIGRATION:
        return snapshot.get(keys.migration(name)) is not None
    if kind is Kind.CLUSTER:
        return name == CLUSTER_NAME and snapshot.get(keys.CLUSTER) is not None
    if kind is Kind.NODE and snapshot.get(keys.member(name)) is not None:
        return True
    return kind in _REPORTED and snapshot.get(keys.node_status(kind, name)) is not None


def merged_object(snapshot: Snapshot, kind: Kind, name: str) -> dict[str, Any] | None:
    """The whole object, JSON-shaped, or None when there is no such object."""
    if kind is Kind.FAILOVER:
        return failover_object(snapshot, name)
    if kind is Kind.MIGRATION:
        return migration_object(snapshot, name)
    if not object_exists(snapshot, kind, name):
        return None
    reader = Reader(snapshot)
    key = keys.spec(kind, name)
    raw = reader.raw(key)
    record = reader.decoded(key, SpecRecord, raw) if raw is not None else None
    manifest = reader.raw(keys.manifest_status(kind, name))
    if record is None and reader.exists(key):
        status: dict[str, Any] = {"message": f"the store's record {key} cannot be read"}
    else:
        status = _status(reader, kind, name, record, manifest)
    return {
        "apiVersion": API_VERSION,
        "kind": kind.value,
        "metadata": _metadata(reader, name, record, status),
        "spec": dict(record.spec) if record else {},
        "status": status,
    }


def dependents(key: str) -> tuple[tuple[Kind, str | None], ...]:
    """The objects that a change of this key may alter; the name None stands for all of the kind."""
    for prefix in _BY_OBJECT:
        found = keys.split_object(key, prefix)
        if found is not None:
            wide: tuple[tuple[Kind, str | None], ...] = ()
            if found[0] is Kind.CLUSTER and prefix == keys.SPECS:
                wide = ((Kind.VIRTUAL_MACHINE, None),)
            return (found, *wide)
    for prefix in (keys.BINDINGS, keys.CLAIMS):
        if key.startswith(prefix):
            return ((Kind.VIRTUAL_MACHINE, key.removeprefix(prefix)),)
    if key.startswith(keys.FAILURES):
        return ((Kind.VIRTUAL_MACHINE, key.removeprefix(keys.FAILURES).partition("/")[0]),)
    if key.startswith(keys.MEMBERS):
        return ((Kind.NODE, key.removeprefix(keys.MEMBERS)),)
    if key.startswith(keys.FAILOVERS):
        return ((Kind.FAILOVER, key.removeprefix(keys.FAILOVERS)),)
    for prefix in (keys.MIGRATIONS, keys.MIGRATING):
        if key.startswith(prefix):
            return ((Kind.MIGRATION, key.removeprefix(prefix).partition("/")[0]),)
    for prefix in (keys.SESSIONS, keys.RETURNS):
        if key.startswith(prefix):
            return ((Kind.NODE, key.removeprefix(prefix)),)
    if key.startswith(keys.FENCES):
        return ((Kind.NODE, key.removeprefix(keys.FENCES)), (Kind.VIRTUAL_MACHINE, None))
    if key == keys.POWER_INTENT:
        return ((Kind.CLUSTER, None), (Kind.VIRTUAL_MACHINE, None))
    if key == keys.EPOCH:
        return ((Kind.NODE, None),)
    if key == keys.CLUSTER:
        return ((Kind.CLUSTER, CLUSTER_NAME), *((kind, None) for kind in _REPORTED))
    return ()


def _metadata(
    reader: Reader, name: str, record: SpecRecord | None, status: Mapping[str, Any]
) -> dict[str, Any]:
    meta = record.metadata if record else _implied(reader, name, status)
    found: dict[str, Any] = encode(meta)
    found["resourceVersion"] = str(reader.revision)
    return {key: value for key, value in found.items() if value != ""}


def _implied(reader: Reader, name: str, status: Mapping[str, Any]) -> ObjectMeta:
    """Metadata of an object without a manifest: it has been there since the cluster was made."""
    cluster = reader.aside().record(keys.CLUSTER, ClusterRecord)
    uid = str(status.get("uid") or (cluster.uid if cluster and name == CLUSTER_NAME else ""))
    return ObjectMeta(name=name, uid=uid, generation=0, creation_timestamp=cluster.created if cluster else "")


def _status(
    reader: Reader, kind: Kind, name: str, record: SpecRecord | None, manifest: Mapping[str, Any] | None
) -> dict[str, Any]:
    match kind:
        case Kind.VIRTUAL_MACHINE if record is not None:
            return vm_status(reader, record, manifest)
        case Kind.NODE:
            status = node_status(reader, name, record)
        case Kind.CLUSTER:
            status = _cluster_status(reader, record)
        case _:
            status = reader.raw(keys.node_status(kind, name)) or {}
            if kind is Kind.STORAGE_POOL:
                status = with_ready(status, record)
    return _with_source(status, record, manifest)


def _cluster_status(reader: Reader, record: SpecRecord | None) -> dict[str, Any]:
    cluster = reader.record(keys.CLUSTER, ClusterRecord)
    power = Power.ON if power_on(reader) else Power.OFF
    named = {"name": cluster.name, "uid": cluster.uid} if cluster else {}
    asked = record.spec.get("power", Power.ON.value) if record else Power.ON.value
    note = "" if asked == power else "the power is Off; `vcl cluster start` turns it on"
    return {**named, "power": power.value, "message": note}


def _with_source(
    status: dict[str, Any], record: SpecRecord | None, manifest: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The status with where the object was written and whether that is valid."""
    if record is None:
        return status
    found = merged_conditions(status, manifest_conditions(record, manifest))
    broken = manifest is not None and not manifest.get("valid")
    return {
        **status,
        "message": (manifest_message(manifest) if broken and manifest else "") or status.get("message") or "",
        "source": {"path": record.source.path, "line": record.source.line},
        "conditions": [found[key] for key in sorted(found)],
    }
