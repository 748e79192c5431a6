"""What people ask for: a VM's live migration, and that it ends early. Both are records; the master acts.

Invariant: a request is written only if the VM's claim and spec are those that it was judged by, and never
while another of the same VM is not ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from reconciler.loops.placement_input import migrations_by_vm, read_nodes, read_vm
from reconciler.loops.views import Views
from reconciler.loops.writer import Writer, conflicts
from reconciler.planning.desired import Wish
from reconciler.planning.master import VmRecords, demanded, left_behind
from reconciler.planning.migration import Wanted, request_migration
from reconciler.planning.migration_turns import choose_target, migration_name
from reconciler.planning.placement import NamedConstraint
from reconciler.ports.clock import Clock, Ids
from reconciler.resources import keys
from reconciler.resources.errors import ConflictError, NotFound
from reconciler.resources.infrastructure import WhenSlow
from reconciler.resources.kinds import Kind
from reconciler.resources.migrations import ENDED, CancelRecord, MigrationRecord
from reconciler.resources.records import Claim, ClaimPhase, dump
from reconciler.resources.virtualmachine import VirtualMachineSpec

BY_HAND = "asked for by `vcl migrate`"
CANCELLED = "cancelled by `vcl migrate --cancel`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A VM is to go to a node. `seed`: asks with the same one are one; `drain`: the id of that which asks,
    if any."""

    vm: str
    target: str
    reason: str
    seed: str
    drain: str = ""


def new_migration(
    views: Views, ask: Ask, spec: VirtualMachineSpec, claim: Claim, requested: str
) -> MigrationRecord:
    """The record with which it begins, within the Cluster's limits. `requested`: the time of day."""
    policy = views.cluster_spec().migration
    wanted = Wanted(
        vm=ask.vm,
        target=ask.target,
        memory=spec.memory,
        reason=ask.reason,
        bandwidth=policy.bandwidth,
        may_hold=policy.when_slow is WhenSlow.HOLD,
        drain=ask.drain,
    )
    return request_migration(wanted, claim, id=migration_name(ask.vm, ask.seed), requested=requested)


class MigrationRequests:
    """`absent(node)`: why a node takes no work because of what is heard of it, or nothing."""

    def __init__(
        self, views: Views, writer: Writer, clock: Clock, ids: Ids, absent: Callable[[str], str]
    ) -> None:
        self._views = views
        self._writer = writer
        self._clock = clock
        self._ids = ids
        self._absent = absent

    async def request(self, vm: str, *, to: str = "") -> MigrationRecord:
        """Ask for it; `to`: a node, else the planner chooses. Raises NotFound, ConflictError with why it
        cannot be and the cure, StoreError."""
        views, cache = self._views, self._views.cache
        records = self._judge(vm)
        claim = records.claim
        assert claim is not None
        decided = (keys.claim(vm), keys.spec(Kind.VIRTUAL_MACHINE, vm))
        compares = {key: cache.revision_of(key) for key in decided}
        target, why = await self._target(vm, to)
        if not target:
            raise ConflictError(f"virtualmachine '{vm}' cannot be migrated: {why}")
        ask = Ask(vm=vm, target=target, reason=BY_HAND, seed=self._ids.uuid())
        record = new_migration(views, ask, records.spec, claim, self._clock.wall())
        key = keys.migration(record.id)
        result = await self._writer.commit(compares={**compares, key: 0}, puts={key: dump(record)})
        if conflicts(result):
            raise ConflictError(f"virtualmachine '{vm}' changed meanwhile", cure="ask again")
        return record

    async def cancel(self, vm: str) -> MigrationRecord:
        """Ask that the one that is under way, or waits, ends. Raises NotFound, ConflictError, StoreError."""
        if self._views.spec_record(Kind.VIRTUAL_MACHINE, vm) is None:
            raise NotFound(f"virtualmachine '{vm}' not found")
        record = migrations_by_vm(self._views).get(vm)
        if record is None or record.phase in ENDED:
            raise ConflictError(f"no migration of virtualmachine '{vm}' is under way")
        asked = CancelRecord(reason=CANCELLED, requested=self._clock.wall())
        await self._writer.commit(puts={keys.cancel(record.id): dump(asked)})
        return record

    def _judge(self, vm: str) -> VmRecords:
        """The VM, which can be migrated as far as its records say."""
        views = self._views
        if views.spec_record(Kind.VIRTUAL_MACHINE, vm) is None:
            raise NotFound(f"virtualmachine '{vm}' not found")
        records = read_vm(views, vm, power_on=views.power_on(), now=self._clock.wall())
        if records is None:
            raise ConflictError(f"the records of virtualmachine '{vm}' cannot be read")
        if records.migration is not None:
            raise ConflictError(
                f"virtualmachine '{vm}' is being migrated to {records.migration.target} already",
                cure=f"`vcl migrate {vm} --cancel` ends that",
            )
        claim = records.claim
        runs = claim is not None and claim.node and claim.phase is ClaimPhase.RUNNING
        if not runs or records.desired.wish is not Wish.RUN:
            raise ConflictError(
                f"virtualmachine '{vm}' does not run", cure=f"`vcl describe vm {vm}` says how it is"
            )
        if records.cannot_migrate:
            raise ConflictError(f"virtualmachine '{vm}' cannot be migrated: {records.cannot_migrate}")
        return records

    async def _target(self, vm: str, to: str) -> tuple[str, str]:
        views, power, now = self._views, self._views.power_on(), self._clock.wall()
        names = views.names(Kind.VIRTUAL_MACHINE)
        read = partial(read_vm, views, power_on=power, now=now, migrations=migrations_by_vm(views))
        found = [records for name in names if (records := read(name)) is not None]
        demands = [each for r in found if (d := demanded(r)) is not None for each in (d, *left_behind(r))]
        nodes = read_nodes(views, self._absent)
        specs = sorted(views.specs(Kind.PLACEMENT_CONSTRAINT).items())
        constraints = [NamedConstraint(name=name, spec=spec) for name, spec in specs]
        return await asyncio.to_thread(choose_target, nodes, demands, constraints, vm, to)
