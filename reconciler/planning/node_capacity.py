"""What a node offers to VMs, and why it offers nothing: one formula, for the master and for whoever looks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from reconciler.planning.placement import NodeView, VmDemand
from reconciler.resources.infrastructure import NodeSpec
from reconciler.resources.quantity import format_bytes
from reconciler.resources.status import NodeStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Amount:
    """`cpu` in CPUs (vCPUs, where VMs use them), `memory` in bytes."""

    cpu: float = 0.0
    memory: int = 0


def total(spec: NodeSpec, status: NodeStatus) -> Amount:
    """What the node has: as its manifest says, else as it reports."""
    cpu = spec.capacity.cpu if spec.capacity.cpu is not None else float(status.cpu)
    memory = spec.capacity.memory if spec.capacity.memory is not None else status.memory
    return Amount(cpu=cpu, memory=memory)


def usable(spec: NodeSpec, status: NodeStatus) -> Amount:
    """What VMs may use: after reserve, overcommit and the domains that are not vcl's."""
    has = total(spec, status)
    foreign = status.foreign_domains
    return Amount(
        cpu=max(0.0, has.cpu - (spec.reserved.cpu or 0.0)) * spec.overcommit.cpu
        - sum(domain.vcpus for domain in foreign),
        memory=int(max(0, has.memory - (spec.reserved.memory or 0)) * spec.overcommit.memory)
        - sum(domain.memory for domain in foreign),
    )


def short_of(node: NodeView, demands: Iterable[VmDemand]) -> str:
    """What the node lacks for these VMs, for a person; empty when all of them have room."""
    asked = list(demands)
    cpu, memory = sum(vm.cpu for vm in asked), sum(vm.memory for vm in asked)
    if memory > node.memory:
        has, asked_for = format_bytes(node.memory), format_bytes(memory)
        return f"node {node.name} has {has} for VMs, and they ask for {asked_for}"
    if cpu > node.cpu:
        return f"node {node.name} has {node.cpu:g} vCPUs for VMs, and they ask for {cpu}"
    return ""


def node_view(
    name: str, spec: NodeSpec, status: NodeStatus, labels: Mapping[str, str], *, absent: str
) -> NodeView:
    """What placement sees of a node. `absent`: why it is not there to do any work."""
    offers = usable(spec, status)
    return NodeView(
        name=name,
        cpu=offers.cpu,
        memory=offers.memory,
        labels={"node": name, **labels},
        taints=spec.taints,
        controllers=frozenset(status.controllers),
        networks=status.networks,
        refuses=absent or refusal(spec, status),
    )


def refusal(spec: NodeSpec, status: NodeStatus) -> str:
    """Why the node takes no new VMs, by its manifest or its own report; empty when it does."""
    if spec.maintenance:
        return "in maintenance"
    if spec.unschedulable:
        return "cordoned (unschedulable)"
    if not status.ready:
        return f"not ready: {status.message}" if status.message else "not ready"
    return ""
