"""The next step of a fencing, from what is recorded and seen: any master can go on from any point.

Invariants (SAFETY rules 4, 8, 10-15):
* a claim is emptied only when every storage that it writes to is proven closed to the node, or the whole host
  is proven down; locks are broken only behind a blocklist that the storage has made its own;
* a fencing is never cancelled: nothing here ends it but its last step, the settled return;
* at the return only whole-host entries are lifted; single clients' only for a new boot of the same machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from reconciler.planning.fencing_proofs import (
    Need,
    covers,
    images_on,
    missing_words,
    needs_of,
    unproven,
)
from reconciler.planning.judging import Candidate, Verdict
from reconciler.resources.fencing import (
    FenceCause,
    FenceMethod,
    FenceOrder,
    FenceRecord,
    ReturnRecord,
    Silence,
    client_host,
    is_client,
)
from reconciler.resources.records import Claim, Session


@dataclass(frozen=True, slots=True, kw_only=True)
class FencerInfo:
    """One fencer, in the order of the layers. `fsid`: of the Ceph cluster that it closes, empty for one that
    takes the whole host down. `unready`: why it cannot fence this node."""

    id: str
    method: FenceMethod
    fsid: str = ""
    unready: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FenceFacts:
    """What the master knows of one node. `claims`: that it holds, by VM; `bindings`: VMs that are bound to it
    and held by nobody. `pools`: the Ceph cluster's fsid of each pool that is on one. `resting`: fencers whose
    time for another attempt has not come. `others`: storage addresses of the other nodes, and whose they are.

    `shared`: images that a host of a live migration, not this one, may have open and write to.

    `session`, `back`: session/NODE and return/NODE as they are now. `alive`: boot ids that are heard on the
    mesh or whose lease changes. `empty`: it says on the mesh that nothing of the cluster is left on it.
    `silence`: None when it is not silent, or this master has not watched for long enough to know.
    """

    node: str
    record: FenceRecord | None
    verdict: Verdict | None = None
    claims: Mapping[str, Claim] = field(default_factory=dict)
    shared: frozenset[str] = frozenset()
    bindings: tuple[str, ...] = ()
    fencers: tuple[FencerInfo, ...] = ()
    pools: Mapping[str, str] = field(default_factory=dict)
    resting: frozenset[str] = frozenset()
    others: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    session: Session | None = None
    back: ReturnRecord | None = None
    alive: frozenset[str] = frozenset()
    empty: bool = False
    silence: Silence | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Intend:
    """Write the intent: it bumps the node's session, so that nothing of it commits any more (rule 4)."""

    cause: FenceCause
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Fence:
    """Have this fencer do its work, and record its proof."""

    fencer: str
    order: FenceOrder
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Settle:
    """See that the proof holds, and that whatever this master does next comes after it."""

    fencer: str
    fsid: str
    order: FenceOrder


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakLocks:
    """Break what the fenced clients have left locked."""

    fencer: str
    fsid: str
    order: FenceOrder


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """Empty these claims and end these VMs' bindings to the node."""

    vms: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """Record that nothing of the node is left to take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lift:
    """Let the node reach the storage again. `clients`: also forget the single clients of its former boot."""

    fencer: str
    fsid: str
    order: FenceOrder
    clients: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Clear:
    """The return is settled: delete the record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Nothing to do until something changes, or a fencer has rested."""

    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """There is no fencing."""


FenceStep: TypeAlias = Intend | Fence | Settle | BreakLocks | Release | Finish | Lift | Clear
NextStep: TypeAlias = FenceStep | Wait | Done


def next_step(facts: FenceFacts) -> NextStep:
    """What is to be done now about fencing this node."""
    record = facts.record
    if record is None:
        if isinstance(facts.verdict, Candidate):
            return Intend(cause=facts.verdict.cause, reason=facts.verdict.reason)
        return Done()
    if record.released and not facts.claims:
        return _return(facts, record)
    return _proceed(facts, record)


def order_of(facts: FenceFacts, record: FenceRecord) -> FenceOrder:
    """What fencers are told: the claims cannot change after the intent, so this is all that may write. Who
    else has a shared image open is none of theirs."""
    claimed = {client for claim in facts.claims.values() for client in claim.clients if is_client(client)}
    clients = {*record.entries, *claimed}
    addresses = {*record.addresses, *(client_host(client) for client in clients)}
    images = {image for claim in facts.claims.values() for image in claim.disks} - facts.shared
    return FenceOrder(
        id=record.id,
        node=record.node,
        incident=record.incident,
        boot_id=record.boot_id,
        addresses=tuple(sorted(addresses)),
        clients=tuple(sorted(clients)),
        images=tuple(sorted(images)),
        settings=dict(facts.settings),
    )


def still_missing(facts: FenceFacts, record: FenceRecord) -> tuple[str, ...]:
    """What keeps each VM from being started elsewhere, one line each, VMs in the order of their names."""
    words = []
    for vm, claim in sorted(facts.claims.items()):
        left = unproven(needs_of(claim, facts.pools), record, claim, facts.alive)
        if left:
            words.append(f"{vm}: {missing_words(left, record, facts.alive)}")
    return tuple(words)


def _proceed(facts: FenceFacts, record: FenceRecord) -> NextStep:
    free = _free(facts, record)
    if free:
        return Release(vms=free)
    if not facts.claims and (_settled(facts, record) or not _open_needs(facts, record)):
        return Finish()
    order = order_of(facts, record)
    reasons: list[str] = []
    for ceph in (fencer for fencer in facts.fencers if fencer.fsid):
        proof = record.on(ceph.fsid)
        if proof is None or not covers(proof, order):
            continue
        if ceph.id in facts.resting:
            reasons.append(_resting(record, ceph))
        elif not proof.settled:
            return Settle(fencer=ceph.id, fsid=ceph.fsid, order=order)
        elif not proof.unlocked:
            images = images_on(ceph.fsid, facts.claims.values(), facts.pools) - facts.shared
            narrowed = replace(order, images=tuple(sorted(images)))
            return BreakLocks(fencer=ceph.id, fsid=ceph.fsid, order=narrowed)
    if _settled(facts, record) and facts.session is not None and facts.session.boot_id in facts.alive:
        # To cut it off now would cut off a node that has ended everything, perhaps the very master.
        return Wait(reasons=(f"{record.node} is back, and empties its claims itself", *reasons))
    step = _seek_proof(facts, record, order, reasons)
    if step is not None:
        return step
    return Wait(reasons=(*still_missing(facts, record), *reasons))


def _free(facts: FenceFacts, record: FenceRecord) -> tuple[str, ...]:
    """VMs that may be taken from the node: bound and never claimed (the intent bars that now), or with every
    proof that they need. A new boot of the same machine is the proof that the former one is over."""
    over = _settled(facts, record) and rebooted(facts, record)
    proven = (
        vm
        for vm, claim in facts.claims.items()
        if over or not unproven(needs_of(claim, facts.pools), record, claim, facts.alive)
    )
    return tuple(sorted({*facts.bindings, *proven}))


def _open_needs(facts: FenceFacts, record: FenceRecord) -> frozenset[Need]:
    """Everything that still wants a proof: of the claims, and of the node itself."""
    node = Claim(node=record.node)
    needs = set(unproven(_node_needs(record), record, node, facts.alive))
    for claim in facts.claims.values():
        needs.update(unproven(needs_of(claim, facts.pools), record, claim, facts.alive))
    return frozenset(needs)


def _node_needs(record: FenceRecord) -> frozenset[Need]:
    """The node's own clients are closed out of every Ceph cluster that it is known to use."""
    return frozenset(Need(fsid=fsid) for fsid in record.fsids) or frozenset({Need()})


