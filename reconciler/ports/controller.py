"""ResourceController: what runs virtual machines on this node (libvirt, dummy, another package's).

Unknown is never stopped: whatever cannot be read raises ControllerUnavailable. `Gone` is a proof (SAFETY
rule 7): the domain is absent, no call of ours that could still create it is outstanding, and no process of
it lives. Every call takes `timeout` in seconds; calls for one VM are serialised by the caller.
A controller from another package is found through the entry-point group `vcl.controllers`, whose value is a
`ControllerFactory`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from reconciler.resources.virtualmachine import DiskFormat, VirtualMachineSpec


class DomainPhase(StrEnum):
    """STOPPING: shut down but still known to the hypervisor; CRASHED: dead but its process remains."""

    RUNNING = "Running"
    PAUSED = "Paused"
    STOPPING = "Stopping"
    CRASHED = "Crashed"


class PauseReason(StrEnum):
    """Why a domain is paused. STARTING: created paused and never resumed (SAFETY rule 5)."""

    NONE = ""
    STARTING = "Starting"
    USER = "User"
    IO_ERROR = "IOError"
    MIGRATION = "Migration"
    OTHER = "Other"


class ExitReason(StrEnum):
    """How a domain ended, as far as the hypervisor says."""

    SHUTDOWN = "Shutdown"
    DESTROYED = "Destroyed"
    CRASHED = "Crashed"
    FAILED = "Failed"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachedDisk:
    """One disk, ready to be attached. `path` is absolute; a missing `format` is read from the file."""

    name: str
    path: str
    format: DiskFormat
    read_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRequest:
    """All that a controller needs to define one VM. `machine` is the pinned type, empty at first start.

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
class Gone:
    """Proof that no such domain runs; `exit` says how the last one ended, if the hypervisor remembers."""

    exit: ExitReason = ExitReason.UNKNOWN


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerEvent:
    """A hint that a domain changed (name) or that everything must be looked at again (name is empty)."""

    name: str = ""
    what: str = ""


class ResourceController(Protocol):
    """Lifecycle of VMs on this node."""

    async def render(self, request: StartRequest, *, timeout: float) -> Definition:
        """The final definition, without side effects. Raises StartFailed when it cannot be made."""
        ...

    async def inventory(self, *, timeout: float) -> tuple[Observed, ...]:
        """Every domain on the node, ours or not, sorted by name: complete, or ControllerUnavailable."""
        ...

    async def observe(self, name: str, *, uid: str = "", timeout: float) -> Observed | Gone:
        """One domain. With `uid`, Gone also proves that no process of that UUID lives."""
        ...

    async def create(self, definition: Definition, *, timeout: float) -> Observed:
        """Start it *paused*. StartFailed: refused, nothing runs; NotOurs: the name is taken by a domain of
        another UUID; ControllerUnavailable: it may yet appear, and `observe` is not Gone until settled."""
        ...

    async def set_paused(self, name: str, paused: bool, *, timeout: float) -> None:
        """Suspend or resume; no-op when it already is. NotFound when there is no such domain."""
        ...

    async def shutdown(self, name: str, *, timeout: float) -> None:
        """Ask the guest to power off (agent or ACPI); returns at once, success says nothing."""
        ...

    async def destroy(self, name: str, *, uid: str, timeout: float) -> None:
        """End it now, if its UUID is `uid` (NotOurs otherwise); no-op when absent. Not proof: `observe`."""
        ...

    def events(self) -> AsyncIterator[ControllerEvent]:
        """Hints, for ever; one with an empty name after every reconnect."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestInfo:
    """What the guest tells. `ip_addresses` without loopback and link-local ones."""

    ip_addresses: tuple[str, ...] = ()
    agent_connected: bool | None = None
    vnc: str | None = None


class Guest(Protocol):
    """Looking into a running guest; every call has its own deadline."""

    async def info(self, name: str, *, timeout: float) -> GuestInfo:
        """Addresses, agent and VNC address; what is not known is empty. ControllerUnavailable."""
        ...


class ConsoleStream(Protocol):
    """A byte stream to a serial console."""

    async def read(self) -> bytes:
        """Some bytes; empty at the end."""
        ...

    async def write(self, data: bytes) -> None: ...

    async def close(self) -> None: ...


class Console(Protocol):
    """Serial consoles."""

    async def open(self, name: str, *, timeout: float) -> ConsoleStream:
        """Connect; somebody already connected is AlreadyExists unless forced off by the hypervisor."""
        ...

    async def tail(self, name: str, limit: int, *, timeout: float) -> bytes:
        """The last `limit` bytes that the console printed, also of a VM that ended; empty when none."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """What the hypervisor says of this node: whole CPUs, memory in bytes."""

    cpus: int
    memory: int
    hypervisor: str
    architecture: str
    virtualization: str


class Host(Protocol):
    """The node itself."""

    async def facts(self, *, timeout: float) -> HostFacts: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerContext:
    """What the daemon gives a controller factory. Directories exist. `options`: the configuration's
    `controllers.NAME` section."""

    node: str
    cluster_uid: str
    state_dir: Path
    run_dir: Path
    options: Mapping[str, object] = field(default_factory=dict)


class Controller(Protocol):
    """A whole controller: the parts it has (None where it has none) and its life."""

    name: str
    lifecycle: ResourceController
    guest: Guest | None
    console: Console | None
    host: Host | None

    async def open(self) -> None:
        """Connect. An unreachable hypervisor is no error here: calls raise ControllerUnavailable until
        it answers."""
        ...

    async def close(self) -> None:
        """Disconnect; running VMs are left running."""
        ...


class ControllerFactory(Protocol):
    """The value of an entry point in the group `vcl.controllers`."""

    def __call__(self, context: ControllerContext) -> Controller: ...
