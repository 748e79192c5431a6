"""What must be proven before a claim is emptied, and which proofs do (SAFETY rule 14).

Invariant: each writable image needs a proof for the storage that it is on. A blocklist counts for its own
Ceph cluster and for the clients that it names, once settled and unlocked; a host's proof counts for all of
it, as long as that boot of the host shows no sign of life.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import assert_never

from reconciler.resources.fencing import (
    Blocklisted,
    ConfirmedDown,
    FenceOrder,
    FenceRecord,
    HostProof,
    PoweredOff,
    WatchdogExpired,
    canonical,
    host_entry,
    is_client,
)
from reconciler.resources.records import Claim


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Something that wants a proof: a Ceph cluster (`fsid`), `other` storage, or just any (neither)."""

    fsid: str = ""
    other: str = ""

    def takes(self, fsid: str) -> bool:
        """Whether a blocklist on that Ceph cluster can be the proof."""
        return not self.other and self.fsid in ("", fsid)

    def words(self) -> str:
        """What it is."""
        if self.fsid:
            return f"the Ceph cluster {self.fsid}"
        return f"the storage {self.other}" if self.other else "the host"


def storage_of(image: str, pools: Mapping[str, str]) -> Need:
    """Where an image is, from its identity: FSID/POOL/NAMESPACE/ID is in Ceph; name/POOL/IMAGE (one that is
    being made) where its pool is; everything else is a file or a device, which no blocklist closes."""
    first, *rest = image.split("/")
    if first == "name" and rest:
        fsid = pools.get(rest[0], "")
        return Need(fsid=fsid) if fsid else Need(other=f"pool {rest[0]}")
    if len(rest) == 3 and first != "network":
        return Need(fsid=first)
    return Need(other=first if first != "block" else image)


def needs_of(claim: Claim, pools: Mapping[str, str]) -> frozenset[Need]:
    """One need for each storage that the claim writes to; a VM without writable disks needs any proof."""
    return frozenset(storage_of(image, pools) for image in claim.disks) or frozenset({Need()})


def unproven(
    needs: Iterable[Need], record: FenceRecord, claim: Claim, alive: frozenset[str]
) -> frozenset[Need]:
    """Which needs have no proof that counts now. `alive`: boot ids that are seen to be up."""
    if any(counts(proof, record, alive) for proof in record.host_proofs):
        return frozenset()
    clients = {canonical(client) for client in claim.clients if is_client(client)}
    closed = {
        proof.fsid
        for proof in record.blocklisted
        if proof.settled and proof.unlocked and not proof.lifted and clients <= set(proof.entries)
    }
    return frozenset(need for need in needs if not any(need.takes(fsid) for fsid in closed))


def counts(proof: HostProof, record: FenceRecord, alive: frozenset[str]) -> bool:
    """Whether the proof holds: a sign of life of that boot voids every one, any sign of life a person's."""
    match proof:
        case PoweredOff() | WatchdogExpired():
            return record.boot_id not in alive
        case ConfirmedDown():
            right = (proof.incident, proof.boot_id) == (record.incident, record.boot_id)
            return right and not alive
        case _:
            assert_never(proof)


def covers(proof: Blocklisted, order: FenceOrder) -> bool:
    """Whether it names every address and client of the order."""
    wanted = {host_entry(address) for address in order.addresses}
    wanted |= {canonical(client) for client in order.clients}
    return not proof.lifted and wanted <= set(proof.entries)


def images_on(fsid: str, claims: Iterable[Claim], pools: Mapping[str, str]) -> frozenset[str]:
    """The images of these claims that exist on that Ceph cluster."""
    images = (image for claim in claims for image in claim.disks)
    return frozenset(i for i in images if not i.startswith("name/") and storage_of(i, pools).fsid == fsid)


def missing_words(needs: Iterable[Need], record: FenceRecord, alive: frozenset[str]) -> str:
    """What lacks a proof, and why one that was given does not count."""
    wanted = frozenset(needs)
    words = ", ".join(sorted(need.words() for need in wanted))
    void = [proof for proof in record.host_proofs if not counts(proof, record, alive)]
    if void:
        return f"waiting for a proof for {words}: the host was said to be down, and shows signs of life"
    if wanted == {Need()}:
        return f"waiting for a proof that {record.node} is down, or cut off from its storage"
    return f"waiting for a proof that {record.node} is cut off from {words}"
