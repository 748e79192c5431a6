"""The master's decision for one live migration: its next step, from the record and what both hosts say.

Invariants (SAFETY rules 5 and 17):
* The target's copy arrives paused, and runs only after the claim is the target's alone. That needs the source
  to be proven gone, and its call to have succeeded: a source that ran on has written what the target's memory
  does not know. So while the source exists it wins, and the target's copy is ended.
* The source calls at most once: `called` and the phase are written against each other's revisions.
* Both hosts are looked at after the source is done: a look counts only if it names the phase Resolving.
* A claim with two nodes is emptied only with proof for both. What is not known is waited for.
Every step can be repeated, and follows from the store alone: a master that takes over goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from reconciler.resources.migrations import (
    ENDED,
    CallResult,
    ClaimMigration,
    Look,
    MigrationPhase,
    MigrationRecord,
    MigrationSide,
)
from reconciler.resources.records import Claim, ClaimPhase

FOUND_GONE = frozenset({Look.ABSENT, Look.DEAD})
SLOWEST = 16 * 2**20
"""Bytes per second that a copying must reach on average, or its time is up."""

AT_LEAST = 60.0
"""Seconds that a copying may always take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Nothing to do but to look again; `reason` says for what."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuse:
    """It cannot be: the record ends, nothing has been touched."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """Write the claim with both nodes. Compares, besides the claim and the record: the epoch, the binding,
    both sessions, that there is no fence of either node, and power On."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Go:
    """On to the next phase; `compares` both sides as well."""

    phase: MigrationPhase


@dataclass(frozen=True, slots=True, kw_only=True)
class Abort:
    """Record why it is to end early: the source ends the hypervisor's job."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Record that the guest is to stand still until the rest of its memory is over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """Record that these nodes are to destroy their copies."""

    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settle:
    """Write the claim, and the record's end, in one transaction that compares both, and both sides. The keys
    of the images go to the claim's node; with an empty one they are given up."""

    claim: Claim
    phase: MigrationPhase
    message: str


Step = Wait | Refuse | Open | Go | Abort | Hold | End | Settle


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """`claim`: as the store has it. `sides`, `sessions`: by node; what was said in an earlier session is not
    taken for what is. `obstacle`: why it cannot be opened at all; `turn`: what it waits for. `overdue`: its
    time is up. `leaving`: the migration was deleted or the VM is to stop, and why."""

    record: MigrationRecord
    claim: Claim | None
    sides: Mapping[str, MigrationSide]
    sessions: Mapping[str, int]
    obstacle: str = ""
    turn: str = ""
    overdue: bool = False
    leaving: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is asked for: by a person, a drain (`drain`: its id) or a plan (`reason`). `memory` in bytes,
    `bandwidth` in bytes per second (0: unlimited). `may_hold`: see MigrationRecord."""

    vm: str
    target: str
    memory: int
    reason: str
    bandwidth: int = 0
    may_hold: bool = False
    drain: str = ""


def request_migration(wanted: Wanted, claim: Claim, *, id: str, requested: str) -> MigrationRecord:
    """The record with which every migration begins. `requested`: the time of day."""
    return MigrationRecord(
        id=id,
        vm=wanted.vm,
        uid=claim.uid,
        source=claim.node,
        target=wanted.target,
        bandwidth=wanted.bandwidth,
        limit=limit_of(wanted.memory, wanted.bandwidth),
        may_hold=wanted.may_hold,
        reason=wanted.reason,
        drain=wanted.drain,
        requested=requested,
    )


def limit_of(memory: int, bandwidth: int) -> float:
    """Seconds that the copying may take: four times what a quiet guest's memory takes."""
    rate = min(bandwidth, SLOWEST) if bandwidth else SLOWEST
    return max(AT_LEAST, 4.0 * memory / rate)


def longest(record: MigrationRecord) -> float:
    """Seconds that the copying may take by the record as it is now; while the guest is held, too."""
    return 2.0 * record.limit if record.hold else record.limit


def hosts_of(claim: Claim) -> tuple[str, ...]:
    """The nodes that must be proven gone before the claim is emptied."""
    moving = claim.migration
    if moving is None:
        return (claim.node,) if claim.node else ()
    return tuple(node for node in (moving.source, moving.target) if node not in moving.gone)


def opened(facts: Facts) -> Claim:
    """The claim that names both nodes."""
    assert facts.claim is not None
    record = facts.record
    mark = ClaimMigration(id=record.id, source=record.source, target=record.target)
    return replace(facts.claim, migration=mark)


