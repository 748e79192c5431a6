"""Node, Cluster, StoragePool and Image: what VMs run on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from reconciler.resources.codec import quantity
from reconciler.resources.fencing import FencingPolicy
from reconciler.resources.virtualmachine import DiskFormat


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """An amount of CPU (cores) and memory (bytes); None is "not said"."""

    cpu: float | None = quantity("cpu", default=None)
    memory: int | None = quantity("bytes", default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Overcommit:
    """Factors on a node's capacity: 4.0 allows four vCPUs for each core."""

    cpu: float = 4.0
    memory: float = 1.0


class TaintEffect(StrEnum):
    NO_SCHEDULE = "NoSchedule"


@dataclass(frozen=True, slots=True, kw_only=True)
class Taint:
    """Keeps away VMs that do not tolerate `key` (and `value`, when given)."""

    key: str
    value: str | None = None
    effect: TaintEffect = TaintEffect.NO_SCHEDULE


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSpec:
    """`rank` 0 is first in the master hierarchy; `capacity` defaults to what the hypervisor reports."""

    address: str | None = None
    rank: int = 0
    capacity: Resources = field(default_factory=Resources)
    reserved: Resources = field(default_factory=Resources)
    overcommit: Overcommit = field(default_factory=Overcommit)
    unschedulable: bool = False
    maintenance: bool = False
    taints: tuple[Taint, ...] = ()
    fencing: Mapping[str, str] = field(default_factory=dict)


class Power(StrEnum):
    ON = "On"
    OFF = "Off"


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainPolicy:
    """`parallel`: VMs that leave one node, or come back to it, at the same time."""

    parallel: int = 4


class WhenSlow(StrEnum):
    """What becomes of a live migration whose time is up. Abort: the VM goes on where it was. Hold: it is held
    until the rest of its memory is over."""

    ABORT = "Abort"
    HOLD = "Hold"


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationPolicy:
    """How many live migrations are under way at once: in the cluster, out of one node, into one node.
    `bandwidth` of each in bytes per second, 0: as fast as it goes."""

    parallel: int = 4
    outgoing: int = 2
    incoming: int = 2
    bandwidth: int = quantity("bytes", default=0)
    when_slow: WhenSlow = WhenSlow.ABORT


class ShutdownPolicy(StrEnum):
    """What becomes of a node's VMs when its host goes down in order. Migrate: they leave as in a drain, and
    what cannot is stopped. Stop: they are shut down, and start elsewhere. Freeze: they are shut down, and
    start on that node again when it is back."""

    MIGRATE = "Migrate"
    STOP = "Stop"
    FREEZE = "Freeze"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeShutdownPolicy:
    """`timeout_seconds`: for VMs to leave, and again for those that are left to power off."""

    policy: ShutdownPolicy = ShutdownPolicy.MIGRATE
    timeout_seconds: int = 300


class BalanceMode(StrEnum):
    """When running VMs are moved for balance. Manual: only when a person asks for it."""

    MANUAL = "Manual"
    PARTIAL = "Partial"
    FULL = "Full"


@dataclass(frozen=True, slots=True, kw_only=True)
class BalancePolicy:
    """`hold_down_seconds`: so long nodes and VMs must have been as they are before VMs are moved by
    themselves; `rest_seconds`: so long one that was moved stays."""

    mode: BalanceMode = BalanceMode.MANUAL
    hold_down_seconds: int = 600
    rest_seconds: int = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSpec:
    """The singleton named 'cluster'."""

    default_pool: str = "default"
    power: Power = Power.ON
    fencing: FencingPolicy = field(default_factory=FencingPolicy)
    drain: DrainPolicy = field(default_factory=DrainPolicy)
    migration: MigrationPolicy = field(default_factory=MigrationPolicy)
    node_shutdown: NodeShutdownPolicy = field(default_factory=NodeShutdownPolicy)
    balance: BalancePolicy = field(default_factory=BalancePolicy)
    timers: Mapping[str, float] = field(default_factory=dict)


class PoolType(StrEnum):
    RBD = "rbd"
    DIRECTORY = "directory"


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectoryPool:
    """Images as files in `path`; new images get `format`. `shared`: all nodes see the same files there."""

    path: str
    format: DiskFormat = DiskFormat.QCOW2
    shared: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RbdPool:
    """Images in a Ceph pool. `conf`: Ceph's configuration file; `user` is vcl's own Ceph user, `qemu_user`
    the guests' (both without 'client.').

    `qemu_keyring`: the file with the guests' key, default: where `conf` says, else asked of the monitors;
    `qemu_conf`: the configuration file for QEMU, default: one that vcl makes from `conf`.
    """

    pool: str
    namespace: str = ""
    conf: str = "/etc/ceph/ceph.conf"
    user: str = "vcl"
    qemu_user: str = "qemu"
    qemu_keyring: str | None = None
    qemu_conf: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoragePoolSpec:
    """Where disk images live; the section named by `type` is required."""

    type: PoolType
    directory: DirectoryPool | None = None
    rbd: RbdPool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSpec:
    """A named template to clone disks from: an image of a pool, or an absolute `path` on the nodes."""

    pool: str | None = None
    image: str | None = None
    path: str | None = None
    format: DiskFormat | None = None
