"""Which live migrations may begin now, why others wait, and which cannot be: what `Facts` has of the others.

Invariants: no more are under way at once than the cluster's setting says, in all, out of one node and into
one; of those that wait the more important VMs go first, then who asked first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256

from reconciler.planning.demands import NamedConstraint, NodeView, VmDemand
from reconciler.planning.packing.plans import refusals_of
from reconciler.planning.placement import place
from reconciler.resources.infrastructure import MigrationPolicy
from reconciler.resources.migrations import ENDED, MigrationPhase, MigrationRecord

SCHEMA = 2
"""The store's schema from which on all daemons know a claim of two nodes."""

KEPT = 50
"""Migrations that have ended are kept, so many of them."""

TOO_OLD = "not every node's vcld knows live migration yet: upgrade them all"


def in_order(
    records: Iterable[MigrationRecord], priorities: Mapping[str, int]
) -> tuple[MigrationRecord, ...]:
    """Those under way first, then those that wait, in the order in which they go. `priorities`: by VM."""

    def rank(record: MigrationRecord) -> tuple[bool, int, str, str]:
        waits = record.phase is MigrationPhase.PENDING
        return (waits, -priorities.get(record.vm, 0), record.requested, record.id)

    return tuple(sorted(records, key=rank))


def under_way(records: Iterable[MigrationRecord]) -> tuple[MigrationRecord, ...]:
    """Those that have begun and not ended."""
    return tuple(r for r in records if r.phase not in ENDED and r.phase is not MigrationPhase.PENDING)


def turn_of(record: MigrationRecord, others: Iterable[MigrationRecord], policy: MigrationPolicy) -> str:
    """What a migration that is asked for waits for, or nothing. `others`: all, this one may be among them."""
    busy = [other for other in under_way(others) if other.id != record.id]
    if len(busy) >= policy.parallel:
        return (
            f"it waits for its turn: {_count(len(busy))} under way, and no more at once (migration.parallel)"
        )
    outgoing = sum(record.source == other.source for other in busy)
    if outgoing >= policy.outgoing:
        return f"it waits for its turn: {_count(outgoing)} leaving node {record.source} (migration.outgoing)"
    incoming = sum(record.target == other.target for other in busy)
    if incoming >= policy.incoming:
        words = f"{_count(incoming)} on the way to node {record.target} (migration.incoming)"
        return f"it waits for its turn: {words}"
    return ""


def migration_name(vm: str, seed: str) -> str:
    """The name of a new one: the VM's, and something of its own that follows from `seed`."""
    return f"{vm[:54].rstrip('.-')}-{sha256(seed.encode()).hexdigest()[:8]}"


def source_words(record: MigrationRecord, away: str) -> str:
    """Why it cannot leave a node of which this is heard."""
    return f"node {record.source} {away}"


def _count(number: int) -> str:
    return "1 migration is" if number == 1 else f"{number} migrations are"


def target_problem(record: MigrationRecord, nodes: Sequence[NodeView]) -> str:
    """Why its target takes no guest now, or nothing."""
    found = {node.name: node for node in nodes}
    for name in (record.source, record.target):
        if name not in found:
            return f"node {name} is not known"
    there = found[record.target]
    return f"node {there.name} takes no VMs: {there.refuses}" if there.refuses else ""


def choose_target(
    nodes: Sequence[NodeView],
    demands: Sequence[VmDemand],
    constraints: Sequence[NamedConstraint],
    vm: str,
    to: str = "",
) -> tuple[str, str]:
    """Where the VM, which is among the demands, goes: (node, "") or ("", why to none). `to`: the node that a
    person wants, else the one that the planner prefers."""
    demand = next((each for each in demands if each.name == vm), None)
    if demand is None or demand.node is None:
        return "", "it does not run"
    if to:
        if to == demand.node:
            return "", f"it is on node {to} already"
        if to not in {node.name for node in nodes}:
            return "", f"there is no node '{to}'"
        refused = refusals_of(nodes, demands, constraints, vm)
        return ("", f"node {to} does not take it: {refused[to].words}") if to in refused else (to, "")
    here = demand.node
    others = [
        replace(node, refuses=node.refuses or "it is here now") if node.name == here else node
        for node in nodes
    ]
    freed = [replace(each, node=None, fixed="", going=False) if each is demand else each for each in demands]
    found = place(others, freed, constraints)
    if vm in found.bindings:
        return found.bindings[vm], ""
    return "", f"no other node takes it: {found.reasons.get(vm, 'there is none')}"
