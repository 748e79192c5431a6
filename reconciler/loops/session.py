"""The beginning of a daemon's run: the store's schema and cluster, this node's session, the master's epoch.

Invariants: the version is bumped before any claim is trusted (SAFETY rule 2), because the session that grows
here is compared by every agent transaction: what an earlier daemon still had under way can never match.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from reconciler.loops.writer import Writer, conflicts
from reconciler.planning.store_memory import Seen
from reconciler.ports.clock import Clock, Ids
from reconciler.ports.store import Store
from reconciler.resources import keys
from reconciler.resources.errors import InvalidInput, StoreError
from reconciler.resources.records import (
    STORE_SCHEMA,
    ClusterRecord,
    Epoch,
    MasterLease,
    SchemaRecord,
    Session,
    dump,
    load,
)
from reconciler.resources.transactions import Committed, Compare, Put, Txn

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class HostIdentity:
    """This host: `boot_id` changes with every boot of the kernel, `machine_id` never."""

    node: str
    boot_id: str
    machine_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """What the start found and wrote."""

    cluster: ClusterRecord
    session: int
    session_revision: int
    schema_revision: int
    seen: Seen


async def begin(store: Store, host: HostIdentity, clock: Clock, ids: Ids, cluster_name: str) -> Begun:
    """Make the store ours to use. Raises InvalidInput when its schema is another version's, StoreError."""
    while True:
        begun = await _attempt(store, host, clock, ids, cluster_name)
        if begun is not None:
            return begun


async def _attempt(
    store: Store, host: HostIdentity, clock: Clock, ids: Ids, cluster_name: str
) -> Begun | None:
    session_key = keys.session(host.node)
    found = await store.get([keys.SCHEMA, keys.CLUSTER, keys.EPOCH, session_key], timeout=10.0)
    puts: list[Put] = []
    if keys.SCHEMA in found:
        _check_schema(load(SchemaRecord, found[keys.SCHEMA].value))
    else:
        puts.append(Put(key=keys.SCHEMA, value=dump(SchemaRecord(version=STORE_SCHEMA))))
    if keys.CLUSTER in found:
        cluster = load(ClusterRecord, found[keys.CLUSTER].value)
    else:
        cluster = ClusterRecord(uid=ids.uuid(), name=cluster_name, created=clock.wall())
        puts.append(Put(key=keys.CLUSTER, value=dump(cluster)))
    before = load(Session, found[session_key].value).session if session_key in found else 0
    session = Session(
        session=before + 1, boot_id=host.boot_id, machine_id=host.machine_id, started=clock.wall()
    )
    puts.append(Put(key=session_key, value=dump(session)))
    compares = tuple(
        Compare(key=key, revision=found[key].revision if key in found else 0)
        for key in sorted({keys.SCHEMA, keys.CLUSTER, session_key})
    )
    result = await store.txn(Txn(id=ids.uuid(), compares=compares, puts=tuple(puts)), timeout=10.0)
    if not isinstance(result, Committed):
        return None
    epoch = load(Epoch, found[keys.EPOCH].value).epoch if keys.EPOCH in found else 0
    schema_revision = found[keys.SCHEMA].revision if keys.SCHEMA in found else result.revision
    return Begun(
        cluster=cluster,
        session=session.session,
        session_revision=result.revision,
        schema_revision=schema_revision,
        seen=Seen(cluster_uid=cluster.uid, revision=result.revision, epoch=epoch),
    )


def _check_schema(record: SchemaRecord) -> None:
    if record.version != STORE_SCHEMA:
        raise InvalidInput(
            f"the store has schema version {record.version}, and this vcld knows version {STORE_SCHEMA}",
            cure="run the vcl version that the other nodes run",
        )


async def acquire_epoch(store: Store, writer: Writer, node: str, ids: Ids) -> Epoch | None:
    """Become master of a one-node cluster: the next epoch, or None when somebody else was faster."""
    found = await store.get([keys.EPOCH])
    current = found.get(keys.EPOCH)
    number = load(Epoch, current.value).epoch + 1 if current is not None else 1
    epoch = Epoch(epoch=number, holder=node)
    result = await writer.commit(
        compares={keys.EPOCH: current.revision if current is not None else 0},
        puts={
            keys.EPOCH: dump(epoch),
            keys.MASTER_LEASE: dump(MasterLease(holder=node, epoch=number)),
        },
        guards=(keys.SCHEMA,),
    )
    if conflicts(result):
        return None
    assert isinstance(result, Committed)
    writer.guard(keys.EPOCH, result.revision)
    return epoch


async def patiently(attempt: Callable[[], Awaitable[T]], what: str, pause: float = 1.0) -> T:
    """Try until the store answers: a daemon that starts before its store waits for it."""
    while True:
        try:
            return await attempt()
        except StoreError as error:
            log.warning("%s: %s; trying again in %.0f s", what, error, pause)
            await asyncio.sleep(pause)
