"""What placement is decided from, read from this node's copy of the store: for the master, and for who asks
how the VMs are placed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from types import MappingProxyType

from reconciler.domainxml.connections import connections
from reconciler.domainxml.movable import tie
from reconciler.loops.views import Views
from reconciler.planning.desired import desired, purges
from reconciler.planning.disks import pool_of
from reconciler.planning.failures import in_words
from reconciler.planning.master import GOES_DOWN, VmRecords
from reconciler.planning.migration_turns import SCHEMA, TOO_OLD
from reconciler.planning.node_capacity import node_view
from reconciler.planning.placement import FailedOn, NodeView
from reconciler.resources import keys
from reconciler.resources.infrastructure import NodeSpec
from reconciler.resources.kinds import Kind
from reconciler.resources.migrations import ENDED, MigrationPhase, MigrationRecord
from reconciler.resources.records import Claim, SchemaRecord, SpecRecord, VolumeRecord
from reconciler.resources.status import NodeMasterStatus, NodeStatus
from reconciler.resources.virtualmachine import VirtualMachineSpec


def read_vm(
    views: Views,
    name: str,
    *,
    power_on: bool,
    now: str,
    migrations: Mapping[str, MigrationRecord] | None = None,
) -> VmRecords | None:
    """One VM, or None when there is no such one, or something of it cannot be read. `now`: by the wall.
    `migrations`: of all VMs, for who reads many."""
    record, vm, claim = views.spec_record(Kind.VIRTUAL_MACHINE, name), views.vm(name), views.claim(name)
    if record is None or vm is None or (claim is None and views.exists(keys.claim(name))):
        return None
    return records_of(views, record, vm, power_on=power_on, now=now, migrations=migrations)


def records_of(
    views: Views,
    record: SpecRecord,
    vm: VirtualMachineSpec,
    *,
    power_on: bool,
    now: str,
    migrations: Mapping[str, MigrationRecord] | None = None,
) -> VmRecords:
    """What a VM with this spec, which may be one that is not in the store (yet), is decided from."""
    homes = _homes(views, record.metadata.name, vm)
    cannot = cannot_migrate(views, record.metadata.name, vm)
    known = migrations if migrations is not None else migrations_by_vm(views)
    last = known.get(record.metadata.name)
    name, claim = record.metadata.name, views.claim(record.metadata.name)
    binding = views.binding(name)
    needed = connections(vm)
    writable = any(not disk.read_only for disk in vm.disks)
    return VmRecords(
        metadata=record.metadata,
        spec=vm,
        desired=desired(record, vm, views.intent(name), claim, power_on=power_on),
        claim=claim,
        binding=binding,
        purge=purges(record, vm) and writable,
        homes=homes,
        failed={
            node: FailedOn(count=failures.count, why=in_words(failures))
            for node, failures in views.failures(name, now).items()
            if failures.given_up
        },
        paused=views.intent(name).paused,
        bridges=needed.bridges,
        networks=needed.networks,
        home_goes=binding is not None and views.node_in_force(binding.node).lets_go,
        cannot_migrate=cannot,
        failed_migration=_failed(views, last, claim),
        migration=last if last is not None and last.phase not in ENDED else None,
    )


def cannot_migrate(
    views: Views, name: str, vm: VirtualMachineSpec, able: Collection[str] | None = None
) -> str:
    """Why a VM cannot be migrated live at all, or nothing. `able`: the controllers of its node that can, when
    that is not to be read from what the node reports."""
    claim, homes = views.claim(name), _homes(views, name, vm)
    schema = views.record(keys.SCHEMA, SchemaRecord)
    if schema is None or schema.version < SCHEMA:
        return TOO_OLD
    if homes:
        return f"it has a disk that only node {' and node '.join(homes)} can reach"
    if claim is not None and claim.node:
        controller = claim.controller or vm.controller
        status = views.record(keys.node_status(Kind.NODE, claim.node), NodeStatus)
        known = able if able is not None else status.migrates if status is not None else ()
        if controller not in known:
            return f"its controller '{controller}' on node {claim.node} cannot migrate"
    return tie(vm.domain_xml)


def _failed(views: Views, last: MigrationRecord | None, claim: Claim | None) -> str:
    """How its live migration ended in vain, in the drain that its node is in."""
    if last is None or claim is None or last.phase is not MigrationPhase.FAILED or not last.drain:
        return ""
    same = (last.uid, last.source) == (claim.uid, claim.node)
    current = views.node_in_force(last.source).drain == last.drain
    return f"its live migration to {last.target} failed: {last.message}" if same and current else ""


def migrations_by_vm(views: Views) -> dict[str, MigrationRecord]:
    """Of each VM the one that is not ended, else the last that was."""
    found: dict[str, MigrationRecord] = {}
    for item in views.cache.prefix(keys.MIGRATIONS):
        record = views.record(item.key, MigrationRecord)
        if record is None:
            continue
        before = found.get(record.vm)
        if before is None or _later(record, before):
            found[record.vm] = record
    return found


def _later(record: MigrationRecord, before: MigrationRecord) -> bool:
    def rank(each: MigrationRecord) -> tuple[bool, str, str]:
        return (each.phase not in ENDED, each.requested, each.id)

    return rank(record) > rank(before)


def _homes(views: Views, name: str, vm: VirtualMachineSpec) -> tuple[str, ...]:
    """The nodes whose own pools hold one of its images."""
    default = views.cluster_spec().default_pool
    volumes = (
        views.record(keys.volume(pool_of(disk, default), disk.image_name(name)), VolumeRecord)
        for disk in vm.disks
    )
    return tuple(sorted({volume.node for volume in volumes if volume is not None and volume.node}))


Edited = Mapping[str, tuple[NodeSpec, Mapping[str, str]]]
"""Specs and labels of nodes that are to count instead of those in the store."""


def read_nodes(
    views: Views, absent: Callable[[str], str], edited: Edited = MappingProxyType({})
) -> list[NodeView]:
    """Every node that has reported. `absent(node)`: why it takes no work because of what is heard of it."""
    prefix = keys.node_status(Kind.NODE, "")
    found, parallel = [], views.cluster_spec().drain.parallel
    for item in views.cache.prefix(prefix):
        name = item.key.removeprefix(prefix)
        status = views.record(item.key, NodeStatus)
        if status is None:
            continue
        record = views.spec_record(Kind.NODE, name)
        labels: Mapping[str, str] = record.metadata.labels if record is not None else {}
        edit, labels = edited.get(name, (None, labels))
        asked = views.node_in_force(name, edit)
        away = "is being fenced" if views.exists(keys.fence(name)) else absent(name)
        goes = GOES_DOWN if asked.shutdown is not None else ""
        view = node_view(name, asked.spec, status, labels, absent=away or goes)
        drained = views.record(keys.master_status(Kind.NODE, name), NodeMasterStatus)
        recalls = frozenset(drained.away) if asked.bring_back and drained is not None else frozenset[str]()
        leaving = bool(asked.drain) and not (away or asked.stops)
        found.append(replace(view, leaving=leaving, recalls=recalls, parallel=parallel))
    return found
