"""Fencing as metrics: counted from the records, and so the same on every node."""

from __future__ import annotations

from dataclasses import replace

from reconciler.loops.fencing_samples import fencing_samples
from reconciler.planning.failover import begun
from reconciler.planning.fencing_record import Stamp, note
from reconciler.resources import keys
from reconciler.resources.fencing import StepName
from reconciler.sim.desk import Desk
from reconciler.testing.fence_records import SILENT_R3 as RECORD


def samples(desk: Desk) -> dict[str, float]:
    found = fencing_samples(desk.views)
    return {f"{sample.name} {' '.join(sample.labels.values())}".strip(): sample.value for sample in found}


async def test_a_cluster_that_never_fenced_anybody_counts_nothing() -> None:
    desk = Desk()
    await desk.start()
    found = samples(desk)
    assert found["vcl_fencings_total"] == 0
    assert found["vcl_vms_waiting_for_proof"] == 0
    assert not any(name.startswith("vcl_last_failover_seconds") for name in found)


async def test_vms_that_wait_and_the_seconds_of_the_last_failover_are_told() -> None:
    desk = Desk()
    await desk.start()
    intent = note(RECORD, StepName.INTENT, Stamp(at=RECORD.began, epoch=1, after=3.4, by="r1"))
    waits = replace(intent, missing=("db: waiting", "web: waiting"))
    await desk.put({keys.fence("r3"): waits, keys.failover("r3-12"): begun(waits, 41)})
    found = samples(desk)
    assert found["vcl_fencings_total"] == 41
    assert found["vcl_failovers Fencing"] == 1
    assert found["vcl_last_failover_seconds Intent"] == 3.4
    assert found["vcl_nodes_fenced"] == 1
    assert found["vcl_vms_waiting_for_proof"] == 2
