"""Fencing as metrics, counted from the records: the same on every node, and not lost with a daemon."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from reconciler.loops.views import Views
from reconciler.planning.failover import first, last_running, phase_of
from reconciler.ports.metrics import MetricType, Sample
from reconciler.resources import keys
from reconciler.resources.failover import FailoverPhase, FailoverRecord
from reconciler.resources.fencing import FenceRecord, StepName

STEPS = (
    StepName.INTENT,
    StepName.FENCE,
    StepName.SETTLE,
    StepName.BREAK_LOCKS,
    StepName.RELEASE,
    StepName.FINISH,
)


def fencing_samples(views: Views) -> Iterator[Sample]:
    """Fencings ever begun, the latest ones by how far they are, the last one's seconds, and who waits."""
    items = views.cache.prefix(keys.FAILOVERS)
    history = [found for item in items if (found := views.record(item.key, FailoverRecord)) is not None]
    yield Sample(
        name="vcl_fencings_total",
        help="Fencings that were begun in this cluster.",
        value=max((failover.number for failover in history), default=0),
        type=MetricType.COUNTER,
    )
    phases = Counter(phase_of(failover) for failover in history)
    for phase in FailoverPhase:
        yield Sample(
            name="vcl_failovers",
            help="The latest failovers by what became of them.",
            value=phases[phase],
            labels={"phase": phase.value},
        )
    yield from _last(max(history, key=lambda failover: failover.number, default=None))
    yield from _waiting(views)


def _last(failover: FailoverRecord | None) -> Iterator[Sample]:
    if failover is None:
        return
    times = {step.value: first(failover, step) for step in STEPS}
    times["Running"] = last_running(failover)
    for step, seconds in times.items():
        if seconds is not None:
            yield Sample(
                name="vcl_last_failover_seconds",
                help="Seconds from the last sign of life to each step of the last failover.",
                value=seconds,
                labels={"step": step},
            )


def _waiting(views: Views) -> Iterator[Sample]:
    items = views.cache.prefix(keys.FENCES)
    records = [found for item in items if (found := views.record(item.key, FenceRecord)) is not None]
    yield Sample(
        name="vcl_nodes_fenced", help="Nodes that are being fenced, or have not returned.", value=len(items)
    )
    yield Sample(
        name="vcl_vms_waiting_for_proof",
        help="VMs that are not started elsewhere, because a proof is missing.",
        value=sum(len(record.missing) for record in records),
    )
