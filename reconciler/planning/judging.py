"""Which silent nodes may be fenced. Being wrong here cuts a healthy host off, so silence must be proven.

Invariant (SAFETY rule 13): silence counts only while the judge itself ran without a gap and its own lease was
renewed meanwhile, and a majority must not hear the node either. A node that ended in an orderly way, and
every node while the cluster's power is Off, is left alone (rule 20).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from reconciler.planning.liveness import HUBS, Sight, heard, majority
from reconciler.planning.timers import Timers
from reconciler.resources.fencing import FenceCause

OWN_RENEWALS = 2
"""Renewals of the judge's own lease, acknowledged since the other's was last seen to change: a storage that
stalls makes every lease stale."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """The judging node. `ran_for`: seconds since it began, or last woke from a gap. `power_on`: VMs may run.
    `sights`: every member in the order of the hierarchy, itself included."""

    me: str
    sights: Sequence[Sight]
    ran_for: float
    power_on: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """The node in question. `renewals`: of the judge's own lease, acknowledged since this node's lease was
    last seen to change. `owns`: it has claims or bindings. `empty`: it says that no guest of the cluster is
    left on it. `off`: a fence agent has switched its host off in a stall of the store, and seen that it is
    off, on the word of the same majority that is asked here."""

    sight: Sight
    renewals: int
    owns: bool = True
    empty: bool = False
    off: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Spared:
    """Not to be fenced; `reason` is empty for a node about which there is nothing to say."""

    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """Suspicious, and not yet, or not allowed, to be fenced: people are told."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """To be fenced."""

    cause: FenceCause
    reason: str


Verdict: TypeAlias = Spared | Watched | Candidate


def judge_node(judge: Judge, suspect: Suspect, timers: Timers) -> Verdict:
    """Whether the node is to be fenced, from everything that is seen now."""
    sight = suspect.sight
    if sight.name == judge.me:
        return Spared()
    if sight.lease is not None and sight.lease.stopped:
        return Spared(reason="its daemon was stopped in an orderly way; its guests run on")
    if suspect.off and judge.power_on and suspect.owns and not heard(sight, timers):
        # Its lease cannot change any more. Waiting until it has stood still would only count the time after
        # the stall, in which the store told nobody anything.
        return _silent(judge, suspect, timers)
    in_store = sight.lease is not None and sight.lease_age <= timers.lease_silent
    if in_store:
        return Spared()
    if not suspect.owns:
        return Spared(reason="silent, and nothing runs or is to run on it")
    if not judge.power_on:
        return Spared(reason="silent, and the cluster's power is Off")
    if sight.lease_age <= timers.lease_silent:
        return Watched(reason="it has no lease in the store, and was not watched for long enough")
    if blind := blindness(judge, suspect, timers):
        return Watched(reason=f"silent, but {blind}")
    if heard(sight, timers):
        return _storage(suspect, timers)
    return _silent(judge, suspect, timers)


def blindness(judge: Judge, suspect: Suspect, timers: Timers) -> str:
    """Why this judge's view of the silence does not count; empty when it does."""
    needed = max(timers.mesh_silent, timers.lease_silent)
    if judge.ran_for < needed:
        return f"this node has itself run for {judge.ran_for:.1f} s only, {needed:g} s are needed"
    if suspect.renewals < OWN_RENEWALS:
        return "this node's own lease was not renewed twice meanwhile: the store may have stalled"
    return ""


def votes(judge: Judge, name: str, timers: Timers) -> tuple[tuple[str, ...], int]:
    """Who reports that the node is silent on the mesh, and how many must.

    Only nodes that keep a link to it have a voice, and only those that have been up for long enough to have
    heard it. The node itself is counted, so of two nodes no one can ever be outvoted.
    """
    order = [sight.name for sight in judge.sights]
    electorate = [sight for sight in judge.sights if sight.name == name or linked(sight.name, name, order)]
    found = tuple(
        sight.name
        for sight in electorate
        if sight.name != name and (sight.name == judge.me or _misses(sight, name, timers))
    )
    return found, majority(len(electorate))


def linked(one: str, other: str, order: Sequence[str]) -> bool:
    """Whether two nodes keep a link: all do in a small cluster, and each with the hubs in a large one."""
    hubs = order[:HUBS]
    return one != other and (len(order) <= HUBS or one in hubs or other in hubs)


def _misses(sight: Sight, name: str, timers: Timers) -> bool:
    """Whether this peer's heartbeats say, believably, that it does not hear the node."""
    beat = sight.heartbeat
    if beat is None or not heard(sight, timers):
        return False
    up_for = beat.sequence * timers.mesh_heartbeat
    return name not in beat.hears and up_for > 2 * timers.mesh_silent


def _silent(judge: Judge, suspect: Suspect, timers: Timers) -> Verdict:
    sight = suspect.sight
    found, needed = votes(judge, sight.name, timers)
    if len(found) < needed:
        return Watched(
            reason=f"silent on both channels, but only {len(found)} of the nodes "
            f"({', '.join(found)}) report that, {needed} are needed"
        )
    if sight.refused is not None:
        return _refused(suspect, timers)
    lease = (
        "its host was switched off"
        if suspect.off
        else f"its lease has not changed for {sight.lease_age:.1f} s"
    )
    mesh = "never heard on the mesh" if sight.heard is None else f"silent on the mesh for {sight.heard:.1f} s"
    return Candidate(
        cause=FenceCause.SILENT,
        reason=f"{mesh} (as {', '.join(found)} report), {lease}",
    )


def _refused(suspect: Suspect, timers: Timers) -> Verdict:
    """The host answers that nobody listens: it is alive, and its guests run well. The lease's age counts from
    the daemon's last sign, also for a master that is new."""
    age, grace = suspect.sight.lease_age, timers.daemon_grace
    what = f"its host is up and its daemon has been away for {age:.1f} s"
    if grace <= 0:
        return Watched(reason=f"{what}; daemonGrace is 0, so only people are told")
    if age < grace:
        return Watched(reason=f"{what}; it is fenced after {grace:g} s")
    return Candidate(cause=FenceCause.DAEMON_GONE, reason=what)


def _storage(suspect: Suspect, timers: Timers) -> Verdict:
    """Heard, and cut from the store: it destroys its guests after `storageGrace`, and says so. One that does
    not get that done is fenced all the same, after twice the time."""
    sight = suspect.sight
    what = f"heard on the mesh, but its lease has not changed for {sight.lease_age:.1f} s"
    says_so = sight.heartbeat is not None and not sight.heartbeat.health.store
    if sight.lease_age < timers.storage_grace or not says_so:
        return Watched(reason=f"{what}; it keeps its VMs for now")
    if suspect.empty:
        return Candidate(
            cause=FenceCause.STORAGE_LOST, reason=f"{what}, and it says that it ended its guests"
        )
    if sight.lease_age < 2 * timers.storage_grace:
        return Watched(reason=f"{what}; it is to end its guests")
    return Candidate(cause=FenceCause.STORAGE_LOST, reason=what)