def _seek_proof(
    facts: FenceFacts, record: FenceRecord, order: FenceOrder, reasons: list[str]
) -> Fence | None:
    """The first fencer, layer by layer, that can give a proof that is missing and may be tried now. A later
    layer is tried once each earlier one that applies has failed at least once."""
    for need in sorted(_open_needs(facts, record), key=lambda need: (need.other, need.fsid)):
        for fencer in facts.fencers:
            if fencer.fsid and not need.takes(fencer.fsid):
                continue
            if fencer.fsid and (proof := record.on(fencer.fsid)) is not None and covers(proof, order):
                break  # it is there, and is being settled
            why = fencer.unready or (_shared(facts, record, order) if fencer.fsid else "")
            if why:
                reasons.append(f"{fencer.id}: {why}")
            elif fencer.id in facts.resting:
                reasons.append(_resting(record, fencer))
                if not record.attempt(fencer.id).failures:
                    break
            else:
                return Fence(fencer=fencer.id, order=order, reason=need.words())
    return None


def _shared(facts: FenceFacts, record: FenceRecord, order: FenceOrder) -> str:
    """Why a whole-host entry would be wrong, or would be no proof."""
    if not order.addresses:
        return f"no address by which {record.node} reaches the storage is known"
    shared = [
        f"{address} is also {facts.others[address]}'s"
        for address in order.addresses
        if facts.others.get(address, record.node) != record.node
    ]
    return "; ".join(shared)


