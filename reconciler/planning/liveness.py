"""What one node may conclude about another from two channels: heartbeats on the mesh, leases in the store.

Invariant: being wrong about one channel costs nothing. Ages are of the observer's own monotonic time, and
count only while it was running and could observe: silence that nobody could have heard is no silence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from reconciler.planning.timers import Timers
from reconciler.resources.membership import Heartbeat, Member, NodeLease

HUBS = 7
"""In a larger cluster every node links to the first seven in rank only, and only those can be master."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """One member as this node sees it. Seconds: `heard` since its last heartbeat arrived (None: never),
    `lease_age` since its lease was seen to change (or watched without seeing one), `refused` since its host
    last refused a connection (None: not since it was last connected), `connected` since its daemon accepted
    one (None: it is not connected), `eligible_for` how long its heartbeats
    have said without a break that it could be master. `falls`: how often that broke lately."""

    name: str
    rank: int
    heard: float | None = None
    heartbeat: Heartbeat | None = None
    lease_age: float = 0.0
    lease: NodeLease | None = None
    refused: float | None = None
    connected: float | None = None
    eligible_for: float = 0.0
    falls: int = 0


class Standing(StrEnum):
    """Ready: both channels. Degraded: one of them, or a refused connection. Silent: neither. Stopped: the
    daemon said that it ends. Unknown: nothing was ever heard."""

    READY = "Ready"
    DEGRADED = "Degraded"
    STOPPED = "Stopped"
    SILENT = "Silent"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """`reason` in words; empty for a node that is Ready and has no complaint."""

    standing: Standing
    reason: str = ""


def ordered(members: Mapping[str, Member]) -> tuple[str, ...]:
    """The hierarchy: by rank, then by name."""
    return tuple(sorted(members, key=lambda name: (members[name].rank, name)))


def mesh_peers(me: str, members: Mapping[str, Member]) -> tuple[str, ...]:
    """Whom a node keeps links to."""
    order = ordered(members)
    if len(order) <= HUBS or me in order[:HUBS]:
        return tuple(name for name in order if name != me)
    return order[:HUBS]


def majority(nodes: int) -> int:
    """How many of `nodes` are more than half of them."""
    return nodes // 2 + 1


def heard(sight: Sight, timers: Timers) -> bool:
    """Whether it is there on the mesh: not any more when its daemon said that it ends."""
    return sight.heard is not None and sight.heard <= timers.mesh_silent and not _has_stopped(sight)


def _has_stopped(sight: Sight) -> bool:
    """Whether the last that is known of its daemon is its orderly end; a heartbeat of a later session is of
    the next one."""
    lease, heartbeat = sight.lease, sight.heartbeat
    return lease is not None and lease.stopped and (heartbeat is None or heartbeat.session <= lease.session)


def renews(sight: Sight, timers: Timers) -> bool:
    """Whether it is there in the store."""
    return sight.lease is not None and not sight.lease.stopped and sight.lease_age <= timers.lease_silent


def seen(me: str, sights: Sequence[Sight], timers: Timers) -> tuple[str, ...]:
    """The members that count for the majority: this node and those it hears."""
    return tuple(sight.name for sight in sights if sight.name == me or heard(sight, timers))


def judge(me: str, sight: Sight, timers: Timers) -> Judgement:
    """What is known of a member."""
    problems = "; ".join(sight.heartbeat.health.problems) if sight.heartbeat is not None else ""
    if sight.name == me:
        return Judgement(standing=Standing.READY, reason=problems)
    on_mesh, in_store = heard(sight, timers), renews(sight, timers)
    if on_mesh and in_store:
        return Judgement(standing=Standing.READY, reason=problems)
    if on_mesh:
        return Judgement(standing=Standing.DEGRADED, reason=_store_silence(sight))
    if sight.lease is not None and sight.lease.stopped:
        return Judgement(standing=Standing.STOPPED, reason="its daemon was stopped; its guests run on")
    if sight.refused is not None:
        reason = "its host refuses connections: it is up, and its daemon is not running"
        return Judgement(standing=Standing.DEGRADED, reason=reason)
    if sight.connected is not None and sight.connected <= timers.mesh_silent:
        return Judgement(standing=Standing.DEGRADED, reason="connected, and not heard yet")
    mesh = _mesh_silence(sight)
    if in_store:
        return Judgement(standing=Standing.DEGRADED, reason=mesh)
    if sight.heard is None and sight.lease is None:
        return Judgement(standing=Standing.UNKNOWN, reason="never heard of since this daemon started")
    return Judgement(standing=Standing.SILENT, reason=f"{mesh}, {_store_silence(sight)}")


def _mesh_silence(sight: Sight) -> str:
    if sight.heard is None:
        return "never heard on the mesh"
    return f"silent on the mesh for {sight.heard:.1f} s"


def _store_silence(sight: Sight) -> str:
    if sight.lease is None:
        return "has no lease in the store"
    if sight.lease.stopped:
        return "its lease says that it has stopped"
    return f"silent in the store for {sight.lease_age:.1f} s"
