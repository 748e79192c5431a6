"""From what a replica knows to what the object holds: by its change log, or from scratch where that was cut.

Pages of omap values are not one snapshot. A load therefore reads the keys first, whatever their versions, and
then replays the whole log over them: every change that a page may have missed, or seen too early, is in the
log's last word about that key. That ends even while others write, and the log's pages are checked against the
version that came with them in the same atomic read.

A follower reads the last entry that it has once more: numbers grow again in a store that was set back.
"""

from __future__ import annotations

from dataclasses import replace

from reconciler.adapters.rados.link import Link
from reconciler.adapters.rados.replica import Replica
from reconciler.resources.errors import StoreUnavailable

_ATTEMPTS = 20
"""Loads that the others may outrun by trimming the log, before the store counts as unavailable."""


def load(link: Link) -> Replica:
    """Everything the object holds. Raises StoreUnavailable."""
    for _ in range(_ATTEMPTS):
        version, _ = link.read(0)
        start = replace(version, revision=version.compacted)
        replica = Replica(start, link.items())
        if _advance(link, replica):
            return replica
    raise StoreUnavailable(
        f"the store {link.place} changes faster than it can be read", cure="look at what writes so much"
    )


def follow(link: Link, replica: Replica) -> Replica:
    """The replica brought up to date, or a new one. Raises StoreUnavailable."""
    return replica if _advance(link, replica) else load(link)


def _advance(link: Link, replica: Replica) -> bool:
    """Read the log up to the newest version; False when it does not reach back to what the replica knows."""
    while True:
        known, mine = replica.version, replica.txn_at(replica.version.revision)
        version, page = link.read(known.revision - 1 if mine else known.revision)
        if version.uid != known.uid:
            raise StoreUnavailable(
                f"the object {link.place} was replaced by another store",
                cure="find out who made it anew; restart vcld if that was meant",
            )
        if (version.revision, version.fence) < (known.revision, known.fence):
            raise StoreUnavailable(
                f"the store {link.place} went back from revision {known.revision} to {version.revision}",
                cure="find out who restored an old copy; restart vcld if that was meant",
            )
        if version.compacted > known.revision:
            return False
        if mine and page and page[0].revision == known.revision:
            if page[0].txn_id != mine:
                raise StoreUnavailable(
                    f"the store {link.place} went back, and was written to since: its revision "
                    f"{known.revision} is another one than before",
                    cure="find out who restored an old copy; restart vcld if that was meant",
                )
            page = page[1:]
            if not page and version.revision > known.revision:  # its values alone filled the page
                version, page = link.read(known.revision)
                if version.compacted > known.revision:
                    return False
        done = not page or page[-1].revision == version.revision
        last = page[-1].revision if page else known.revision
        if done and last != version.revision:
            raise StoreUnavailable(
                f"the store {link.place} is damaged: its change log ends at {last}, not {version.revision}",
                cure="restore the object from a copy",
            )
        if page and page[0].revision != known.revision + 1:
            raise StoreUnavailable(
                f"the store {link.place} is damaged: its change log lacks revision {known.revision + 1}",
                cure="restore the object from a copy",
            )
        # Between pages the log is only cut at the next version, which the next read brings.
        replica.advance(version if done else replace(known, revision=last), page)
        if done:
            return True