def _resting(record: FenceRecord, fencer: FencerInfo) -> str:
    attempt = record.attempt(fencer.id)
    if not attempt.failures:
        return f"{fencer.id}: looked at again soon"
    return f"{fencer.id}: failed {attempt.failures} times, tried again soon: {attempt.error}"


def _return(facts: FenceFacts, record: FenceRecord) -> NextStep:
    """Nothing of the node is left to take. It may come back, when it shows that nothing runs on it."""
    if facts.bindings:
        return Release(vms=facts.bindings)
    settled = _settled(facts, record)
    if not settled and not _asks_for_a_way(facts, record):
        return Wait(reasons=(_why_not_back(facts, record),))
    fresh = settled and rebooted(facts, record)
    order = order_of(facts, record)
    reasons: list[str] = []
    for ceph in (fencer for fencer in facts.fencers if fencer.fsid):
        proof = record.on(ceph.fsid)
        if proof is None or (proof.lifted and not (fresh and proof.entries)):
            continue
        if ceph.id in facts.resting:
            reasons.append(_resting(record, ceph))
            continue
        return Lift(fencer=ceph.id, fsid=ceph.fsid, order=order, clients=fresh)
    known = {fencer.fsid for fencer in facts.fencers}
    for proof in record.blocklisted:
        if not proof.lifted and proof.fsid not in known:
            reasons.append(f"no fencer of the Ceph cluster {proof.fsid} is configured, to let it in again")
    if reasons:
        return Wait(reasons=tuple(reasons))
    return Clear() if settled else Wait(reasons=(f"{record.node} may reach the storage, and begins anew",))


def rebooted(facts: FenceFacts, record: FenceRecord) -> bool:
    """Whether the very machine that was fenced runs another kernel by now: nothing of the old one is left."""
    session = facts.session
    return (
        session is not None
        and bool(record.boot_id and record.machine_id)
        and session.machine_id == record.machine_id
        and session.boot_id != record.boot_id
    )


def _settled(facts: FenceFacts, record: FenceRecord) -> bool:
    """Whether the node began anew after the intent, and in that session found nothing left on its host."""
    session, back = facts.session, facts.back
    return (
        session is not None
        and back is not None
        and session.session > record.session
        and (back.session, back.boot_id) == (session.session, session.boot_id)
    )


def _asks_for_a_way(facts: FenceFacts, record: FenceRecord) -> bool:
    """Whether it is there and empty, and only its own blocklisting keeps it from beginning anew."""
    return facts.empty and bool(facts.alive)


def _why_not_back(facts: FenceFacts, record: FenceRecord) -> str:
    session = facts.session
    if session is not None and session.session > record.session:
        return f"{record.node} is back, and has not shown yet that nothing is left running on it"
    if facts.alive:
        return f"{record.node} is heard, and has not shown yet that nothing is left running on it"
    return f"{record.node} is fenced, and has not come back"
