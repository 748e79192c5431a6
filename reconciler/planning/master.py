"""The master's decision: which VMs are bound where, which bindings end, and which deletions are finished.

Invariants: a binding ends, or becomes another node's, only while the claim is empty, or to have its owner
stop the VM: for one with `preemption`, or because its node is drained; a VM's records go only after its claim
is empty and its images are trashed if that was asked for. A VM on its way counts on both nodes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from reconciler.planning.desired import Desired, Wish, consumes
from reconciler.planning.eviction import Evictions, Guest, plan_evictions
from reconciler.planning.placement import FailedOn, NamedConstraint, NodeView, VmDemand, place
from reconciler.resources.migrations import MigrationRecord
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
    paused: bool = False
    """By a person."""
    bridges: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    """What its interfaces are connected to."""
    home_goes: bool = False
    """The node that it is bound to goes down, and it may start elsewhere."""
    cannot_migrate: str = ""
    """Why it cannot be migrated live at all; empty when it can."""
    failed_migration: str = ""
    """How it was tried in vain while its node is drained; empty when it was not."""
    migration: MigrationRecord | None = None
    """The one that is asked for, or under way."""


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
    """`reason` says why, in one line; `nodes`: each node and why not; `in_turn`: there is a place for it, and
    only its turn has not come."""

    vm: str
    reason: str
    nodes: Mapping[str, str] = field(default_factory=dict)
    in_turn: bool = False


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
    evictions: Evictions = field(default_factory=Evictions)


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
            demands += left_behind(records)
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
    going = {records.metadata.name for records in vms if records.home_goes}
    stays = tuple(
        Stay(vm=vm, node=node, reason=f"{_again(vm in going, node)}: {placement.reasons[vm]}")
        for vm, node in sorted(placement.stays.items())
    )
    unbinds += [Unbind(vm=vm, reason=reason) for vm, reason in sorted(placement.evicted.items())]
    return MasterPlan(
        binds=tuple(binds),
        unbinds=tuple(sorted(unbinds, key=lambda unbind: unbind.vm)),
        finals=tuple(finals),
        not_placed=tuple(not_placed),
        stays=stays,
        evictions=evictions_of(vms, nodes, constraints, placement.bindings),
    )


GOES_DOWN = "goes down"
"""What a node whose host is shut down says to new VMs."""


def _again(goes: bool, node: str) -> str:
    if goes:
        return f"{node} goes down; it starts there again unless another node takes it before"
    return f"tried again on {node}, no other takes it"


def evictions_of(
    vms: Sequence[VmRecords],
    nodes: Sequence[NodeView],
    constraints: Sequence[NamedConstraint],
    bindings: Mapping[str, str],
) -> Evictions:
    """What leaves nodes that are drained, or comes back; `bindings`: what has just got a place."""
    if not any(node.leaving or node.recalls for node in nodes):
        return Evictions()
    guests = [
        replace(guest, demand=replace(guest.demand, node=bindings.get(guest.demand.name, guest.demand.node)))
        for guest in guests_of(vms)
    ]
    return plan_evictions(nodes, guests, constraints)


def guests_of(vms: Sequence[VmRecords]) -> list[Guest]:
    """The VMs that take up room, in order of name; what one that is on its way still takes is one more."""
    found: list[Guest] = []
    for records in sorted(vms, key=lambda r: r.metadata.name):
        demand = demanded(records)
        if demand is None:
            continue
        strategy = records.spec.eviction_strategy
        found += (Guest(demand=each, strategy=strategy) for each in left_behind(records))
        found.append(guest_of(records, demand))
    return found


def guest_of(records: VmRecords, demand: VmDemand) -> Guest:
    """The VM as evictions see it."""
    return Guest(
        demand=demand,
        strategy=records.spec.eviction_strategy,
        paused=records.paused,
        immovable=records.cannot_migrate,
        failed=records.failed_migration,
        leaving=records.claim.node if records.claim is not None and moving(records) else None,
        note=migrating_words(records),
    )


def moving(records: VmRecords) -> bool:
    """Whether it is to run on another node than the one that still has it, or is migrated to one."""
    return bool(goal(records))


def goal(records: VmRecords) -> str:
    """The node that it is on its way to, with its room there taken; empty when it is on its way to none."""
    claim, binding, record = records.claim, records.binding, records.migration
    if claim is None or not claim.node:
        return ""
    if claim.migration is not None:
        return claim.migration.target
    if record is not None and (record.uid, record.source) == (claim.uid, claim.node):
        return record.target
    if binding is None or records.desired.wish is not Wish.RUN:
        return ""
    mine = binding.uid == records.metadata.uid == claim.uid
    return binding.node if mine and binding.node != claim.node else ""


def migrating_words(records: VmRecords) -> str:
    """How its live migration goes, empty without one."""
    record = records.migration
    if record is None or not moving(records):
        return ""
    words = f"it migrates to {record.target}"
    return f"{words}: {record.message}" if record.message else words


def left_behind(records: VmRecords) -> list[VmDemand]:
    """What a VM that is on its way still takes up on the node that it leaves."""
    if not moving(records) or records.claim is None:
        return []
    spec = records.spec
    return [
        VmDemand(
            name=f"{records.metadata.name}{LEFT_BEHIND}",
            cpu=spec.cpu.cores,
            memory=spec.memory,
            priority=LAST_TO_GO,
            controller=spec.controller,
            node=records.claim.node,
            fixed="it leaves",
            going=True,
        )
    ]


LEFT_BEHIND = "~"
"""Of no VM's name."""

LAST_TO_GO = 2**40


def demanded(records: VmRecords) -> VmDemand | None:
    """What the VM takes up, or is to be placed with; None when it needs no node."""
    needs = _wants(records) or consumes(records.claim, records.desired.wish)
    return demand_of(records) if needs else None


def _stays(records: VmRecords, node: str | None) -> bool:
    """Whether it is bound to where it counts, or comes there while it runs."""
    if records.claim is not None and records.claim.migration is not None:
        return True
    return records.binding is not None and (records.binding.node == node or records.migration is not None)


def _wants(records: VmRecords) -> bool:
    wish = records.desired.wish
    return wish is Wish.RUN or (wish is Wish.DELETED and _purge_left(records))


def demand_of(records: VmRecords) -> VmDemand:
    """What the VM needs when it runs. It counts where it is claimed, else where it is bound; one that is on
    its way where it goes."""
    claim, binding = records.claim, records.binding
    node = claim.node if claim is not None and claim.node else None
    if node is None and binding is not None and binding.uid == records.metadata.uid:
        node = binding.node
    purging = records.desired.wish is Wish.DELETED
    there = goal(records)
    if there and claim is not None:
        node, fixed = there, f"it is on its way from {claim.node}"
    else:
        fixed = "its deletion is under way" if purging else ""
    failed = records.failed
    if records.home_goes and binding is not None:
        failed = {**failed, binding.node: FailedOn(count=0, why=GOES_DOWN)}
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
        failed=failed,
        leaves=node in failed and not _owned(records) and not purging,
        preemption=records.spec.preemption and not purging,
        fixed=fixed,
        bridges=() if purging else records.bridges,
        networks=() if purging else records.networks,
        going=_owned(records) and (not _wants(records) or not _stays(records, node)),
    )
