"""Which VMs are asked to power off now, which are ended the hard way, and when a host may go off itself.

The less important VMs stop first, and each after those that start after it. A VM that hangs cannot use up
the time of the others: when the share of its wave has passed the next one is asked as well, so that every
guest has been asked well before the deadline. Nothing is ended the hard way before the deadline.

Invariants: the decision follows from how much time has passed, so that any node can make it alone, at any
moment, without a memory of its own; and what is unknown counts as standing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from reconciler.resources.shutdowns import ShutdownOrder
from reconciler.resources.startorder import Order

LAST_SHARE = 0.5
"""The last wave is asked no later than at this part of the deadline: it has the other part for itself."""

HOST_GRACE = 15.0
"""Seconds after the deadline when a host goes off although something still stands: batteries run out."""

MOST_NAMED = 4


class Turn(StrEnum):
    """What is done to a VM. Gone: nothing is left of it; only a proof makes it so."""

    WAIT = "Wait"
    ASK = "Ask"
    END = "End"
    GONE = "Gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class StopTurn:
    """`left`: seconds until the deadline; `reason`: what it waits for, or why it is ended, for people."""

    turn: Turn
    left: float
    reason: str = ""


def stop_turns(
    order: Order, gone: Collection[str], shutdown: ShutdownOrder, passed: float
) -> dict[str, StopTurn]:
    """What is done to each VM now. `gone`: those that are proven gone, or never ran; `passed`: seconds since
    this node heard of the shutdown."""
    left = max(0.0, shutdown.deadline - passed)
    standing = {vm for vm in order.places if vm not in gone}
    lowest = min((order.places[vm].weight for vm in standing), default=0)
    turns: dict[str, StopTurn] = {}
    for vm, place in sorted(order.places.items()):
        if vm not in standing:
            turns[vm] = StopTurn(turn=Turn.GONE, left=left)
        elif left <= 0:
            reason = f"it did not power off within {shutdown.deadline:.0f} s"
            turns[vm] = StopTurn(turn=Turn.END, left=0.0, reason=reason)
        else:
            later = latest(order, place.wave, shutdown.deadline) - passed
            why = _waits(order, vm, standing, lowest) if later > 0 else ""
            reason = f"{why}; at the latest in {later:.0f} s" if why else ""
            turns[vm] = StopTurn(turn=Turn.WAIT if why else Turn.ASK, left=left, reason=reason)
    return turns


def latest(order: Order, wave: int, deadline: float) -> float:
    """Seconds from the beginning after which a VM of this wave is asked, whatever still stands."""
    return deadline * LAST_SHARE * wave / max(1, order.waves - 1)


def _waits(order: Order, vm: str, standing: Collection[str], lowest: int) -> str:
    place = order.places[vm]
    users = [other for other in place.before if other in standing]
    if users:
        return f"it stops after {_named(users)}, which start{'s' if len(users) == 1 else ''} after it"
    if place.weight > lowest:
        less = [other for other in standing if order.places[other].weight < place.weight]
        return f"it stops after {_named(less)}, of less priority"
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What has not been seen to be gone. `where`: by VM, the nodes on which it stands or may stand; `silent`:
    nodes that may have guests and did not say."""

    where: Mapping[str, tuple[str, ...]]
    silent: tuple[str, ...]


def standing(hosts: Mapping[str, Sequence[str]], looks: Mapping[str, Collection[str] | None]) -> Standing:
    """`hosts`: by VM, the nodes that have a claim to it; `looks`: by node, the VMs that it sees there since
    the order, None when it could not look. A node that is not in `looks` has not said anything; what one has
    said stays true when it falls silent, since it starts nothing any more."""
    where: dict[str, set[str]] = {}
    silent: set[str] = set()
    for node, seen in looks.items():
        for vm in seen or ():
            where.setdefault(vm, set()).add(node)
    for vm, nodes in hosts.items():
        unknown = {node for node in nodes if looks.get(node) is None}
        silent |= unknown
        if unknown:
            where.setdefault(vm, set()).update(unknown)
    return Standing(
        where={vm: tuple(sorted(nodes)) for vm, nodes in sorted(where.items())}, silent=tuple(sorted(silent))
    )


def host_waits(shutdown: ShutdownOrder, standing: Iterable[str], silent: Iterable[str], passed: float) -> str:
    """Why the host does not switch itself off now, or nothing. Other hosts' guests may have their disks here,
    so all of them have to be gone. `standing`: VMs that are not proven gone, anywhere; `silent`: nodes whose
    guests nobody knows of."""
    if not shutdown.power_off:
        return "hosts stay on: the shutdown was ordered without --power-off-hosts"
    left = shutdown.deadline + HOST_GRACE - passed
    vms, nodes = sorted(standing), sorted(silent)
    if left <= 0 or not (vms or nodes):
        return ""
    what = [f"{_named(vms)} to stop"] if vms else []
    what += [f"word from node{'s' if len(nodes) > 1 else ''} {_named(nodes)}"] if nodes else []
    return f"the host waits for {' and for '.join(what)}, at most {left:.0f} s"


def _named(names: Iterable[str]) -> str:
    found: Sequence[str] = sorted(names)
    if len(found) <= MOST_NAMED:
        return ", ".join(found)
    return f"{', '.join(found[:MOST_NAMED])} and {len(found) - MOST_NAMED} more"
