"""What can change about a VM while it runs, each as a value: the part of the spec that is taken over at once.

A change says where to, never from where, so that one that is repeated does nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Vcpus:
    """At least `count` vCPUs. None is taken away from a running guest."""

    count: int

    @property
    def paths(self) -> tuple[str, ...]:
        """The fields of the spec that it brings, as the user writes them."""
        return ("spec.cpu.cores",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """`size` bytes, more or less than now."""

    size: int

    @property
    def paths(self) -> tuple[str, ...]:
        """See Vcpus."""
        return ("spec.memory",)


@dataclass(frozen=True, slots=True, kw_only=True)
class GrowDisk:
    """The spec's disk is at least `size` bytes; never less than it is."""

    disk: str
    size: int

    @property
    def paths(self) -> tuple[str, ...]:
        """See Vcpus."""
        return (f"spec.disks[{self.disk}].size",)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachDisk:
    """The spec's disk, whose image is there and belongs to this VM."""

    disk: str

    @property
    def paths(self) -> tuple[str, ...]:
        """See Vcpus."""
        return (f"spec.disks[{self.disk}]",)


@dataclass(frozen=True, slots=True, kw_only=True)
class DetachDisk:
    """The disk of this name is no longer in the domain."""

    disk: str

    @property
    def paths(self) -> tuple[str, ...]:
        """See Vcpus."""
        return (f"spec.disks[{self.disk}]",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconnect:
    """The spec's interface is connected to what the spec names, its cable in or out. `fields`: what of it is
    other than before."""

    interface: str
    fields: tuple[str, ...]

    @property
    def paths(self) -> tuple[str, ...]:
        """See Vcpus."""
        return tuple(f"spec.interfaces[{self.interface}].{field}" for field in self.fields)


LiveChange = Vcpus | Memory | GrowDisk | AttachDisk | DetachDisk | Reconnect


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a running domain has now. `memory`: bytes that its guest has; `disks`: by name, the path of each
    disk of the VM's, as in AttachedDisk."""

    vcpus: int
    memory: int
    disks: Mapping[str, str]
