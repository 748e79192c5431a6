"""Whether the store is the one this node knew (SAFETY rule 3): a store that shows another cluster, less than
was seen before, or another past, was lost or restored, and then nothing is killed and nothing is started.

Numbers alone do not tell: in a store that was set back they grow again with all that is written to it, also
by nodes that have noticed. So the transaction that made the last revision seen is remembered by its id.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The most that this node has seen of its store.

    `txn`: the id of the transaction that made `revision`; empty in files of versions that did not note it.
    `session`: the highest number that a session of this node has had, in whatever store.
    `doubted`: the store that came after this was found to be another one, and nobody has accepted it.
    """

    cluster_uid: str
    revision: int
    epoch: int
    txn: str = ""
    session: int = 0
    doubted: bool = False


def doubt(before: Seen | None, now: Seen, then: str | None = None) -> str:
    """Why the store is not to be trusted; empty when it is.

    `then`: the transaction by which the store, as it is now, reached `before.revision`; None when its log
    does not say.
    """
    if before is None:
        return ""
    accept = (
        "nothing is started or stopped; put the right store back, or start vcld once with --accept-store if "
        "this one is right"
    )
    if before.cluster_uid != now.cluster_uid:
        return (
            f"the store belongs to cluster {now.cluster_uid}, and this node to {before.cluster_uid}: {accept}"
        )
    if now.revision < before.revision or now.epoch < before.epoch:
        return (
            f"the store is older (revision {now.revision}, epoch {now.epoch}) than what this node has seen "
            f"(revision {before.revision}, epoch {before.epoch}): {accept}"
        )
    if then and before.txn:
        if then == before.txn:
            return ""
        return (
            f"the store was older than what this node has seen, and was written to since: its revision "
            f"{before.revision} is another one: {accept}"
        )
    if before.doubted:
        return (
            f"the store was found to be older than what this node has seen (revision {before.revision}), and "
            f"its log no longer says whether it is the right one by now: {accept}"
        )
    return ""


def most(before: Seen | None, now: Seen) -> Seen:
    """What to remember from here on, of a store that is trusted."""
    if before is None:
        return now
    session = max(before.session, now.session)
    if before.cluster_uid != now.cluster_uid:
        return replace(now, session=session)
    newer = now if now.revision >= before.revision else before
    return Seen(
        cluster_uid=now.cluster_uid,
        revision=newer.revision,
        epoch=max(before.epoch, now.epoch),
        txn=newer.txn,
        session=session,
    )