def without(claim: Claim, node: str) -> Claim:
    """The claim of a migration after one of its hosts is proven cut off: it names the other one still.

    Its clients stay recorded, so that they are closed out before the VM starts again (SAFETY rule 8). With
    neither host left the caller empties it like any claim.
    """
    moving = claim.migration
    if moving is None or node not in (moving.source, moving.target) or node in moving.gone:
        return claim
    return replace(claim, migration=replace(moving, gone=tuple(sorted({*moving.gone, node}))))


def share_of(claim: Claim, node: str, said: MigrationSide | None) -> Claim:
    """The claim as far as it is this host's: while a migration is open, with its own clients only, so that
    nothing that is done to it is done to the other one. `said`: what the host has said of the migration."""
    moving = claim.migration
    if moving is None or node == moving.source:
        return claim
    clients = said.clients if said is not None and said.id == moving.id else ()
    return replace(claim, node=node, clients=clients)


def next_step(facts: Facts) -> Step:
    """What the master does now."""
    record, claim = facts.record, facts.claim
    if record.phase in ENDED:
        return Wait(reason="it has ended")
    moving = claim.migration if claim is not None else None
    if record.phase is MigrationPhase.PENDING:
        return _begin(facts)
    if claim is not None and not claim.node and claim.uid == record.uid:
        words = f"node {record.source} and node {record.target} were both lost: it is started again"
        return Refuse(reason=words)
    if claim is None or moving is None or moving.id != record.id:
        return Refuse(reason="the record of who owns the VM was changed by somebody else")
    source, target = _side(facts, moving, record.source), _side(facts, moving, record.target)
    match record.phase:
        case MigrationPhase.OPEN:
            return _await_target(facts, moving, source, target)
        case MigrationPhase.RUNNING:
            return _follow(facts, moving, source)
        case _:
            return _resolve(facts, claim, moving, source, target)


def _side(facts: Facts, moving: ClaimMigration, node: str) -> MigrationSide | None:
    side = facts.sides.get(node)
    if node in moving.gone or side is None or side.id != facts.record.id:
        return None
    return side if side.session == facts.sessions.get(node) else None


def _heard(facts: Facts) -> bool:
    """Whether the source heard that its copy had ended with the call: that stays true whatever comes."""
    side = facts.sides.get(facts.record.source)
    return side is not None and side.id == facts.record.id and side.result is CallResult.SUCCEEDED


def _begin(facts: Facts) -> Step:
    record, claim = facts.record, facts.claim
    if facts.leaving:
        return Refuse(reason=facts.leaving)
    if claim is None or claim.uid != record.uid or claim.node != record.source:
        return Refuse(reason=f"it does not run on node {record.source} any more")
    if record.source == record.target:
        return Refuse(reason=f"it is on node {record.target} already")
    if claim.phase is not ClaimPhase.RUNNING:
        return Wait(reason="it is being started")
    if facts.obstacle:
        return Refuse(reason=facts.obstacle)
    if claim.migration is not None:
        return Wait(reason="another migration of it is under way")
    if facts.turn:
        return Wait(reason=facts.turn)
    return Open()


def _early(facts: Facts, moving: ClaimMigration) -> str:
    """Why it is to end before its time, or empty."""
    if moving.target in moving.gone:
        return f"node {moving.target} was lost"
    if facts.leaving:
        return facts.leaving
    return f"it took longer than {longest(facts.record):.0f} s" if facts.overdue else ""


def _obstacle(*sides: MigrationSide | None) -> str:
    """What a host has found that is in the way, before anything has happened."""
    return next((side.obstacle for side in sides if side is not None and side.obstacle), "")


def _await_target(
    facts: Facts, moving: ClaimMigration, source: MigrationSide | None, target: MigrationSide | None
) -> Step:
    why = _early(facts, moving) or _obstacle(source, target)
    if moving.source in moving.gone or facts.record.abort:
        return Go(phase=MigrationPhase.RESOLVING)
    if why:
        return Abort(reason=why)
    if source is None or source.phase is not MigrationPhase.OPEN or source.look is Look.UNKNOWN:
        return Wait(reason=f"waiting for node {moving.source} to say that it runs")
    if source.look is not Look.RUNNING:
        return Abort(reason=f"it does not run on node {moving.source} any more")
    if target is None or not target.ready:
        return Wait(reason=f"waiting for node {moving.target} to be ready for it")
    return Go(phase=MigrationPhase.RUNNING)


def _follow(facts: Facts, moving: ClaimMigration, source: MigrationSide | None) -> Step:
    if moving.source in moving.gone:
        return Go(phase=MigrationPhase.RESOLVING)
    if source is not None and not source.busy and (source.called or facts.record.abort):
        return Go(phase=MigrationPhase.RESOLVING)
    why = _early(facts, moving)
    if why and not facts.record.abort:
        return Hold() if _can_be_held(facts, moving, source) else Abort(reason=why)
    if source is None:
        return Wait(reason=f"waiting for node {moving.source} to say how far it is")
    if not source.called:
        return Wait(reason="it is about to begin")
    held = "; it stands still meanwhile" if facts.record.hold else ""
    return Wait(reason=f"its memory is being copied{held}")


