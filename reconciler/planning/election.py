"""Who is master: a predefined hierarchy, a majority, and one compared number in the store (DESIGN §5).

`epoch` in the store says who was last; every master write compares it, so no decision here can make two
masters that both write. The lease of the epoch's holder says whether it still acts: it carries the epoch's
number, and is judged by the local time since it was last seen to change, as client-go's leader election does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from reconciler.planning.liveness import HUBS, Sight, heard, majority, renews, seen
from reconciler.planning.timers import Timers
from reconciler.resources.records import Epoch

MAX_DOUBLINGS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class ElectionView:
    """What a node decides from. `sights`: every member in the order of the hierarchy, this node included.

    `holding`: the epoch that this node holds; `renewed`: seconds since it sent the last renewal of its lease
    that was acknowledged (None: none yet); `problems`: why it cannot be master, besides the majority;
    `leases_current`: the leases were read after the present epoch was first seen; `vacant_for`: seconds for
    which nobody has been master, as this node sees it; `off`: the nodes whose hosts a fence agent has
    switched off, and seen to be off, since they were last heard.
    """

    me: str
    sights: Sequence[Sight]
    epoch: Epoch | None = None
    holding: int | None = None
    renewed: float | None = None
    problems: tuple[str, ...] = ()
    leases_current: bool = True
    vacant_for: float = 0.0
    off: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Idle:
    """Not master, for this reason."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """Try to take the next epoch."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Stay master."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepDown:
    """Be master no more; `successor` may take over at once."""

    reason: str
    successor: str | None = None


Decision: TypeAlias = Idle | Campaign | Hold | StepDown


def elect(view: ElectionView, timers: Timers) -> Decision:
    """What this node does about mastership now."""
    if view.holding is not None:
        return _keep(view, timers)
    unfit = unfitness(view, timers)
    if unfit:
        return Idle(reason=unfit)
    vacant = vacancy(view, timers)
    if not vacant:
        return Idle(reason=f"{view.epoch.holder if view.epoch else ''} is master")
    first = _first_choice(view, timers)
    if first != view.me and view.vacant_for <= timers.master_taken:
        return Idle(reason=f"{vacant}; leaving it to {first}")
    if _behind_another(view, timers) and view.vacant_for < 2 * timers.mesh_heartbeat:
        return Idle(reason=f"{vacant}; listening whether a node of a better rank is fit")
    return Campaign(reason=vacant)


def unfitness(view: ElectionView, timers: Timers) -> str:
    """Why this node could not be master now; empty when it could."""
    if view.problems:
        return "; ".join(view.problems)
    names = [sight.name for sight in view.sights]
    if view.me not in names:
        return "this node is not a member of the cluster"
    if len(names) > HUBS and view.me not in names[:HUBS]:
        return f"only the first {HUBS} nodes in rank can be master"
    found, needed = seen(view.me, view.sights, timers), majority(len(names))
    if len(found) < needed:
        return f"no majority: {len(found)} of {len(names)} nodes are seen, {needed} are needed"
    return ""


def vacancy(view: ElectionView, timers: Timers) -> str:
    """Why nobody is master; empty while somebody is, or may be."""
    if view.holding is not None:
        return ""
    epoch = view.epoch
    if epoch is None:
        return "there has been no master yet"
    if epoch.holder == view.me:
        return f"epoch {epoch.epoch} was this node's own"
    holder = next((sight for sight in view.sights if sight.name == epoch.holder), None)
    if holder is None:
        return f"{epoch.holder}, which held epoch {epoch.epoch}, is no member any more"
    if holder.name in view.off and not heard(holder, timers):
        # A last renewal that lands when a stall of the store ends is no sign of life.
        return f"{holder.name}'s host was switched off"
    if holder.lease_age >= timers.master_taken:
        return f"{holder.name}'s lease has not changed for {holder.lease_age:.1f} s"
    if not view.leases_current or holder.lease is None:
        return ""
    if holder.lease.mastering != epoch.epoch:
        return f"{holder.name} has given up epoch {epoch.epoch}"
    return ""


def settle_seconds(falls: int, timers: Timers) -> float:
    """How long a better-ranked node must have been fit: twice that for each time but one that it fell."""
    return timers.master_settle * 2.0 ** min(max(falls - 1, 0), MAX_DOUBLINGS)


def _keep(view: ElectionView, timers: Timers) -> Hold | StepDown:
    epoch = view.epoch
    if epoch is None or epoch.epoch != view.holding or epoch.holder != view.me:
        other = f"{epoch.holder} took epoch {epoch.epoch}" if epoch is not None else "the epoch is gone"
        return StepDown(reason=other)
    if view.renewed is not None and view.renewed > timers.master_steps_down:
        return StepDown(reason=f"its lease was not renewed for {view.renewed:.1f} s")
    unfit = unfitness(view, timers)
    if unfit:
        return StepDown(reason=unfit)
    better = _better(view, timers)
    if better is not None:
        return StepDown(reason=f"{better} is of a better rank and fit", successor=better)
    return Hold()


def _better(view: ElectionView, timers: Timers) -> str | None:
    """The first node in the hierarchy before this one that has been fit for long enough."""
    for sight in view.sights:
        if sight.name == view.me:
            return None
        settled = sight.eligible_for >= settle_seconds(sight.falls, timers)
        if settled and _eligible(sight, timers) and renews(sight, timers):
            return sight.name
    return None


def _first_choice(view: ElectionView, timers: Timers) -> str:
    """Who should take a vacant mastership: whom the last master named, else the first that is fit."""
    named = _named_successor(view, timers)
    if named is not None:
        return named
    for sight in view.sights:
        if sight.name == view.me or _eligible(sight, timers):
            return sight.name
    return view.me


def _behind_another(view: ElectionView, timers: Timers) -> bool:
    """Whether a node of a better rank is there, fit or not."""
    names = [sight.name for sight in view.sights]
    return any(heard(sight, timers) for sight in view.sights[: names.index(view.me)])


def _named_successor(view: ElectionView, timers: Timers) -> str | None:
    if view.epoch is None:
        return None
    by_name = {sight.name: sight for sight in view.sights}
    holder = by_name.get(view.epoch.holder)
    lease = holder.lease if holder is not None else None
    if lease is None or lease.mastering is not None or lease.successor not in by_name:
        return None
    if lease.successor == view.me or _eligible(by_name[lease.successor], timers):
        return lease.successor
    return None


def _eligible(sight: Sight, timers: Timers) -> bool:
    return heard(sight, timers) and sight.heartbeat is not None and sight.heartbeat.eligible
