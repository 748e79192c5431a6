"""Whom `vcl disk unlock` may shut out of an image, and whom never.

Pure. Invariant: a client that the records name as the writer of a VM, or as a daemon of this cluster, is
never shut out by a person's word about an image: its VM is stopped, or its node fenced.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from reconciler.resources.fencing import canonical
from reconciler.resources.images import Holder
from reconciler.resources.membership import Member
from reconciler.resources.migrations import MigrationSide
from reconciler.resources.records import Claim, Session


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskHolder:
    """Somebody who holds an image, as far as the records know. `vm`: whose claim names the client, or with
    `former` did before; `node`: where it is; `daemon`: it is that node's vcld. The rest is as in Holder."""

    client: str
    entity: str = ""
    watching: bool = False
    lock: str = ""
    tag: str = ""
    shared: bool = False
    fenced: bool = False
    vm: str = ""
    former: bool = False
    node: str = ""
    daemon: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the store says, by name of VM and of node."""

    claims: Mapping[str, Claim]
    members: Mapping[str, Member]
    sessions: Mapping[str, Session]
    sides: Mapping[str, MigrationSide] = field(default_factory=dict)
    """What hosts have said of live migrations."""


def identified(holder: Holder, known: Known) -> DiskHolder:
    """The holder with whose it is. A client that a claim names is that VM's, whatever else is said of it."""
    client = canonical(holder.client)
    found = DiskHolder(
        client=client,
        entity=holder.entity,
        watching=holder.watching,
        lock=holder.lock,
        tag=holder.tag,
        shared=holder.shared,
        fenced=holder.fenced,
        node=_node_at(client, known),
    )
    for vm, claim in sorted(known.claims.items()):
        if client in map(canonical, claim.clients):
            return replace(found, vm=vm, node=claim.node)
        moving = claim.migration
        for side in known.sides.values() if moving is not None else ():
            if moving is not None and side.id == moving.id and client in map(canonical, side.clients):
                return replace(found, vm=vm, node=side.node)
    for node, session in sorted(known.sessions.items()):
        if client in map(canonical, session.clients):
            return replace(found, node=node, daemon=True)
    for vm, claim in sorted(known.claims.items()):
        if client in map(canonical, claim.former_clients):
            return replace(found, vm=vm, former=True)
    return found


def whose(holder: DiskHolder) -> str:
    """In words."""
    if holder.daemon:
        return f"vcld on node {holder.node}"
    if holder.vm:
        return (
            f"of an earlier run of VM {holder.vm}"
            if holder.former
            else f"VM {holder.vm} on node {holder.node}"
        )
    return f"on node {holder.node}, not started by vcl" if holder.node else "not a client that vcl knows"


def refusal(holder: DiskHolder) -> tuple[str, str]:
    """Why it may not be shut out, and the cure; two empty strings when it may."""
    if holder.daemon:
        return f"{holder.client} is vcld on node {holder.node}", f"restart vcld on {holder.node}"
    if holder.vm and not holder.former:
        return (
            f"{holder.client} is VM {holder.vm} on node {holder.node}, which may be writing",
            f"vcl stop {holder.vm}",
        )
    return "", ""


def _node_at(client: str, known: Known) -> str:
    """The node that has the client's address, or nothing."""
    address = client.rpartition(":")[0].strip("[]")
    for node in sorted({*known.sessions, *known.members}):
        session, member = known.sessions.get(node), known.members.get(node)
        addresses = {*(session.addresses if session else ()), *([member.address] if member else ())}
        if address in addresses:
            return node
    return ""
