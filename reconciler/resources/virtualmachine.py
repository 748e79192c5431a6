"""VirtualMachine: what a user asks for. Field names follow KubeVirt where it has one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from reconciler.resources.codec import quantity, renamed


class RunStrategy(StrEnum):
    """When the VM should run. Always: restart after any exit; RerunOnFailure: not after the guest's own
    poweroff; Manual: only `vcl start` starts it; Halted: never."""

    ALWAYS = "Always"
    RERUN_ON_FAILURE = "RerunOnFailure"
    MANUAL = "Manual"
    HALTED = "Halted"


class Firmware(StrEnum):
    BIOS = "bios"
    UEFI = "uefi"


class EvictionStrategy(StrEnum):
    """What happens to the VM when its node is drained."""

    LIVE_MIGRATE = "LiveMigrate"
    LIVE_MIGRATE_IF_POSSIBLE = "LiveMigrateIfPossible"
    STOP = "Stop"
    NONE = "None"


class DeletionPolicy(StrEnum):
    """What happens to the disk images when the VM is deleted."""

    RETAIN = "Retain"
    DELETE = "Delete"


class DiskBus(StrEnum):
    VIRTIO = "virtio"
    SCSI = "scsi"
    SATA = "sata"


class DiskCache(StrEnum):
    NONE = "none"
    WRITEBACK = "writeback"
    WRITETHROUGH = "writethrough"
    DIRECTSYNC = "directsync"
    UNSAFE = "unsafe"


class DiskFormat(StrEnum):
    QCOW2 = "qcow2"
    RAW = "raw"


class NicModel(StrEnum):
    VIRTIO = "virtio"
    E1000E = "e1000e"
    RTL8139 = "rtl8139"


class NicState(StrEnum):
    """Whether the guest sees the cable of a NIC as plugged in."""

    UP = "up"
    DOWN = "down"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cpu:
    """`cores` are whole vCPUs, `max_cores` how many it may get while it runs; `model` is a libvirt CPU model,
    'host-model' or 'host-passthrough'."""

    cores: int
    max_cores: int | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CloneSource:
    """An existing image of a pool; `pool` defaults to the disk's own."""

    image: str
    pool: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskSource:
    """Where a new disk's content comes from: exactly one is set.

    `blank`: empty; `image`: the name of an Image object; `clone`: another image; `import_path`: an absolute
    path of a qcow2 or raw file on the node.
    """

    blank: Mapping[str, str] | None = None
    image: str | None = None
    clone: CloneSource | None = None
    import_path: str | None = renamed("import", default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """`size` in bytes: the least size, an image is grown to it. `image` defaults to VM.DISK.

    Without a `source`, an existing image of that name is used, or a blank one of `size` is created.
    """

    name: str
    pool: str | None = None
    image: str | None = None
    size: int | None = quantity("bytes", default=None)
    source: DiskSource | None = None
    bus: DiskBus = DiskBus.VIRTIO
    cache: DiskCache = DiskCache.NONE
    format: DiskFormat | None = None
    read_only: bool = False

    def image_name(self, vm: str) -> str:
        """The image's name in its pool for the VM called `vm`."""
        return self.image or f"{vm}.{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """A NIC on a host `bridge` or a libvirt `network`; with neither, QEMU's user-mode network (NAT). `state`:
    None leaves it as it is, which is up but for a user's own XML."""

    name: str
    bridge: str | None = None
    network: str | None = None
    mac: str | None = None
    model: NicModel = NicModel.VIRTIO
    state: NicState | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudInit:
    """NoCloud seed; each is the text of the file of that name."""

    user_data: str = "#cloud-config\n"
    meta_data: str | None = None
    network_config: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Boot:
    """Direct kernel boot: absolute paths on the node."""

    kernel: str
    initrd: str | None = None
    cmdline: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Liveness:
    """Restart the guest when its agent, which has answered in this run, stops answering. Whole seconds."""

    initial_delay_seconds: int = 0
    period_seconds: int = 10
    timeout_seconds: int = 5
    failure_threshold: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Toleration:
    """Allows the VM on nodes with a taint of this key (and value, when given)."""

    key: str
    value: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VirtualMachineSpec:
    """`memory` in bytes, `max_memory` how much it may get while it runs. Only `cpu.cores` and `memory` are
    required."""

    cpu: Cpu
    memory: int = quantity("bytes")
    max_memory: int | None = quantity("bytes", default=None)
    run_strategy: RunStrategy = RunStrategy.ALWAYS
    priority: int = 0
    preemption: bool = False
    start_after: tuple[str, ...] = ()
    machine: str = "q35"
    firmware: Firmware = Firmware.BIOS
    disks: tuple[Disk, ...] = ()
    interfaces: tuple[Interface, ...] = ()
    cloud_init: CloudInit | None = None
    boot: Boot | None = None
    guest_agent: bool = True
    liveness: Liveness | None = None
    termination_grace_period_seconds: int = 60
    eviction_strategy: EvictionStrategy = EvictionStrategy.LIVE_MIGRATE_IF_POSSIBLE
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()
    deletion_policy: DeletionPolicy = DeletionPolicy.RETAIN
    controller: str = "libvirt"
    domain_xml: str | None = renamed("domainXML", default=None)
