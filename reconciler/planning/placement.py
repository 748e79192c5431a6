"""Where VMs go: bind what fits, and say for each VM and node why not.

Hard rules: the node takes work, node selector, taints, Required constraints, vCPU and memory. VMs are taken
in order of priority, then name; nodes by free memory, then name. Nothing that is placed is moved.
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
class VmDemand:
    """One VM; `node` is where it is bound already, None when it is to be placed; `homes`: the nodes that
    alone have one of its images (empty: all that it has can be reached from everywhere)."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedConstraint:
    name: str
    spec: PlacementConstraintSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """`bindings`: VM -> node for those newly placed; `reasons`: for every VM asked for, why there or why
    not."""

    bindings: Mapping[str, str]
    reasons: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Use:
    cpu: float
    memory: int


def place(
    nodes: Sequence[NodeView], vms: Sequence[VmDemand], constraints: Sequence[NamedConstraint]
) -> Placement:
    """Place every VM whose `node` is None. Deterministic: ties are broken by name."""
    used = {node.name: _Use(0.0, 0) for node in nodes}
    placed = {vm.name: vm for vm in vms if vm.node is not None}
    for vm in placed.values():
        _take(used, vm.node or "", vm)
    bindings: dict[str, str] = {}
    reasons: dict[str, str] = {}
    required = [c for c in constraints if c.spec.enforcement is Enforcement.REQUIRED]
    for vm in sorted((v for v in vms if v.node is None), key=lambda v: (-v.priority, v.name)):
        fits: list[NodeView] = []
        rejected: list[str] = []
        for node in sorted(nodes, key=lambda n: n.name):
            why = _rejection(node, used[node.name], vm, placed, required)
            if why:
                rejected.append(f"{node.name}: {why}")
            else:
                fits.append(node)
        if not fits:
            reasons[vm.name] = "; ".join(rejected) or "no node has reported yet"
            continue
        best = max(reversed(fits), key=lambda n: n.memory - used[n.name].memory)
        bindings[vm.name] = best.name
        reasons[vm.name] = f"most free memory of {len(fits)} nodes that fit" if len(fits) > 1 else "it fits"
        placed[vm.name] = replace(vm, node=best.name)
        _take(used, best.name, vm)
    return Placement(bindings=bindings, reasons=reasons)


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
