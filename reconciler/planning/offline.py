"""A placement without a cluster: nodes, VMs and constraints of manifests, placed at once; then nodes are
lost.

Invariant: nodes and VMs mean here what they mean to the master: the same defaults, reserve and overcommit,
the same function that places.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from reconciler.planning.headroom import Cluster, Lost, losses, rejections
from reconciler.planning.node_capacity import node_view
from reconciler.planning.placement import NamedConstraint, NodeView, Placement, VmDemand, place
from reconciler.planning.prospect import DOWN, Action, Change, NodeProspect, Waiting, node_prospects
from reconciler.resources.codec import decode
from reconciler.resources.errors import InvalidInput
from reconciler.resources.infrastructure import NodeSpec
from reconciler.resources.kinds import Kind
from reconciler.resources.manifest import Document
from reconciler.resources.placementconstraint import PlacementConstraintSpec
from reconciler.resources.status import NodeStatus
from reconciler.resources.virtualmachine import RunStrategy, VirtualMachineSpec

RUNNING = (RunStrategy.ALWAYS, RunStrategy.RERUN_ON_FAILURE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulated:
    """As a Prospect. `losses`: nodes whose loss would leave VMs without a place; None: not looked for."""

    changes: tuple[Change, ...]
    waiting: tuple[Waiting, ...]
    nodes: tuple[NodeProspect, ...]
    losses: tuple[Lost, ...] | None = None


def simulate(cluster: Cluster, down: frozenset[str], *, with_losses: bool) -> Simulated:
    """Place everything, then lose the nodes that are `down` at once, and place again what was on them."""
    first = place(cluster.nodes, cluster.vms, cluster.constraints)
    vms = _settled(cluster.vms, first)
    if not down:
        lost = losses(replace(cluster, vms=_somewhere(vms))) if with_losses else None
        begun = _simulated(cluster.nodes, cluster.vms, vms, first, lost)
        return replace(begun, nodes=tuple(replace(node, before=node.after) for node in begun.nodes))
    nodes = tuple(replace(n, refuses=DOWN) if n.name in down else n for n in cluster.nodes)
    homeless = tuple(replace(vm, node=None) if vm.node in down else vm for vm in vms)
    second = place(nodes, homeless, cluster.constraints)
    after = _settled(homeless, second)
    rest = replace(cluster, nodes=tuple(n for n in nodes if n.name not in down), vms=_somewhere(after))
    return _simulated(nodes, vms, after, second, losses(rest) if with_losses else None)


def _settled(vms: Iterable[VmDemand], placement: Placement) -> tuple[VmDemand, ...]:
    return tuple(replace(vm, node=placement.bindings.get(vm.name, vm.node)) for vm in vms)


def _somewhere(vms: Iterable[VmDemand]) -> tuple[VmDemand, ...]:
    return tuple(vm for vm in vms if vm.node is not None)


def _simulated(
    nodes: Sequence[NodeView],
    before: Sequence[VmDemand],
    after: Sequence[VmDemand],
    placement: Placement,
    lost: tuple[Lost, ...] | None,
) -> Simulated:
    sources = {vm.name: vm.node for vm in before}
    ordered = sorted(after, key=lambda vm: vm.name)
    changes = tuple(
        Change(
            vm=vm.name,
            action=Action.RESTART if sources[vm.name] else Action.START,
            source=sources[vm.name],
            target=vm.node,
            reason=placement.reasons[vm.name],
        )
        for vm in ordered
        if vm.node is not None and vm.node != sources[vm.name]
    )
    waiting = tuple(
        Waiting(
            vm=vm.name,
            node=sources[vm.name],
            lost=sources[vm.name] is not None,
            nodes=rejections(placement, vm.name),
        )
        for vm in ordered
        if vm.node is None
    )
    in_order = sorted(nodes, key=lambda node: node.name)
    return Simulated(
        changes=changes, waiting=waiting, nodes=node_prospects(in_order, before, after), losses=lost
    )


def cluster_of(documents: Iterable[Document], nodes: Iterable[NodeView], vms: Iterable[VmDemand]) -> Cluster:
    """What valid documents define, and nodes and VMs from elsewhere. VMs that are not to run by themselves
    are left out. InvalidInput for a node whose capacity is not written down."""
    by_kind: Mapping[Kind, list[Document]] = {kind: [] for kind in Kind}
    for document in documents:
        by_kind[document.kind].append(document)
    return Cluster(
        nodes=(*(_node(document) for document in by_kind[Kind.NODE]), *nodes),
        vms=(*(vm for d in by_kind[Kind.VIRTUAL_MACHINE] for vm in _vm(d)), *vms),
        constraints=tuple(
            NamedConstraint(name=d.name, spec=decode(PlacementConstraintSpec, d.spec))
            for d in by_kind[Kind.PLACEMENT_CONSTRAINT]
        ),
    )


def _node(document: Document) -> NodeView:
    spec = decode(NodeSpec, document.spec)
    if spec.capacity.cpu is None or spec.capacity.memory is None:
        raise InvalidInput(
            f"{document.file}:{document.line}: Node {document.name!r} does not say what it has, and there is "
            "nobody to ask",
            cure="write spec.capacity, for example 'capacity: {cpu: 16, memory: 64Gi}'",
        )
    return node_view(document.name, spec, NodeStatus(uid="", ready=True), document.labels, absent="")


def _vm(document: Document) -> Iterable[VmDemand]:
    spec = decode(VirtualMachineSpec, document.spec)
    if spec.run_strategy in RUNNING:
        yield VmDemand(
            name=document.name,
            cpu=spec.cpu.cores,
            memory=spec.memory,
            priority=spec.priority,
            labels=document.labels,
            node_selector=spec.node_selector,
            tolerations=spec.tolerations,
            controller=spec.controller,
        )
