"""Whether a silent node's OSDs may be reported down to Ceph at once, and its host switched off in a stall.

A host that also runs OSDs takes everybody's I/O with it, the store's too: then no lease is renewed, nobody is
master, and no fence intent can be written, until Ceph has noticed. So this is decided without the store, from
what a majority of the nodes hears (SAFETY rule 13), by the best node that is there, master or not.

Invariant: `osd down` for an OSD that lives costs seconds of its service and nothing else: it marks itself up
again. That its data may be served by others at once (`--definitely-dead`) is said only with a proof that the
host has no power; and power is taken without an intent only in a stall, on the majority's word.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from reconciler.planning.judging import Judge, votes
from reconciler.planning.liveness import Sight, heard
from reconciler.planning.timers import Timers
from reconciler.resources.fencing import FenceRecord

MOST, PERIOD = 3, 600.0
"""Ceph's OSDs end when they are wrongly marked down more than 5 times in 600 s; this stays below."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unharmed:
    """Nothing is to be told of its OSDs; `reason` is empty when there is nothing to say."""

    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gone:
    """Ceph may be told that its OSDs are down. `power`: its host may be switched off before an intent could
    be written, because none can be."""

    reason: str
    power: bool = False


OsdVerdict: TypeAlias = Unharmed | Gone


def judge_osds(judge: Judge, sight: Sight, stalled: float, timers: Timers, *, owns: bool) -> OsdVerdict:
    """`stalled`: seconds since this node sent the last renewal of its lease that was acknowledged; `owns`:
    the node has claims or bindings, as far as the copy of the store says."""
    if sight.name == judge.me or sight.heard is None or heard(sight, timers):
        return Unharmed()
    if sight.lease is not None and sight.lease.stopped:
        return Unharmed(reason="its daemon was stopped in an orderly way")
    if not judge.power_on:
        return Unharmed(reason="the cluster's power is Off")
    if sight.refused is not None:
        return Unharmed(reason="its host refuses connections, so it is alive")
    if judge.ran_for < timers.mesh_silent:
        return Unharmed(reason=f"this node has itself run for {judge.ran_for:.1f} s only")
    stall = stalled >= 2 * timers.lease_renew
    if not stall and sight.lease_age <= timers.mesh_silent:
        return Unharmed(reason="its lease changes")
    found, needed = votes(judge, sight.name, timers)
    if len(found) < needed:
        return Unharmed(
            reason=f"only {len(found)} of the nodes ({', '.join(found)}) miss it, {needed} are needed"
        )
    if (speaker := _speaker(judge, timers)) != judge.me:
        return Unharmed(reason=f"{speaker} tells Ceph")
    store = f"the store has not answered for {stalled:.1f} s" if stall else "its lease stands still"
    return Gone(
        reason=f"silent on the mesh for {sight.heard:.1f} s (as {', '.join(found)} report), and {store}",
        power=stall and owns,
    )


def too_often(told: Sequence[float], now: float) -> bool:
    """Whether a node's OSDs were reported so often lately that another report could end living ones."""
    return sum(1 for at in told if now - at < PERIOD) >= MOST


def osds_of(
    addresses: Collection[str], others: Collection[str], known: Mapping[int, frozenset[str]]
) -> tuple[int, ...]:
    """The OSDs at a node's storage addresses. `known`: each OSD's addresses; an OSD with one that is also
    another node's (`others`) is nobody's."""
    mine = frozenset(addresses)
    return tuple(
        osd for osd, at in sorted(known.items()) if at & mine and not at & (frozenset(others) - mine)
    )


def definitely_dead(record: FenceRecord | None) -> bool:
    """Whether an agent or a person has proven that the host is off."""
    return record is not None and bool(record.powered_off or record.confirmed)


def _speaker(judge: Judge, timers: Timers) -> str:
    """One node tells Ceph: the first in the hierarchy that is there."""
    return next(
        (sight.name for sight in judge.sights if sight.name == judge.me or heard(sight, timers)), judge.me
    )
