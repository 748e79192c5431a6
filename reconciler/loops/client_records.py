"""What the store knows of the clients of network images: the claims, members and sessions that name them."""

from __future__ import annotations

from typing import TypeVar

from reconciler.loops.views import Views
from reconciler.planning.unlocking import Known
from reconciler.resources import keys
from reconciler.resources.errors import ConflictError
from reconciler.resources.membership import Member
from reconciler.resources.migrations import MigrationSide
from reconciler.resources.records import Claim, Session

T = TypeVar("T")


def known_of(views: Views, *, strict: bool = False) -> Known:
    """As this node's copy of the store has it. With `strict` raises ConflictError for a record that cannot be
    read: whose a client is would be a guess."""
    return Known(
        claims=_all(views, keys.CLAIMS, Claim, strict),
        members=_all(views, keys.MEMBERS, Member, strict),
        sessions=_all(views, keys.SESSIONS, Session, strict),
        sides=_all(views, keys.MIGRATING, MigrationSide, strict),
    )


def _all(views: Views, prefix: str, kind: type[T], strict: bool) -> dict[str, T]:
    found: dict[str, T] = {}
    for item in views.cache.prefix(prefix):
        record = views.record(item.key, kind)
        if record is not None:
            found[item.key.removeprefix(prefix)] = record
        elif strict:
            raise ConflictError(f"the record {item.key} cannot be read", cure="look at this node's log")
    return found
