"""Metrics as Prometheus' text format, and those that the process and the read model have.

Values are collected when somebody scrapes: counting costs the loops nothing.
"""

from __future__ import annotations

import os
import resource
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from reconciler.loops.objects import Objects
from reconciler.ports.metrics import MetricType, Sample
from reconciler.resources.kinds import Kind
from reconciler.resources.status import Phase


def render(samples: Iterable[Sample]) -> str:
    """The text format, version 0.0.4; the samples of one metric come together, sorted."""
    by_name: dict[str, list[Sample]] = {}
    for sample in samples:
        by_name.setdefault(sample.name, []).append(sample)
    lines: list[str] = []
    for name in sorted(by_name):
        first = by_name[name][0]
        lines += [f"# HELP {name} {_help(first.help)}", f"# TYPE {name} {first.type.value}"]
        lines += sorted(f"{name}{_labels(sample)} {_number(sample.value)}" for sample in by_name[name])
    return "\n".join([*lines, ""])


def _help(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _labels(sample: Sample) -> str:
    pairs = (f'{key}="{_escaped(value)}"' for key, value in sorted(sample.labels.items()))
    joined = ",".join(pairs)
    return f"{{{joined}}}" if joined else ""


def _escaped(value: str) -> str:
    return _help(value).replace('"', '\\"')


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def process_samples() -> Iterator[Sample]:
    """What this process uses of the machine."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    yield Sample(
        name="process_cpu_seconds_total",
        help="CPU time used by vcld.",
        value=usage.ru_utime + usage.ru_stime,
        type=MetricType.COUNTER,
    )
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    yield Sample(
        name="process_resident_memory_bytes",
        help="Memory of vcld.",
        value=pages * os.sysconf("SC_PAGE_SIZE"),
    )
    yield Sample(
        name="process_open_fds", help="Open file descriptors.", value=len(os.listdir("/proc/self/fd"))
    )


def object_samples(objects: Objects) -> Iterator[Sample]:
    """Objects by kind, VMs by phase, and the store's revision; nothing before the store was read."""
    if objects.revision < 0:
        return
    yield Sample(name="vcl_store_revision", help="Revision of the copy of the store.", value=objects.revision)
    for kind in Kind:
        yield Sample(
            name="vcl_objects",
            help="Objects of each kind.",
            value=len(objects.names(kind)),
            labels={"kind": kind.value},
        )
    vms = objects.list(Kind.VIRTUAL_MACHINE).views
    phases = Counter(str(view.object["status"].get("phase")) for view in vms)
    for phase in sorted({*phases, *(phase.value for phase in Phase)}):
        yield Sample(
            name="vcl_virtual_machines",
            help="Virtual machines in each phase.",
            value=phases[phase],
            labels={"phase": phase},
        )
