"""The master's decision: which VMs are bound where, which bindings end, and which deletions are finished.

Invariants: a binding ends only while the claim is empty, or to
have its owner stop the VM for one with `preemption`; a VM's records go only after its claim is empty and
its images are trashed if that was asked for; only a VM that its node gave up, and let go, is moved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from reconciler.planning.desired import Desired, Wish, consumes
from reconciler.planning.placement import FailedOn, NamedConstraint, NodeView, VmDemand, place
from reconciler.resources.records import Binding, Claim, ObjectMeta
from reconciler.resources.virtualmachine import VirtualMachineSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class VmRecords:
    """One VM as the store has it. `purge`: its deletion takes the images along (and it has some); `homes`:
    the nodes that alone have one of its images."""

    metadata: ObjectMeta
    spec: VirtualMachineSpec
    desired: Desired
    claim: Claim | None
    binding: Binding | None
    purge: bool
    homes: tuple[str, ...] = ()
    failed: Mapping[str, FailedOn] = field(default_factory=dict)
    """The nodes that gave it up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bind:
    vm: str
    node: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unbind:
    vm: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finalise:
    """The deletion is complete: every record of the VM goes, a tombstone comes."""

    vm: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NotPlaced:
    """`reason` says why, in one line; `nodes`: each node and why not."""

    vm: str
    reason: str
    nodes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stay:
    """It failed on its node, and no other takes it: `reason` names each and why not."""

    vm: str
    node: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MasterPlan:
    """What to write, by kind of write."""

    binds: tuple[Bind, ...] = ()
    unbinds: tuple[Unbind, ...] = ()
    finals: tuple[Finalise, ...] = ()
    not_placed: tuple[NotPlaced, ...] = ()
    stays: tuple[Stay, ...] = ()


def _owned(records: VmRecords) -> bool:
    return records.claim is not None and bool(records.claim.node)


def _purge_left(records: VmRecords) -> bool:
    done = records.claim is not None and records.claim.purged and records.claim.uid == records.metadata.uid
    return records.purge and not done


def plan_master(
    vms: Sequence[VmRecords], nodes: Sequence[NodeView], constraints: Sequence[NamedConstraint]
) -> MasterPlan:
    """The plan for this moment. Deterministic; VMs in order of name within each kind of write."""
    unbinds: list[Unbind] = []
    finals: list[Finalise] = []
    demands: list[VmDemand] = []
    for records in sorted(vms, key=lambda r: r.metadata.name):
        name, wish = records.metadata.name, records.desired.wish
        if wish is Wish.DELETED and not _owned(records) and not _purge_left(records):
            finals.append(Finalise(vm=name))
            continue
        if not _wants(records) and records.binding is not None and not _owned(records):
            unbinds.append(Unbind(vm=name, reason=records.desired.reason))
            continue
        demand = demanded(records)
        if demand is not None:
            demands.append(demand)
    placement = place(nodes, demands, constraints)
    binds = [
        Bind(vm=vm, node=node, reason=placement.reasons[vm])
        for vm, node in sorted(placement.bindings.items())
    ]
    not_placed = [
        NotPlaced(vm=vm, reason=reason, nodes=placement.refused.get(vm, {}))
        for vm, reason in sorted(placement.reasons.items())
        if vm not in placement.bindings and vm not in placement.stays
    ]
    stays = tuple(
        Stay(vm=vm, node=node, reason=f"tried again on {node}, no other takes it: {placement.reasons[vm]}")
        for vm, node in sorted(placement.stays.items())
    )
    unbinds += [Unbind(vm=vm, reason=reason) for vm, reason in sorted(placement.evicted.items())]
    return MasterPlan(
        binds=tuple(binds),
        unbinds=tuple(sorted(unbinds, key=lambda unbind: unbind.vm)),
        finals=tuple(finals),
        not_placed=tuple(not_placed),
        stays=stays,
    )


def demanded(records: VmRecords) -> VmDemand | None:
    """What the VM takes up, or is to be placed with; None when it needs no node."""
    needs = _wants(records) or consumes(records.claim, records.desired.wish)
    return demand_of(records) if needs else None


def _wants(records: VmRecords) -> bool:
    wish = records.desired.wish
    return wish is Wish.RUN or (wish is Wish.DELETED and _purge_left(records))


def demand_of(records: VmRecords) -> VmDemand:
    """What the VM needs when it runs. It counts where it is claimed, else where it is bound."""
    claim, binding = records.claim, records.binding
    node = claim.node if claim is not None and claim.node else None
    if node is None and binding is not None and binding.uid == records.metadata.uid:
        node = binding.node
    purging = records.desired.wish is Wish.DELETED
    return VmDemand(
        name=records.metadata.name,
        cpu=0 if purging else records.spec.cpu.cores,
        memory=0 if purging else records.spec.memory,
        priority=records.spec.priority,
        labels=records.metadata.labels,
        node_selector={} if purging else records.spec.node_selector,
        tolerations=records.spec.tolerations,
        controller=records.spec.controller,
        node=node,
        homes=records.homes,
        failed=records.failed,
        leaves=node in records.failed and not _owned(records) and not purging,
        preemption=records.spec.preemption and not purging,
        fixed="its deletion is under way" if purging else "",
        going=_owned(records) and (not _wants(records) or binding is None or binding.node != node),
    )
