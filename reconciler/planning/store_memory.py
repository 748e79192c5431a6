"""Whether the store is the one this node knew (SAFETY rule 3): a store that shows another cluster, or less
than was seen before, was lost or restored, and then nothing is killed and nothing is started."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The most that this node has seen of its store."""

    cluster_uid: str
    revision: int
    epoch: int


def doubt(before: Seen | None, now: Seen) -> str:
    """Why the store is not to be trusted; empty when it is."""
    if before is None:
        return ""
    accept = "put the right store back, or start vcld once with --accept-store if this one is right"
    if before.cluster_uid != now.cluster_uid:
        return (
            f"the store belongs to cluster {now.cluster_uid}, and this node to {before.cluster_uid}: "
            f"nothing is started or stopped; {accept}"
        )
    if now.revision < before.revision or now.epoch < before.epoch:
        return (
            f"the store is older (revision {now.revision}, epoch {now.epoch}) than what this node has seen "
            f"(revision {before.revision}, epoch {before.epoch}): nothing is started or stopped; {accept}"
        )
    return ""


def most(before: Seen | None, now: Seen) -> Seen:
    """What to remember from here on."""
    if before is None or before.cluster_uid != now.cluster_uid:
        return now
    return Seen(
        cluster_uid=now.cluster_uid,
        revision=max(before.revision, now.revision),
        epoch=max(before.epoch, now.epoch),
    )
