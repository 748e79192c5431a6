"""The cluster as one node sees it, as a value to show: who is there, who counts, who is master and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reconciler.planning.liveness import Sight, heard, judge, majority, seen
from reconciler.planning.timers import Timers
from reconciler.resources.membership import Member
from reconciler.resources.records import Epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """A link of the mesh in words: `state` as in ports/transport, `seconds` since it is so."""

    state: str
    seconds: float
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeLine:
    """One member. Ages in seconds; None: never, or not looked at. `here`: it is the node that tells; `link`
    is None for that one, and where none is kept. `since`: when `standing` was seen to change; empty when it
    has not since that node's start. `held`: why the node that tells keeps its guests paused, or (`ending`)
    ends them."""

    name: str
    rank: int
    address: str
    standing: str
    reason: str = ""
    link: Connection | None = None
    heartbeat_age: float | None = None
    lease_age: float | None = None
    version: str = ""
    schemas: tuple[int, ...] = ()
    revision: int | None = None
    load: float | None = None
    disk_free: int | None = None
    master: bool = False
    since: str = ""
    here: bool = False
    held: str = ""
    ending: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class QuorumLine:
    """`seen`: the nodes that this one counts, itself included."""

    nodes: int
    needed: int
    seen: tuple[str, ...]
    reached: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterView:
    """`master` is empty while there is none; `election`: what this node does about that, in words."""

    node: str
    nodes: tuple[NodeLine, ...]
    quorum: QuorumLine
    master: str = ""
    epoch: int = 0
    election: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the view is made from."""

    me: str
    members: Mapping[str, Member]
    sights: Sequence[Sight]
    links: Mapping[str, Connection]
    epoch: Epoch | None
    master: str
    election: str
    held: str = ""
    ending: bool = False


def cluster_view(known: Known, timers: Timers) -> ClusterView:
    """Lay it out, in the order of the hierarchy."""
    found = seen(known.me, known.sights, timers)
    needed = majority(len(known.sights))
    return ClusterView(
        node=known.me,
        nodes=tuple(_line(known, sight, timers) for sight in known.sights),
        quorum=QuorumLine(nodes=len(known.sights), needed=needed, seen=found, reached=len(found) >= needed),
        master=known.master,
        epoch=known.epoch.epoch if known.epoch is not None else 0,
        election=known.election,
    )


def _line(known: Known, sight: Sight, timers: Timers) -> NodeLine:
    judgement = judge(known.me, sight, timers)
    member, beat = known.members[sight.name], sight.heartbeat
    health = beat.health if beat is not None else None
    me = sight.name == known.me
    return NodeLine(
        name=sight.name,
        rank=sight.rank,
        address=f"{member.address}:{member.port}" if member.address else "",
        standing=judgement.standing.value,
        reason="; ".join(words for words in (judgement.reason, _store_trouble(sight, timers)) if words),
        link=known.links.get(sight.name),
        heartbeat_age=None if me or sight.heard is None else round(sight.heard, 1),
        lease_age=None if sight.lease is None else round(sight.lease_age, 1),
        version=beat.version if beat is not None and beat.version else member.version,
        schemas=member.schemas,
        revision=beat.revision if beat is not None else None,
        load=round(health.load, 2) if health is not None else None,
        disk_free=health.disk_free if health is not None else None,
        master=sight.name == known.master,
        here=me,
        held=known.held if me else "",
        ending=known.ending and me,
    )


def _store_trouble(sight: Sight, timers: Timers) -> str:
    """What a node that is heard says of its own way to the store, before its lease tells."""
    beat = sight.heartbeat
    away = beat is not None and not beat.health.store and heard(sight, timers)
    return "it says that the store does not answer it" if away else ""
