"""How far a drain is: its record, from its beginning to its end, and the VMs that may come back afterwards.

Invariant: the record follows from what is there; a master that takes over goes on with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from reconciler.planning.eviction import NEXT, Evictions, Guest
from reconciler.planning.node_intents import InForce
from reconciler.resources.status import DrainWait, NodeMasterStatus

DOWN = "it is shut down with the node"


def drain_status(
    name: str,
    before: NodeMasterStatus | None,
    asked: InForce,
    guests: Sequence[Guest],
    evictions: Evictions,
    now: str,
) -> NodeMasterStatus | None:
    """The record of this node's drain now; None when there never was one. `now`: wall-clock time."""
    if asked.drain:
        return _going_on(name, before, asked, guests, evictions, now)
    if before is None:
        return None
    away = _still_away(name, before.away, guests) if asked.bring_back else ()
    back = tuple(
        DrainWait(vm=held.vm, reason=held.reason)
        for held in evictions.held
        if held.node == name and held.vm in away
    )
    return replace(
        before,
        finished=before.finished or now,
        cancelled=before.cancelled or not before.finished,
        away=away,
        waiting=back,
    )


def _going_on(
    name: str,
    before: NodeMasterStatus | None,
    asked: InForce,
    guests: Sequence[Guest],
    evictions: Evictions,
    now: str,
) -> NodeMasterStatus:
    id = asked.drain
    if before is None or before.drain != id or before.cancelled:
        earlier = before.away if before is not None else ()
        before = NodeMasterStatus(uid=name, drain=id, started=now, away=earlier)
    why = {held.vm: held.reason for held in evictions.held if held.node == name}
    begun = {move.vm: move for move in evictions.moves if move.source == name}
    waiting = []
    for guest in guests:
        vm = guest.demand.name
        if vm in begun:
            waiting.append(DrainWait(vm=vm, reason=f"it goes to {begun[vm].target}", going=True))
        elif guest.leaving == name:
            waiting.append(
                DrainWait(vm=vm, reason=guest.note or f"it goes to {guest.demand.node}", going=True)
            )
        elif guest.demand.node == name and guest.demand.going and not guest.demand.fixed:
            waiting.append(DrainWait(vm=vm, reason="it is being stopped", going=True))
        elif guest.demand.node == name and guest.leaving is None and not guest.demand.going:
            reason = DOWN if asked.stops else why.get(vm, NEXT)
            waiting.append(DrainWait(vm=vm, reason=reason, going=reason in (NEXT, DOWN)))
    stopped = [each.vm for each in waiting if each.reason == DOWN]
    empty = not any(name in (guest.demand.node, guest.leaving) for guest in guests)
    return replace(
        before,
        finished=(before.finished or now) if empty else "",
        away=tuple(sorted({*before.away, *begun, *stopped})),
        waiting=tuple(sorted(waiting, key=lambda each: each.vm)),
    )


def _still_away(name: str, away: Sequence[str], guests: Sequence[Guest]) -> tuple[str, ...]:
    """Without those that are back, and those that do not run any more."""
    home = {g.demand.name for g in guests if g.demand.node == name and g.leaving is None}
    there = {guest.demand.name for guest in guests}
    return tuple(vm for vm in away if vm in there and vm not in home)
