"""Where VMs go: bind what fits, and say for each VM and node why not.

Hard rules: the node takes work, node selector, taints, Required constraints, vCPU and memory. VMs are taken
in order of priority, then name; nodes by free memory, then name. Nothing that is placed is moved, but a VM
that its node gave up after failures, when another node fits that did not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from reconciler.resources.infrastructure import Taint
from reconciler.resources.placementconstraint import ConstraintType, Enforcement, PlacementConstraintSpec
from reconciler.resources.quantity import human_bytes
from reconciler.resources.virtualmachine import Toleration


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeView:
    """`cpu` (vCPUs) and `memory` (bytes) are what VMs may use, after reserve and overcommit.

    `refuses`: why the node takes no new VMs, empty when it does.
    """

    name: str
    cpu: float
    memory: int
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()
    controllers: frozenset[str] = frozenset()
    refuses: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedOn:
    """A node gave the VM up: how often it failed there, and why, in words."""

    count: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VmDemand:
    """One VM; `node` is where it is bound already, None when it is to be placed; `homes`: the nodes that
    alone have one of its images (empty: all that it has can be reached from everywhere). `failed`: the nodes
    that gave it up; `leaves`: its own did, and does not hold it: it goes if another takes it."""

    name: str
    cpu: int
    memory: int
    priority: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()
    controller: str = "libvirt"
    node: str | None = None
    homes: tuple[str, ...] = ()
    failed: Mapping[str, FailedOn] = field(default_factory=dict)
    leaves: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedConstraint:
    name: str
    spec: PlacementConstraintSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """`bindings`: VM -> node for those newly placed; `reasons`: for every VM asked for, why there or why
    not; `stays`: VM -> node for those that failed there, and that no other node takes."""

    bindings: Mapping[str, str]
    reasons: Mapping[str, str]
    stays: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Use:
    cpu: float
    memory: int


def place(
    nodes: Sequence[NodeView], vms: Sequence[VmDemand], constraints: Sequence[NamedConstraint]
) -> Placement:
    """Place every VM whose `node` is None, or that leaves it. Deterministic: ties are broken by name."""
    used = {node.name: _Use(0.0, 0) for node in nodes}
    placed = {vm.name: vm for vm in vms if vm.node is not None}
    for vm in placed.values():
        _take(used, vm.node or "", vm)
    bindings: dict[str, str] = {}
    reasons: dict[str, str] = {}
    stays: dict[str, str] = {}
    required = [c for c in constraints if c.spec.enforcement is Enforcement.REQUIRED]
    asking = [vm for vm in vms if vm.node is None or vm.leaves]
    for vm in sorted(asking, key=lambda v: (-v.priority, v.name)):
        rejected: dict[str, str] = {}
        for node in sorted(nodes, key=lambda n: n.name):
            if node.name != vm.node:
                rejected[node.name] = _rejection(node, used[node.name], vm, placed, required)
        found = _best([node for node in nodes if rejected.get(node.name) == ""], used, vm)
        if found is None:
            reasons[vm.name] = _refused_words(rejected, vm) or "no node has reported yet"
            if vm.node is not None:
                stays[vm.name] = vm.node
            continue
        if vm.node in used:
            _give_back(used, vm.node or "", vm)
        bindings[vm.name], reasons[vm.name] = found
        placed[vm.name] = replace(vm, node=found[0])
        _take(used, found[0], vm)
    return Placement(bindings=bindings, reasons=reasons, stays=stays)


def _best(fits: Sequence[NodeView], used: Mapping[str, _Use], vm: VmDemand) -> tuple[str, str] | None:
    """The node and why. One that gave the VM up is taken only for a VM that is nowhere, and failed least
    there: a VM that moved on from every failure would never come to rest."""
    good = [node for node in sorted(fits, key=lambda n: n.name) if node.name not in vm.failed]
    if good:
        best = max(reversed(good), key=lambda n: n.memory - used[n.name].memory)
        why = f"most free memory of {len(good)} nodes that fit" if len(good) > 1 else "it fits"
        return best.name, f"{why}; {_failed_words(vm)}" if vm.failed else why
    if vm.node is not None or not fits:
        return None
    least = min(fits, key=lambda n: (vm.failed[n.name].count, n.name))
    return least.name, f"it failed on every node that fits, and least on {least.name}; {_failed_words(vm)}"


def _refused_words(rejected: Mapping[str, str], vm: VmDemand) -> str:
    """Each node and why not: what rules it out, else that the VM failed there."""
    why = {**rejected, **{n: failed.why for n, failed in vm.failed.items() if not rejected.get(n)}}
    return "; ".join(f"{name}: {words}" for name, words in sorted(why.items()))


def _failed_words(vm: VmDemand) -> str:
    return "; ".join(f"{name}: {failed.why}" for name, failed in sorted(vm.failed.items()))


def _give_back(used: dict[str, _Use], node: str, vm: VmDemand) -> None:
    before = used[node]
    used[node] = _Use(before.cpu - vm.cpu, before.memory - vm.memory)


def _take(used: dict[str, _Use], node: str, vm: VmDemand) -> None:
    if node in used:
        before = used[node]
        used[node] = _Use(before.cpu + vm.cpu, before.memory + vm.memory)


def _rejection(
    node: NodeView,
    use: _Use,
    vm: VmDemand,
    placed: Mapping[str, VmDemand],
    required: Sequence[NamedConstraint],
) -> str:
    """Why the VM cannot go to the node; empty when it can."""
    if node.refuses:
        return node.refuses
    if node.controllers and vm.controller not in node.controllers:
        return f"has no controller '{vm.controller}' (has {', '.join(sorted(node.controllers))})"
    away = [home for home in vm.homes if home != node.name]
    if away:
        return f"a disk image is on {' and '.join(away)} only"
    for key, value in sorted(vm.node_selector.items()):
        if node.labels.get(key) != value:
            return f"nodeSelector wants label {key}={value}"
    for taint in node.taints:
        if not any(t.key == taint.key and t.value in (None, taint.value) for t in vm.tolerations):
            return f"taint {taint.key} is not tolerated"
    return _capacity_rejection(node, use, vm) or _constraint_rejection(node, vm, placed, required)


def _capacity_rejection(node: NodeView, use: _Use, vm: VmDemand) -> str:
    short = []
    if use.memory + vm.memory > node.memory:
        free = max(0, node.memory - use.memory)
        short.append(f"memory {human_bytes(vm.memory - free)} short ({human_bytes(free)} free)")
    if use.cpu + vm.cpu > node.cpu:
        free_cpu = max(0.0, node.cpu - use.cpu)
        short.append(f"{vm.cpu - free_cpu:g} vCPU short ({free_cpu:g} free)")
    return ", ".join(short)


def _constraint_rejection(
    node: NodeView, vm: VmDemand, placed: Mapping[str, VmDemand], required: Sequence[NamedConstraint]
) -> str:
    for constraint in sorted(required, key=lambda c: c.name):
        spec = constraint.spec
        if not spec.vms.matches(vm.name, vm.labels):
            continue
        others = [
            other
            for other in sorted(placed.values(), key=lambda v: v.name)
            if other.name != vm.name and spec.vms.matches(other.name, other.labels)
        ]
        why = _one_constraint(constraint, node, others)
        if why:
            return f"{why} ({constraint.name})"
    return ""


def _one_constraint(constraint: NamedConstraint, node: NodeView, others: Sequence[VmDemand]) -> str:
    spec = constraint.spec
    match spec.type:
        case ConstraintType.NODE_AFFINITY:
            return "" if spec.nodes.matches(node.name, node.labels) else "not among its nodes"
        case ConstraintType.NODE_ANTI_AFFINITY:
            return "among the nodes to avoid" if spec.nodes.matches(node.name, node.labels) else ""
        case ConstraintType.ANTI_AFFINITY:
            here = [other.name for other in others if other.node == node.name]
            return f"apart from {here[0]}" if here else ""
        case ConstraintType.AFFINITY:
            elsewhere = [other for other in others if other.node != node.name]
            return f"together with {elsewhere[0].name} on {elsewhere[0].node}" if elsewhere else ""
        case ConstraintType.SPREAD:
            return ""
