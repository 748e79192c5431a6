"""Which versions of the store's schema may work together: daemons of adjacent releases, during an upgrade.

A daemon knows a range of schemas; the store has one. It is raised only when every member's daemon knows the
next one (SAFETY rule 3), so a cluster is upgraded node by node, and a node that is too far away is refused.
"""

from __future__ import annotations

from collections.abc import Mapping

from reconciler.resources.membership import Member
from reconciler.resources.records import STORE_SCHEMA

STORE_SCHEMA_OLDEST = 1
KNOWN_SCHEMAS = (STORE_SCHEMA_OLDEST, STORE_SCHEMA)
"""The lowest and the highest schema that this program reads and writes."""


def schema_problem(version: int, known: tuple[int, int]) -> str:
    """Why a daemon that knows `known` must not touch a store of this version; empty when it may."""
    oldest, newest = known
    words = f"version {oldest}" if oldest == newest else f"versions {oldest} to {newest}"
    if version > newest:
        return f"the store has schema version {version}, and this vcld knows {words}: it is too old"
    if version < oldest:
        return (
            f"the store has schema version {version}, and this vcld knows {words}: it is too new, since "
            "other nodes have not been upgraded that far"
        )
    return ""


def next_schema(version: int, members: Mapping[str, Member], known: tuple[int, int]) -> int:
    """The schema that the store should have: the highest that every member and this node know."""
    highest = min([known[1], *(member.schemas[1] for member in members.values())])
    return max(version, highest)