def _can_be_held(facts: Facts, moving: ClaimMigration, source: MigrationSide | None) -> bool:
    """Whether nothing but its time speaks against the migration, and the guest has not been held yet."""
    record, wanted = facts.record, not facts.leaving and moving.target not in moving.gone
    called = source is not None and source.called
    return facts.overdue and wanted and called and record.may_hold and not record.hold


def look_of(moving: ClaimMigration, node: str, side: MigrationSide | None) -> Look:
    """What is known of a host now that the source is done. Looks from before that say nothing."""
    if node in moving.gone:
        return Look.DEAD
    if side is None or side.phase is not MigrationPhase.RESOLVING or side.busy:
        return Look.UNKNOWN
    return side.look


def _resolve(
    facts: Facts,
    claim: Claim,
    moving: ClaimMigration,
    source: MigrationSide | None,
    target: MigrationSide | None,
) -> Step:
    here, there = look_of(moving, moving.source, source), look_of(moving, moving.target, target)
    if Look.UNKNOWN in (here, there):
        blind = [n for n, look in ((moving.source, here), (moving.target, there)) if look is Look.UNKNOWN]
        return Wait(reason=f"waiting for node {' and node '.join(blind)} to say what it has of the guest")
    left = _left_over(moving, here, there, heard=_heard(facts))
    if left:
        ordered = set(left) <= set(facts.record.ends)
        words = f"waiting for the copy on node {' and node '.join(left)} to be ended"
        return Wait(reason=words) if ordered else End(nodes=left)
    if here not in FOUND_GONE:
        return Settle(claim=kept(claim, here), phase=_unsuccessful(facts), message=_kept_words(facts, source))
    if there not in FOUND_GONE and target is not None:
        words = f"it runs on node {moving.target}"
        return Settle(claim=passed(claim, target), phase=MigrationPhase.SUCCEEDED, message=words)
    words = f"neither node {moving.source} nor node {moving.target} has it any more: it is started again"
    return Settle(claim=nobodys(claim, moving, source, target), phase=MigrationPhase.FAILED, message=words)


def _left_over(moving: ClaimMigration, here: Look, there: Look, *, heard: bool) -> tuple[str, ...]:
    """Whose copies are to be ended before it can be settled."""
    if Look.BROKEN in (here, there):
        both = ((moving.source, here), (moving.target, there))
        return tuple(node for node, look in both if look not in FOUND_GONE)
    if there in FOUND_GONE:
        return ()
    if here not in FOUND_GONE:
        return (moving.target,)
    return () if there is Look.READY and heard else (moving.target,)


def _unsuccessful(facts: Facts) -> MigrationPhase:
    return MigrationPhase.CANCELLED if facts.record.abort and facts.leaving else MigrationPhase.FAILED


def _kept_words(facts: Facts, source: MigrationSide | None) -> str:
    said = source.obstacle if source is not None else ""
    why = facts.record.abort or said or "the copying failed"
    return f"{why}; it goes on where it was, on node {facts.record.source}"


def kept(claim: Claim, here: Look) -> Claim:
    """The source's alone again. What the migration suspended is resumed: `paused` says that the pause is
    ours, and nobody else's pause is."""
    return replace(claim, migration=None, paused=claim.paused or here is Look.PAUSED)


def passed(claim: Claim, target: MigrationSide) -> Claim:
    """The target's alone. Its copy is paused by our order, so it is resumed; the clients are in before."""
    return replace(
        claim,
        node=target.node,
        boot_id=target.boot_id,
        session=target.session,
        clients=target.clients,
        former_clients=_lingering(claim.former_clients, claim.clients),
        migration=None,
        paused=True,
    )


def nobodys(
    claim: Claim, moving: ClaimMigration, source: MigrationSide | None, target: MigrationSide | None
) -> Claim:
    """Emptied with proof for both. The run is not over: it keeps its start, and ends without an exit."""
    seen = tuple(client for side in (source, target) if side is not None for client in side.clients)
    return Claim(
        uid=claim.uid,
        former_clients=_lingering(claim.former_clients, claim.clients, seen),
        generation=claim.generation,
        start=claim.start,
        restart=claim.restart,
        reset=claim.reset,
        controller=claim.controller,
    )


def _lingering(*clients: tuple[str, ...]) -> tuple[str, ...]:
    found = {client for some in clients for client in some if not client.startswith("pid:")}
    return tuple(sorted(found))
