"""The registry of kinds: their names in files, on the command line and in URLs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

API_VERSION = "vcl/v1"

NAME_PATTERN = r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,61}[A-Za-z0-9])?$"
_NAME = re.compile(NAME_PATTERN.removesuffix("$") + r"\Z")


class Kind(StrEnum):
    """Everything that has a name, a spec and a status."""

    VIRTUAL_MACHINE = "VirtualMachine"
    PLACEMENT_CONSTRAINT = "PlacementConstraint"
    NODE = "Node"
    CLUSTER = "Cluster"
    STORAGE_POOL = "StoragePool"
    IMAGE = "Image"
    FAILOVER = "Failover"
    MIGRATION = "Migration"


WRITTEN = tuple(kind for kind in Kind if kind not in (Kind.FAILOVER, Kind.MIGRATION))
"""Kinds that people write manifests of. The others are vcl's own records, for reading only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KindInfo:
    """How a kind is called. `short` are the names of `vcl get SHORT`."""

    kind: Kind
    singular: str
    plural: str
    short: tuple[str, ...]


KINDS: tuple[KindInfo, ...] = (
    KindInfo(
        kind=Kind.VIRTUAL_MACHINE, singular="virtualmachine", plural="virtualmachines", short=("vm", "vms")
    ),
    KindInfo(
        kind=Kind.PLACEMENT_CONSTRAINT,
        singular="placementconstraint",
        plural="placementconstraints",
        short=("constraint", "constraints", "pc"),
    ),
    KindInfo(kind=Kind.NODE, singular="node", plural="nodes", short=("no",)),
    KindInfo(kind=Kind.CLUSTER, singular="cluster", plural="clusters", short=()),
    KindInfo(kind=Kind.STORAGE_POOL, singular="storagepool", plural="storagepools", short=("pool", "pools")),
    KindInfo(kind=Kind.IMAGE, singular="image", plural="images", short=("img",)),
    KindInfo(kind=Kind.FAILOVER, singular="failover", plural="failovers", short=("fo",)),
    KindInfo(kind=Kind.MIGRATION, singular="migration", plural="migrations", short=("mig",)),
)

_BY_NAME = {
    name: info
    for info in KINDS
    for name in (info.kind.value.lower(), info.singular, info.plural, *info.short)
}


def info_for(kind: Kind) -> KindInfo:
    """The registry entry of a kind."""
    return _BY_NAME[kind.value.lower()]


def find_kind(name: str) -> KindInfo | None:
    """The kind that a person means by `name` (any case, singular, plural or short), or None."""
    return _BY_NAME.get(name.lower())


def valid_name(name: str) -> bool:
    """Whether `name` can name an object: letters, digits, '.', '-'; 63 at most; host names are valid."""
    return _NAME.match(name) is not None
