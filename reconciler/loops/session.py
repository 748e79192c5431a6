"""The beginning of a daemon's run: the store's schema and cluster, this node's membership and session.

Invariants: the version is bumped before any claim is trusted (SAFETY rule 2), because the session that grows
here is compared by every agent transaction: what an earlier daemon still had under way can never match.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from reconciler.loops.views import Views
from reconciler.planning.schema import KNOWN_SCHEMAS, schema_problem
from reconciler.planning.store_memory import Seen, doubt
from reconciler.ports.clock import Clock, Ids
from reconciler.ports.store import Store
from reconciler.resources import keys
from reconciler.resources.errors import InvalidInput, StoreError
from reconciler.resources.membership import Member
from reconciler.resources.records import (
    ClusterRecord,
    Epoch,
    SchemaRecord,
    Session,
    dump,
    load,
)
from reconciler.resources.transactions import Committed, Compare, Listing, Put, Txn

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class HostIdentity:
    """This host: `boot_id` changes with every boot of the kernel, `machine_id` never. `addresses`, `clients`:
    by which it reaches shared storage, as Session has them."""

    node: str
    boot_id: str
    machine_id: str
    addresses: tuple[str, ...] = ()
    clients: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """What the start found and wrote."""

    cluster: ClusterRecord
    session: int
    session_revision: int
    schema_revision: int
    seen: Seen


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """As whom a daemon enters the cluster. `alone`: it has no mesh, so nobody else may be a member.
    `cluster`: the name, should the cluster not exist yet."""

    host: HostIdentity
    member: Member = field(default_factory=lambda: Member(address="", schemas=KNOWN_SCHEMAS))
    cluster: str = "vcl"
    alone: bool = True


async def begin(store: Store, entry: Entry, clock: Clock, ids: Ids, *, after: int = 0) -> Begun:
    """Make the store ours to use. `after`: the highest number of a session that this node remembers: the
    others know it by its leases and heartbeats, which a store that was set back does not take back.

    Raises InvalidInput when its schema is too far away or it is another node's, StoreError."""
    while True:
        begun = await _attempt(store, entry, clock, ids, after)
        if begun is not None:
            return begun


async def doubts(store: Store, before: Seen | None, begun: Begun) -> str:
    """Why the store that this session began on is not to be trusted, by what this node has seen before; empty
    when it is. Raises StoreError."""
    then = await store.txn_at(before.revision) if before is not None else None
    return doubt(before, begun.seen, then)


async def seen_of(store: Store, begun: Begun, views: Views) -> Seen | None:
    """What to remember of the store as the node's copy shows it; None when the log has gone on too far to say
    which it is. Raises StoreError."""
    revision, known = views.cache.revision, views.epoch()
    txn = await store.txn_at(revision)
    if txn is None:
        return None
    epoch = known.epoch if known is not None else 0
    return Seen(cluster_uid=begun.cluster.uid, revision=revision, epoch=epoch, txn=txn, session=begun.session)


async def _attempt(store: Store, entry: Entry, clock: Clock, ids: Ids, after: int) -> Begun | None:
    host = entry.host
    session_key, member_key = keys.session(host.node), keys.member(host.node)
    wanted = [keys.SCHEMA, keys.CLUSTER, keys.EPOCH, session_key, member_key]
    found = await store.get(wanted, timeout=10.0)
    if entry.alone:
        _check_alone(host, await store.list(keys.MEMBERS, timeout=10.0))
    puts: list[Put] = []
    if keys.SCHEMA in found:
        _check_schema(load(SchemaRecord, found[keys.SCHEMA].value), entry.member.schemas)
    else:
        puts.append(Put(key=keys.SCHEMA, value=dump(SchemaRecord(version=entry.member.schemas[1]))))
    if keys.CLUSTER in found:
        cluster = load(ClusterRecord, found[keys.CLUSTER].value)
    else:
        cluster = ClusterRecord(uid=ids.uuid(), name=entry.cluster, created=clock.wall())
        puts.append(Put(key=keys.CLUSTER, value=dump(cluster)))
    before = load(Session, found[session_key].value).session if session_key in found else 0
    session = Session(
        session=max(before, after) + 1,
        boot_id=host.boot_id,
        machine_id=host.machine_id,
        started=clock.wall(),
        addresses=host.addresses,
        clients=host.clients,
    )
    puts.append(Put(key=session_key, value=dump(session)))
    if member_key not in found or found[member_key].value != dump(entry.member):
        puts.append(Put(key=member_key, value=dump(entry.member)))
    compares = tuple(
        Compare(key=key, revision=found[key].revision if key in found else 0)
        for key in sorted({keys.SCHEMA, keys.CLUSTER, session_key, member_key})
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
        # As it was before this write, which must not hide that the store was set back.
        seen=Seen(cluster_uid=cluster.uid, revision=result.revision - 1, epoch=epoch),
    )


def _check_schema(record: SchemaRecord, known: tuple[int, int]) -> None:
    problem = schema_problem(record.version, known)
    if problem:
        raise InvalidInput(
            problem,
            cure="upgrade the nodes one after the other, one release at a time, and begin with the oldest",
        )


def _check_alone(host: HostIdentity, members: Listing) -> None:
    names = {item.key.removeprefix(keys.MEMBERS) for item in members.items}
    others = sorted(names - {host.node})
    if not others:
        return
    if host.node not in names:
        raise InvalidInput(
            f"the store belongs to {', '.join(others)}, and this node is {host.node}",
            cure=f"if this host was renamed, set `node: {others[0]}` in vcld's configuration; if it is "
            "another node, bring it in with `vcl join`",
        )
    raise InvalidInput(
        f"the cluster has other nodes ({', '.join(others)}), and this one is configured without a mesh",
        cure="set `mesh` and `address` in vcld's configuration as on the other nodes",
    )


async def patiently(attempt: Callable[[], Awaitable[T]], what: str, pause: float = 1.0) -> T:
    """Try until the store answers: a daemon that starts before its store waits for it."""
    while True:
        try:
            return await attempt()
        except StoreError as error:
            log.warning("%s: %s; trying again in %.0f s", what, error, pause)
            await asyncio.sleep(pause)
