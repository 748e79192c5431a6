"""How many more VMs of a kind fit, and whether everything still fits when any one node is lost (N+1).

Invariant: what is said to fit was placed, by the function that the master uses. VMs that could run on no
other node even if these were empty (their disks are there, their constraints name it) are not held against
the reserve: no free memory would save them. They are told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from reconciler.planning.packing.plans import losses_of
from reconciler.planning.placement import NamedConstraint, NodeView, Placement, VmDemand, place
from reconciler.planning.reasons import Rejection

MOST = 1000
"""More than so many are not counted."""
COPY = "~"
"""Marks the names of copies: no manifest can have such a name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """What is left without a place when `node` is lost. `pinned`: VMs that can run nowhere else at all."""

    node: str
    vms: tuple[str, ...] = ()
    pinned: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Headroom:
    """`fit`: how many more, filling up; `with_reserve`: so many that any one node may still be lost. `short`:
    node losses that today's VMs would not survive; `then`: the loss that one more would not; `next`: why one
    more than `fit` finds no place. `more`: both are at least MOST."""

    fit: int
    with_reserve: int
    short: tuple[Lost, ...] = ()
    pinned: tuple[Lost, ...] = ()
    then: Lost | None = None
    next: tuple[Rejection, ...] = ()
    more: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """What is there."""

    nodes: tuple[NodeView, ...]
    vms: tuple[VmDemand, ...]
    constraints: tuple[NamedConstraint, ...]


def never() -> bool:
    """Goes on to the end."""
    return False


def headroom(cluster: Cluster, like: VmDemand, stop: Callable[[], bool] = never) -> Headroom:
    """For VMs like this one; where it is does not matter. `stop()`: whether nobody wants to know any more, so
    that the answer may be wrong."""
    settled = replace(cluster, vms=_placed(cluster))
    today = losses(settled)
    short = tuple(lost for lost in today if lost.vms)
    fit = _largest(lambda count: not stop() and _with(settled, like, count) is not None)
    reserve, then = 0, short[0] if short else None
    if not short:
        reserve = _largest(lambda count: not stop() and _survives(settled, like, count))
        bigger = _with(settled, like, reserve + 1) if reserve < fit else None
        then = next(_fatal(bigger, like), None) if bigger is not None else None
    return Headroom(
        fit=fit,
        with_reserve=reserve,
        short=short,
        pinned=tuple(replace(lost, vms=()) for lost in today if lost.pinned),
        then=then,
        next=_why_not(settled, like, fit + 1) if fit < MOST else (),
        more=fit >= MOST,
    )


def losses(cluster: Cluster, new: frozenset[str] = frozenset()) -> tuple[Lost, ...]:
    """For each node with VMs whose loss would leave some without a place. All VMs that have one count where
    they are. `new`: VMs that are never pinned; who adds them wants them to survive."""
    by_name = {vm.name: vm for vm in cluster.vms}
    found = []
    for node, left in sorted(losses_of(cluster.nodes, cluster.vms, cluster.constraints).items()):
        others = tuple(other for other in cluster.nodes if other.name != node)
        old = [by_name[name] for name in left if name not in new]
        pinned = {vm.name for vm in old if not _could(others, vm, cluster.constraints)}
        if left:
            vms = tuple(sorted(set(left) - pinned))
            found.append(Lost(node=node, vms=vms, pinned=tuple(sorted(pinned))))
    return tuple(found)


def _could(nodes: Sequence[NodeView], vm: VmDemand, constraints: Sequence[NamedConstraint]) -> bool:
    """Whether these nodes could take the VM if there were no others; cordoned ones could one day."""
    empty = [replace(node, refuses="") for node in nodes]
    return bool(place(empty, [replace(vm, node=None)], constraints).bindings)


def _placed(cluster: Cluster) -> tuple[VmDemand, ...]:
    """The VMs where they are, and those that wait where they would be put; who gets no place is left out."""
    bindings = place(cluster.nodes, cluster.vms, cluster.constraints).bindings
    vms = (replace(vm, node=bindings.get(vm.name, vm.node), leaves=False) for vm in cluster.vms)
    return tuple(vm for vm in vms if vm.node is not None)


def _copies(like: VmDemand, count: int) -> list[VmDemand]:
    """VMs of its kind. A constraint that names the VM names none of them."""
    return [
        replace(like, name=f"{like.name}{COPY}{number:05}", node=None, failed={}, leaves=False, homes=())
        for number in range(count)
    ]


def _with(cluster: Cluster, like: VmDemand, count: int) -> Cluster | None:
    """The cluster with so many more; None when they do not all fit."""
    copies = _copies(like, count)
    bindings = place(cluster.nodes, [*cluster.vms, *copies], cluster.constraints).bindings
    if any(copy.name not in bindings for copy in copies):
        return None
    return replace(cluster, vms=(*cluster.vms, *(replace(copy, node=bindings[copy.name]) for copy in copies)))


def _survives(cluster: Cluster, like: VmDemand, count: int) -> bool:
    bigger = _with(cluster, like, count)
    return bigger is not None and next(_fatal(bigger, like), None) is None


def _fatal(cluster: Cluster, like: VmDemand) -> Iterator[Lost]:
    """The losses that VMs do not survive which could."""
    new = frozenset(vm.name for vm in cluster.vms if vm.name.startswith(f"{like.name}{COPY}"))
    return (lost for lost in losses(cluster, new) if lost.vms)


def _largest(fits: Callable[[int], bool]) -> int:
    """The largest number that fits, MOST at most: doubled until one does not, then halved in between."""
    low, high = 0, 1
    while high < MOST and fits(high):
        low, high = high, high * 2
    high = min(high, MOST + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _why_not(cluster: Cluster, like: VmDemand, count: int) -> tuple[Rejection, ...]:
    copies = _copies(like, count)
    placement = place(cluster.nodes, [*cluster.vms, *copies], cluster.constraints)
    left = next((copy.name for copy in copies if copy.name not in placement.bindings), "")
    return rejections(placement, left)


def rejections(placement: Placement, vm: str) -> tuple[Rejection, ...]:
    """Each node and why it does not take a VM that was not placed."""
    refused = placement.refused.get(vm, {})
    return tuple(Rejection(node=node, reason=why) for node, why in sorted(refused.items()))
