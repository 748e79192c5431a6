"""Domains as values: what a controller is asked to start, and what it reports back."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from reconciler.resources.images import RbdAccess
from reconciler.resources.virtualmachine import DiskFormat, VirtualMachineSpec


class DomainPhase(StrEnum):
    """STOPPING: shut down but still known to the hypervisor; CRASHED: dead but its process remains."""

    RUNNING = "Running"
    PAUSED = "Paused"
    STOPPING = "Stopping"
    CRASHED = "Crashed"


class PauseReason(StrEnum):
    """Why a domain is paused. STARTING: created paused and never resumed (SAFETY rule 5). ISOLATED: by this
    node's vcld, because the node had lost contact."""

    NONE = ""
    STARTING = "Starting"
    USER = "User"
    IO_ERROR = "IOError"
    MIGRATION = "Migration"
    ISOLATED = "Isolated"
    OTHER = "Other"


class ExitReason(StrEnum):
    """How a domain ended, as far as the hypervisor says. PANICKED: the guest's kernel did."""

    SHUTDOWN = "Shutdown"
    DESTROYED = "Destroyed"
    CRASHED = "Crashed"
    PANICKED = "Panicked"
    FAILED = "Failed"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachedDisk:
    """One disk, ready to be attached. `path` is absolute, or `rbd:POOL[/NAMESPACE]/IMAGE` with its
    `access`."""

    name: str
    path: str
    format: DiskFormat
    read_only: bool = False
    access: RbdAccess | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestKey:
    """A key with which guests' hypervisor processes reach their disks. `secret`: the UUID by which a
    definition refers to it; `usage`: a name of it for people, unique on the host; `value`: the key itself, in
    base64, never logged or stored."""

    secret: str
    usage: str
    value: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRequest:
    """All that a controller needs to define one VM. `machine` is the pinned type, empty at first start.
    `nvram`: its UEFI variables, when they are in a pool; else the controller keeps them on the node.

    The domain's UUID is `uid`. The four identity fields go into the domain's metadata (SAFETY rule 9).
    """

    name: str
    uid: str
    cluster_uid: str
    node: str
    generation: int
    spec: VirtualMachineSpec
    disks: tuple[AttachedDisk, ...] = ()
    machine: str = ""
    nvram: AttachedDisk | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """The final definition. `writable`: every path that the guest may write (disks and NVRAM).

    `document` is the controller's own text (libvirt: domain XML). `seed`: contents of files that `create`
    writes before it starts the domain (cloud-init), name -> text.
    """

    name: str
    uid: str
    document: str
    machine: str
    writable: tuple[str, ...] = ()
    seed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """A domain as the hypervisor reports it. `uid`, `cluster_uid`, `node` are empty when vcl did not make it.

    `incarnation` changes with every start; `clients` are what may write to its images.
    `memory` in bytes; `agent_connected` is None when the domain has no agent channel.
    """

    name: str
    uid: str = ""
    cluster_uid: str = ""
    node: str = ""
    generation: int = 0
    phase: DomainPhase
    pause_reason: PauseReason = PauseReason.NONE
    incarnation: str = ""
    clients: tuple[str, ...] = ()
    vcpus: int = 0
    memory: int = 0
    machine: str = ""
    virtualization: str = ""
    agent_connected: bool | None = None
    autostart: bool = False
    persistent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Stranger:
    """A domain that somebody may want to hand over to vcl. `uuid`: the hypervisor's identity of it; `uid`,
    `cluster_uid`, `node`: the mark that it carries already, empty without one.

    `writable`: every path that its present run may write; `persistent`: the hypervisor keeps a definition of
    it; `obstacle`: why it cannot be taken over as it is, with the cure, or empty.
    """

    name: str
    uuid: str
    running: bool
    writable: tuple[str, ...] = ()
    persistent: bool = False
    uid: str = ""
    cluster_uid: str = ""
    node: str = ""
    obstacle: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gone:
    """Proof that no such domain runs; `exit` says how the last one ended, if the hypervisor remembers."""

    exit: ExitReason = ExitReason.UNKNOWN


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerEvent:
    """A hint that a domain changed (name) or that everything must be looked at again (name is empty)."""

    name: str = ""
    what: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestInfo:
    """What the guest tells. `ip_addresses` without loopback and link-local ones."""

    ip_addresses: tuple[str, ...] = ()
    agent_connected: bool | None = None
    vnc: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentPing:
    """Whether a running guest's agent answered. `boot`: which boot of the guest, and which connection to it,
    was asked: silence says nothing after it has changed."""

    answered: bool
    boot: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HostNetworks:
    """What a guest's interfaces can be connected to on a host, by name and sorted; `networks`: the
    hypervisor's own that are active. `unknown`: which of the two is not known; nothing is concluded from it.
    """

    bridges: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


def host_networks(bridges: Collection[str] | None, networks: Collection[str] | None) -> HostNetworks:
    """With None for what is not known."""
    both = (("bridges", bridges), ("networks", networks))
    return HostNetworks(
        bridges=tuple(sorted(bridges or ())),
        networks=tuple(sorted(networks or ())),
        unknown=tuple(name for name, found in both if found is None),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """What the hypervisor says of this node: whole CPUs, memory in bytes. `nvram_template`: the file that a
    guest's UEFI variables start as; empty without UEFI. `networks`: None when it does not tell."""

    cpus: int
    memory: int
    hypervisor: str
    architecture: str
    virtualization: str
    nvram_template: str = ""
    networks: HostNetworks | None = None
