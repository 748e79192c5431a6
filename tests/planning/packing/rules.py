"""The hard rules once more, as simply as can be said, to judge plans by; the planner has no part in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reconciler.planning.demands import NamedConstraint, NodeView, VmDemand
from reconciler.resources.placementconstraint import ConstraintType, Enforcement

Where = Mapping[str, str | None]
"""The node of each VM."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    nodes: Sequence[NodeView]
    vms: Sequence[VmDemand]
    constraints: Sequence[NamedConstraint]

    def node(self, name: str) -> NodeView:
        unknown = NodeView(name=name, cpu=0, memory=0, refuses="unknown")
        return next((node for node in self.nodes if node.name == name), unknown)

    def where(self) -> dict[str, str | None]:
        return {vm.name: vm.node for vm in self.vms}


def broken(cluster: Cluster, where: Where) -> set[tuple[str, ...]]:
    """What is not as it must be, each with a name of its own."""
    found: set[tuple[str, ...]] = set()
    for vm in cluster.vms:
        name = where[vm.name]
        if name is not None and not _may_be(vm, cluster.node(name)):
            found.add(("reach", vm.name))
    for node in cluster.nodes:
        here = [vm for vm in cluster.vms if where[vm.name] == node.name]
        if sum(vm.cpu for vm in here) > node.cpu:
            found.add(("cpu", node.name))
        if sum(vm.memory for vm in here) > node.memory:
            found.add(("memory", node.name))
    for constraint in cluster.constraints:
        if constraint.spec.enforcement is Enforcement.REQUIRED:
            found |= {(constraint.name, *what) for what in _constraint(cluster, constraint, where)}
    return found


def _may_be(vm: VmDemand, node: NodeView) -> bool:
    """On a node where it runs already, failures of the past break nothing, nor that it takes no new VMs."""
    if any(node.labels.get(key) != value for key, value in vm.node_selector.items()):
        return False
    if node.leaving or any(home != node.name for home in vm.homes):
        return False
    if any(all(t.key != taint.key for t in vm.tolerations) for taint in node.taints):
        return False
    return not node.controllers or vm.controller in node.controllers


def _domain(cluster: Cluster, key: str, node: str) -> str | None:
    return node if key == "node" else cluster.node(node).labels.get(key)


def _constraint(cluster: Cluster, constraint: NamedConstraint, where: Where) -> set[tuple[str, ...]]:
    spec = constraint.spec
    members = [vm for vm in cluster.vms if spec.vms.matches(vm.name, vm.labels)]
    placed = [(vm, node) for vm in members if (node := where[vm.name]) is not None]
    domains = [_domain(cluster, spec.topology_key, node) for _, node in placed]
    counts = Counter(domain for domain in domains if domain is not None)
    match spec.type:
        case ConstraintType.NODE_AFFINITY | ConstraintType.NODE_ANTI_AFFINITY:
            wanted = spec.type is ConstraintType.NODE_AFFINITY
            views = [(vm, cluster.node(node)) for vm, node in placed]
            return {(vm.name,) for vm, n in views if spec.nodes.matches(n.name, n.labels) is not wanted}
        case ConstraintType.ANTI_AFFINITY:
            return {(domain,) for domain, count in counts.items() if count > 1}
        case ConstraintType.AFFINITY:
            return {("apart",)} if len(set(domains)) > 1 or (placed and None in domains) else set()
        case ConstraintType.SPREAD:
            outside = {(vm.name,) for (vm, _), domain in zip(placed, domains, strict=True) if domain is None}
            able = {
                domain
                for node in cluster.nodes
                for vm in members
                if (domain := _domain(cluster, spec.topology_key, node.name)) is not None
                and takes(cluster, vm, node)
            }
            least = min((counts[domain] for domain in able), default=0)
            return outside | {(domain,) for domain, n in counts.items() if n - least > spec.max_skew}


def takes(cluster: Cluster, vm: VmDemand, node: NodeView) -> bool:
    """Whether the node could take the VM if all nodes were empty, by what is asked of nodes alone."""
    if node.refuses or node.leaving or not _may_be(vm, node) or node.name in vm.failed:
        return False
    for constraint in cluster.constraints:
        spec = constraint.spec
        wanted = spec.type is ConstraintType.NODE_AFFINITY
        of_nodes = wanted or spec.type is ConstraintType.NODE_ANTI_AFFINITY
        hard = of_nodes and spec.enforcement is Enforcement.REQUIRED
        concerned = hard and spec.vms.matches(vm.name, vm.labels)
        if concerned and spec.nodes.matches(node.name, node.labels) is not wanted:
            return False
    return True
