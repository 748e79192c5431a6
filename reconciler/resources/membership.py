"""What nodes say of themselves: in the store (who belongs to the cluster), in leases and in heartbeats.

Leases and heartbeats are hints: they decide who tries, never who may write. That is decided by what a
transaction compares (SAFETY rule 1).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from reconciler.resources.shutdowns import PowerWord

MESH_PORT = 7480
"""The TCP port of the mesh, unless configured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One configured node (member/NODE). The majority is counted over these, whether they answer or not.

    `address` is an IP or a name that the others reach it by; `rank` 0 is first in the hierarchy.
    `schemas`: the lowest and the highest store schema that its daemon can work with, as of its last start.
    """

    address: str
    port: int = MESH_PORT
    rank: int = 0
    version: str = ""
    schemas: tuple[int, int] = (1, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeHealth:
    """A node's own finding about itself, one line each in `problems`. `load`: one minute's average by cores;
    `disk_free`: of the state directory, in bytes; `store`: its last access to the store succeeded."""

    store: bool = True
    load: float = 0.0
    disk_free: int = 0
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeLease:
    """What a node writes to its lease every second; judged by the local time since it was seen to change.

    (`session`, `renewals`) only ever grows. `mastering`: the epoch that the node holds, None for none;
    `successor`: to whom it just left it. `stopped`: the daemon ended in an orderly way, its guests run on.
    """

    node: str
    boot_id: str
    session: int
    renewals: int
    mastering: int | None = None
    successor: str | None = None
    stopped: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """What a node tells every other one twice a second.

    `eligible`: it could be master now, `reason` says why not. `epoch`, `master`: the mastership it knows of.
    `hears`: the nodes whose heartbeats it gets. `revision`: how far its copy of the store is. `empty`: it was
    fenced or cut off, and has made sure that no guest of the cluster is left on its host.
    """

    node: str
    session: int
    boot_id: str
    sequence: int
    version: str = ""
    schemas: tuple[int, int] = (1, 1)
    eligible: bool = False
    reason: str = ""
    epoch: int = 0
    master: str = ""
    revision: int = 0
    hears: tuple[str, ...] = ()
    empty: bool = False
    power: PowerWord = field(default_factory=PowerWord)
    health: NodeHealth = field(default_factory=NodeHealth)
