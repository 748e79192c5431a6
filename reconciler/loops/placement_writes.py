"""What the master tells of a VM's place (status/master/VirtualMachine/NAME), for whoever writes it."""

from __future__ import annotations

from reconciler.loops.views import Views
from reconciler.resources import keys
from reconciler.resources.kinds import Kind
from reconciler.resources.records import dump
from reconciler.resources.status import (
    Condition,
    ConditionStatus,
    ConditionType,
    MasterStatus,
    merge_conditions,
)


def placed_status(
    views: Views, vm: str, node: str | None, placed: bool, message: str, now: str
) -> dict[str, bytes]:
    """The put of the VM's master status, when it changed. `now`: wall-clock time."""
    kind = Kind.VIRTUAL_MACHINE
    record = views.spec_record(kind, vm)
    if record is None:
        return {}
    key = keys.master_status(kind, vm)
    before = views.record(key, MasterStatus)
    condition = Condition(
        type=ConditionType.PLACED,
        status=ConditionStatus.TRUE if placed else ConditionStatus.FALSE,
        reason="Placed" if placed else "Unschedulable",
        message=message,
        observed_generation=record.metadata.generation,
    )
    old = before.conditions if before is not None and before.uid == record.metadata.uid else ()
    status = MasterStatus(
        uid=record.metadata.uid,
        node=node,
        message="" if placed else message,
        observed_generation=record.metadata.generation,
        conditions=merge_conditions(old, (condition,), now),
    )
    return {} if status == before else {key: dump(status)}
