"""What of a changed spec a running VM takes only at its next start, and what it will never take.

Invariant: every field that differs and needs a restart is named, each by the path that the user writes. A
smaller disk size is not among them, because no restart shrinks an image: that would cut the guest's data off.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from reconciler.resources.codec import camel
from reconciler.resources.quantity import format_bytes
from reconciler.resources.virtualmachine import Cpu, Disk, Interface, VirtualMachineSpec

_AT_ONCE = frozenset(
    {
        "run_strategy",
        "priority",
        "liveness",
        "termination_grace_period_seconds",
        "eviction_strategy",
        "preemption",
        "start_after",
        "node_selector",
        "tolerations",
        "deletion_policy",
    }
)
_NAMES = {"domain_xml": "domainXML"}


def pending_fields(started: VirtualMachineSpec, wanted: VirtualMachineSpec) -> tuple[str, ...]:
    """The spec fields, as the user writes them, whose change waits for a restart; sorted.

    Of CPUs, disks and interfaces the very field is named, such as 'spec.disks[data].cache'; a disk or an
    interface that came or went as a whole: 'spec.disks[data]'; another order of them: 'spec.disks'.
    """
    pending: list[str] = []
    for field in dataclasses.fields(VirtualMachineSpec):
        if field.name not in _AT_ONCE:
            path = f"spec.{_NAMES.get(field.name, camel(field.name))}"
            pending += _changed(path, getattr(started, field.name), getattr(wanted, field.name))
    return tuple(sorted(pending))


def never_taken(started: VirtualMachineSpec, wanted: VirtualMachineSpec) -> tuple[str, ...]:
    """For a person: what was asked for of this VM that no restart brings; in the order of the disks."""
    before = {disk.name: disk for disk in started.disks}
    return tuple(
        f"disk '{disk.name}' is not made smaller: an image is never shrunk to {format_bytes(disk.size)}, "
        f"set spec.disks[{disk.name}].size back"
        for disk in wanted.disks
        if disk.size is not None and disk.name in before and _shrinks(before[disk.name], disk)
    )


def _changed(path: str, before: object, after: object) -> Iterator[str]:
    if before == after:
        return
    match before, after:
        case Cpu(), Cpu():
            yield from _parts(path, before, after)
        case tuple(), tuple():
            yield from _items(path, before, after)
        case _:
            yield path


def _items(path: str, before: Sequence[Disk | Interface], after: Sequence[Disk | Interface]) -> Iterator[str]:
    """Disks or interfaces, known by their names."""
    now, then = {item.name: item for item in before}, {item.name: item for item in after}
    for name in sorted(now.keys() | then.keys()):
        if name not in now or name not in then:
            yield f"{path}[{name}]"
        else:
            yield from _parts(f"{path}[{name}]", now[name], then[name])
    if [name for name in now if name in then] != [name for name in then if name in now]:
        yield path


def _parts(path: str, before: Cpu | Disk | Interface, after: Cpu | Disk | Interface) -> Iterator[str]:
    for field in dataclasses.fields(before):
        if getattr(before, field.name) == getattr(after, field.name):
            continue
        if field.name != "size" or _size_waits(before, after):
            yield f"{path}.{camel(field.name)}"


def _size_waits(before: Cpu | Disk | Interface, after: Cpu | Disk | Interface) -> bool:
    """Whether the start does something for the other size: only growing, or another image, is."""
    if not isinstance(before, Disk) or not isinstance(after, Disk):
        return True
    return after.size is not None and not _shrinks(before, after)


def _shrinks(before: Disk, after: Disk) -> bool:
    """Whether the same image is asked to be smaller than it was made."""
    same = (before.pool, before.image) == (after.pool, after.image)
    return same and before.size is not None and after.size is not None and after.size < before.size
