"""How a pretend guest takes changes while it runs: what LiveChanger promises, on a value.

Invariant: like libvirt's, what is so already is not done again, no disk is shrunk, and no vCPU is taken away.
"""

from __future__ import annotations

import json
from dataclasses import replace
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
from reconciler.resources.domains import Definition
from reconciler.resources.errors import ChangeRefused, ChangeWaits
from reconciler.sim.dummy_guests import Guest, GuestFaults


def changed(guest: Guest, change: LiveChange, definition: Definition, faults: GuestFaults) -> Guest:
    """The guest after the change. Raises ChangeRefused, ChangeWaits."""
    wanted = json.loads(definition.document)
    match change:
        case Vcpus(count=count):
            _require(count <= guest.max_vcpus, f"it was started with room for {guest.max_vcpus} vCPUs")
            return replace(guest, vcpus=max(guest.vcpus, count))
        case Memory(size=size):
            _require(size <= guest.max_memory, f"it was started with room for {guest.max_memory >> 20} MiB")
            if faults.holds_on and size != guest.memory:
                raise ChangeWaits("its guest has taken none of it yet")
            return replace(guest, memory=size)
        case GrowDisk(disk=name, size=size):
            _require(name in guest.disks, f"it has no disk '{name}'")
            return replace(guest, sizes={**guest.sizes, name: max(size, guest.sizes.get(name, 0))})
        case AttachDisk(disk=name):
            _require(not faults.is_full, "it has no place for another disk")
            return _attached(guest, name, wanted, definition.writable)
        case DetachDisk(disk=name):
            if name in guest.disks and faults.holds_on:
                raise ChangeWaits("its guest has not let go of the disk yet")
            return _detached(guest, name)
        case Reconnect(interface=name):
            _require(name in guest.nics and name in wanted["nics"], f"it has no interface '{name}'")
            return replace(guest, nics={**guest.nics, name: wanted["nics"][name]})


def _attached(guest: Guest, name: str, wanted: Any, writable: tuple[str, ...]) -> Guest:
    if name in guest.disks:
        return guest
    _require(name in wanted["disks"], f"its definition has no disk '{name}'")
    path = wanted["disks"][name]
    return replace(
        guest,
        disks={**guest.disks, name: path},
        writable=(*guest.writable, path) if path in writable else guest.writable,
    )


def _detached(guest: Guest, name: str) -> Guest:
    path = guest.disks.get(name)
    return replace(
        guest,
        disks={other: where for other, where in guest.disks.items() if other != name},
        writable=tuple(each for each in guest.writable if each != path),
    )


def _require(fits: bool, why: str) -> None:
    if not fits:
        raise ChangeRefused(why)
