"""What `vcl init` writes into the store: the cluster's identity, and who belongs to it.

Invariant: one transaction that compares everything it was decided on, and that never changes a record which
is there. Daemons that start later find what they would have written themselves (session.begin).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reconciler.planning.schema import KNOWN_SCHEMAS, schema_problem
from reconciler.ports.clock import Clock, Ids
from reconciler.ports.store import Store
from reconciler.resources import keys
from reconciler.resources.errors import ConflictError, InvalidInput
from reconciler.resources.membership import MESH_PORT, Member
from reconciler.resources.records import ClusterRecord, SchemaRecord, dump, load
from reconciler.resources.transactions import Committed, Compare, Put, Txn

_ATTEMPTS = 5
TIMEOUT = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """A node as the person at the keyboard names it."""

    name: str
    address: str
    port: int = MESH_PORT


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the store says; no cluster: it is empty. `revisions` is what was read of each key."""

    cluster: ClusterRecord | None
    members: Mapping[str, Member]
    revisions: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Founded:
    """The cluster as it is now; `added` names the nodes that were not members before."""

    cluster: ClusterRecord
    members: Mapping[str, Member]
    added: tuple[str, ...]


async def look(store: Store) -> Known:
    """What the store knows already. Raises InvalidInput for a store of another age, StoreError."""
    found = await store.get([keys.SCHEMA, keys.CLUSTER], timeout=TIMEOUT)
    listing = await store.list(keys.MEMBERS, timeout=TIMEOUT)
    if keys.SCHEMA in found:
        problem = schema_problem(load(SchemaRecord, found[keys.SCHEMA].value).version, KNOWN_SCHEMAS)
        if problem:
            raise InvalidInput(problem, cure="use the vcl of the cluster's nodes")
    cluster = load(ClusterRecord, found[keys.CLUSTER].value) if keys.CLUSTER in found else None
    members = {item.key.removeprefix(keys.MEMBERS): load(Member, item.value) for item in listing.items}
    revisions = {item.key: item.revision for item in (*found.values(), *listing.items)}
    return Known(cluster=cluster, members=members, revisions=revisions)


async def found(store: Store, name: str, seats: Sequence[Seat], clock: Clock, ids: Ids) -> Founded:
    """Write what is missing: the cluster called `name`, and a member for each seat, ranked in their order
    behind those that are there.

    Raises InvalidInput when the store holds another cluster or a node otherwise than asked for,
    ConflictError when others keep changing it, StoreError.
    """
    for _ in range(_ATTEMPTS):
        known = await look(store)
        members = seated(known, name, seats)
        added = tuple(node for node in members if node not in known.members)
        cluster = known.cluster or ClusterRecord(uid=ids.uuid(), name=name, created=clock.wall())
        puts = [Put(key=keys.member(node), value=dump(members[node])) for node in added]
        if known.cluster is None:
            puts.append(Put(key=keys.CLUSTER, value=dump(cluster)))
        if keys.SCHEMA not in known.revisions:
            puts.append(Put(key=keys.SCHEMA, value=dump(SchemaRecord(version=KNOWN_SCHEMAS[1]))))
        if not puts or await _write(store, puts, known, seats, ids):
            return Founded(cluster=cluster, members=members, added=added)
    raise ConflictError("others keep changing the cluster's members", cure="run it again")


def seated(known: Known, name: str, seats: Sequence[Seat]) -> dict[str, Member]:
    """All members there will be. Raises InvalidInput when that is not what the store says."""
    if known.cluster is not None and known.cluster.name != name:
        raise InvalidInput(
            f"the store holds the cluster '{known.cluster.name}', not '{name}'",
            cure=f"write --name {known.cluster.name}, or choose another pool or namespace for a new cluster",
        )
    members = dict(known.members)
    for seat in seats:
        asked = Member(address=seat.address, port=seat.port, rank=_next_rank(members), schemas=KNOWN_SCHEMAS)
        there = members.setdefault(seat.name, asked)
        if (there.address, there.port) != (seat.address, seat.port):
            raise InvalidInput(
                f"node {seat.name} is a member with the address {there.address}:{there.port}, not "
                f"{seat.address}:{seat.port}",
                cure="to move it, change `address` and `mesh.port` in its own vcld.yaml and restart it; "
                f"here, write --node {seat.name}={there.address}",
            )
    return members


def _next_rank(members: Mapping[str, Member]) -> int:
    return max((member.rank for member in members.values()), default=-1) + 1


async def _write(store: Store, puts: Sequence[Put], known: Known, seats: Sequence[Seat], ids: Ids) -> bool:
    """Whether it was still as looked at. Ranks depend on every member, so all are compared."""
    compared = {keys.SCHEMA, keys.CLUSTER, *known.revisions, *(keys.member(seat.name) for seat in seats)}
    compares = tuple(Compare(key=key, revision=known.revisions.get(key, 0)) for key in sorted(compared))
    result = await store.txn(Txn(id=ids.uuid(), compares=compares, puts=tuple(puts)), timeout=TIMEOUT)
    return isinstance(result, Committed)
