"""What of a changed spec a running VM can take at once, in which order, and what is recorded when it has.

Invariants: nothing is listed that ends a run, shrinks an image or takes vCPUs away; a disk that goes precedes
one that comes, for both may be of one image; and what counts as started with (`pin/VM`) moves by exactly the
fields that a change has brought.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from reconciler.resources.changes import (
    AttachDisk,
    DetachDisk,
    GrowDisk,
    LiveChange,
    Memory,
    Reconnect,
    Vcpus,
)
from reconciler.resources.virtualmachine import Disk, Interface, VirtualMachineSpec

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds until a change that did not come about is tried again, doubled each time."""
PATIENCE = 3
"""After so many tries a restart is said to be needed: by then a guest that does its part has done it."""

_CABLE = ("bridge", "network", "state")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How a change went. `retry_at`: monotonic seconds; None: not in this run of the guest. `tries`: how
    often it was tried."""

    reason: str
    retry_at: float | None = None
    tries: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Tries:
    """What the agent remembers of changes: of one spec (`generation`) and one run of a guest (`incarnation`).
    Lost with the daemon; the next one asks once more."""

    generation: int = 0
    incarnation: str = ""
    verdicts: Mapping[LiveChange, Verdict] | None = None

    def of(self, change: LiveChange) -> Verdict | None:
        """How it went, if it was tried."""
        return (self.verdicts or {}).get(change)

    def refused(self, change: LiveChange, reason: str) -> Tries:
        """After a word that it cannot come to the running guest."""
        return self._with(change, Verdict(reason=reason))

    def failed(self, change: LiveChange, reason: str, now: float) -> Tries:
        """After a try that came to nothing, and may not the next time."""
        before = self.of(change)
        tries = before.tries + 1 if before is not None else 1
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** (tries - 1))
        return self._with(change, Verdict(reason=reason, retry_at=now + pause, tries=tries))

    def _with(self, change: LiveChange, verdict: Verdict) -> Tries:
        return replace(self, verdicts={**(self.verdicts or {}), change: verdict})


def live_changes(started: VirtualMachineSpec, wanted: VirtualMachineSpec) -> tuple[LiveChange, ...]:
    """What differs and may be brought to the running guest, in the order in which it is tried."""
    return (*_amounts(started, wanted), *_disks(started.disks, wanted.disks), *_nics(started, wanted))


def next_change(
    changes: Sequence[LiveChange], tries: Tries, now: float
) -> tuple[LiveChange | None, float | None]:
    """The first that is due, and when another look is, if one waits for its next try."""
    later: list[float] = []
    for change in changes:
        verdict = tries.of(change)
        if verdict is None or (verdict.retry_at is not None and verdict.retry_at <= now):
            return change, None
        if verdict.retry_at is not None:
            later.append(verdict.retry_at)
    return None, min(later, default=None)


def under_way(changes: Sequence[LiveChange], tries: Tries) -> frozenset[str]:
    """Fields of which nobody can say yet that they wait for a restart: they are being brought."""
    return frozenset(path for change in changes if _hopeful(tries.of(change)) for path in change.paths)


def obstacles(changes: Sequence[LiveChange], tries: Tries) -> dict[str, str]:
    """By field, for a person: what has become of those that were tried and have not come about."""
    found: dict[str, str] = {}
    for change in changes:
        verdict = tries.of(change)
        if verdict is not None and not _hopeful(verdict):
            state = "waits for a restart" if verdict.retry_at is None else "has not come about"
            found |= dict.fromkeys(change.paths, f"{state}: {verdict.reason}")
    return found


def _hopeful(verdict: Verdict | None) -> bool:
    return verdict is None or (verdict.retry_at is not None and verdict.tries < PATIENCE)


def taken(pinned: Mapping[str, Any], wanted: Mapping[str, Any], change: LiveChange) -> dict[str, Any]:
    """What the present run counts as started with, after the change: both as in the store."""
    after = dict(pinned)
    match change:
        case Vcpus():
            after["cpu"] = _moved(pinned.get("cpu", {}), wanted.get("cpu", {}), ("cores",))
        case Memory():
            after = _moved(pinned, wanted, ("memory",))
        case GrowDisk(disk=name):
            after["disks"] = _merged(pinned, wanted, "disks", name, ("size",))
        case AttachDisk(disk=name):
            after["disks"] = _inserted(pinned.get("disks") or [], wanted.get("disks") or [], name)
        case DetachDisk(disk=name):
            after["disks"] = [disk for disk in pinned.get("disks") or [] if disk.get("name") != name]
        case Reconnect(interface=name):
            after["interfaces"] = _merged(pinned, wanted, "interfaces", name, _CABLE)
    return after


def _amounts(started: VirtualMachineSpec, wanted: VirtualMachineSpec) -> Iterator[LiveChange]:
    if wanted.memory != started.memory:
        yield Memory(size=wanted.memory)
    if wanted.cpu.cores > started.cpu.cores:
        yield Vcpus(count=wanted.cpu.cores)


def _disks(started: Sequence[Disk], wanted: Sequence[Disk]) -> Iterator[LiveChange]:
    before, after = {disk.name: disk for disk in started}, {disk.name: disk for disk in wanted}
    for name, disk in after.items():
        if name in before and _grows(before[name], disk):
            assert disk.size is not None
            yield GrowDisk(disk=name, size=disk.size)
    for name in before:
        if name not in after:
            yield DetachDisk(disk=name)
    for name in after:
        if name not in before:
            yield AttachDisk(disk=name)


def _grows(before: Disk, after: Disk) -> bool:
    """Whether it is the same image, and is to be larger."""
    same = (before.pool, before.image) == (after.pool, after.image)
    more = after.size is not None and (before.size is None or before.size < after.size)
    return same and more and not after.read_only


def _nics(started: VirtualMachineSpec, wanted: VirtualMachineSpec) -> Iterator[LiveChange]:
    before = {nic.name: nic for nic in started.interfaces}
    for nic in wanted.interfaces:
        known = before.get(nic.name)
        if known is not None and nic != known and _fixed(nic) == _fixed(known):
            fields = tuple(field for field in _CABLE if getattr(nic, field) != getattr(known, field))
            yield Reconnect(interface=nic.name, fields=fields)


def _fixed(nic: Interface) -> Interface:
    """What no running card changes."""
    return replace(nic, bridge=None, network=None, state=None)


def _moved(before: Mapping[str, Any], after: Mapping[str, Any], fields: Sequence[str]) -> dict[str, Any]:
    """`before`, with these fields as in `after`."""
    found = {key: value for key, value in before.items() if key not in fields}
    return found | {key: after[key] for key in fields if key in after}


def _merged(
    pinned: Mapping[str, Any], wanted: Mapping[str, Any], kind: str, name: str, fields: Sequence[str]
) -> list[Any]:
    there = {item.get("name"): item for item in wanted.get(kind) or []}
    return [
        _moved(item, there[name], fields) if item.get("name") == name and name in there else item
        for item in pinned.get(kind) or []
    ]


def _inserted(before: Sequence[Any], after: Sequence[Any], name: str) -> list[Any]:
    """With the new one where the spec has it: behind the nearest of those before it that are there."""
    names = [item.get("name") for item in after]
    if name not in names or any(item.get("name") == name for item in before):
        return list(before)
    place, earlier = 0, set(names[: names.index(name)])
    for index, item in enumerate(before):
        if item.get("name") in earlier:
            place = index + 1
    return [*before[:place], after[names.index(name)], *before[place:]]
