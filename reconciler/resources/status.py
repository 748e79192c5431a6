"""Status words, conditions, and the status values that nodes and the master write."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from reconciler.resources.domains import HostNetworks
from reconciler.resources.failures import Failures


class Phase(StrEnum):
    """The STATUS word of a VirtualMachine (DESIGN §10)."""

    PENDING = "Pending"
    UNSCHEDULABLE = "Unschedulable"
    PROVISIONING = "Provisioning"
    STARTING = "Starting"
    RUNNING = "Running"
    PAUSED = "Paused"
    STOPPING = "Stopping"
    STOPPED = "Stopped"
    MIGRATING = "Migrating"
    FENCING = "Fencing"
    FAILED = "Failed"
    UNKNOWN = "Unknown"
    TERMINATING = "Terminating"


class ConditionType(StrEnum):
    READY = "Ready"
    PLACED = "Placed"
    MANIFEST_VALID = "ManifestValid"
    IMAGE_IN_USE = "ImageInUse"
    RESTART_REQUIRED = "RestartRequired"
    LIVE_MIGRATABLE = "LiveMigratable"
    AGENT_CONNECTED = "AgentConnected"
    FAILED_ON_NODE = "FailedOnNode"
    NEAR_FULL = "NearFull"


class ConditionStatus(StrEnum):
    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """Kubernetes' condition. `last_transition_time` changes only when `status` does."""

    type: ConditionType
    status: ConditionStatus
    reason: str
    message: str = ""
    last_transition_time: str = ""
    observed_generation: int = 0


def merge_conditions(
    old: tuple[Condition, ...], new: tuple[Condition, ...], now: str
) -> tuple[Condition, ...]:
    """`new` with the transition times of `old` where the status did not change, sorted by type."""
    before = {condition.type: condition for condition in old}
    merged = []
    for condition in sorted(new, key=lambda c: c.type.value):
        previous = before.get(condition.type)
        same = previous is not None and previous.status == condition.status
        time = previous.last_transition_time if same and previous else now
        merged.append(
            Condition(
                type=condition.type,
                status=condition.status,
                reason=condition.reason,
                message=condition.message,
                last_transition_time=time,
                observed_generation=condition.observed_generation,
            )
        )
    return tuple(merged)


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskStatus:
    """A disk on a network as its node sees it. `image`: its path, such as rbd:vms/web.root; `owners`: who has
    it open or locked, in words."""

    name: str
    image: str
    size: int
    features: tuple[str, ...] = ()
    owners: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class VmNodeStatus:
    """What the owning node reports (status/node/VirtualMachine/NAME)."""

    uid: str
    node: str
    phase: Phase
    message: str = ""
    observed_generation: int = 0
    running_generation: int = 0
    start_time: str | None = None
    restarts: int = 0
    ip_addresses: tuple[str, ...] = ()
    vnc: str | None = None
    virtualization: str | None = None
    last_exit: str | None = None
    progress: str | None = None
    disks: tuple[DiskStatus, ...] = ()
    failures: Failures = field(default_factory=Failures)
    conditions: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MasterStatus:
    """Why a VM is placed where it is, or is not (status/master/KIND/NAME)."""

    uid: str
    node: str | None = None
    message: str = ""
    observed_generation: int = 0
    conditions: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainWait:
    """A VM that is still on a node that is drained, or not back yet, and why. `going`: it is on its way, or
    will be without anybody's help."""

    vm: str
    reason: str
    going: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeMasterStatus:
    """How the last drain of a node goes, or went (status/master/Node/NAME). `drain`: the id of the request;
    `finished`: when nothing was left, or when it was `cancelled`; `away`: VMs that went for it."""

    uid: str
    drain: str
    started: str
    finished: str = ""
    cancelled: bool = False
    away: tuple[str, ...] = ()
    waiting: tuple[DrainWait, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestStatus:
    """What the manifest loop says of an object or file (status/node/...): problems, conflicts, warnings.

    `since`: when `valid` last changed; empty when it never did.
    """

    valid: bool
    message: str = ""
    problems: tuple[str, ...] = ()
    since: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignDomain:
    """A domain on the node that vcl did not make: reported and left alone."""

    name: str
    phase: str
    vcpus: int = 0
    memory: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus:
    """What a node reports of itself (status/node/Node/NAME). `cpu` in cores, memory in bytes. `networks`: by
    controller, of those that tell. `migrates`: the controllers that can hand running guests over."""

    uid: str
    ready: bool
    message: str = ""
    version: str = ""
    address: str = ""
    cpu: int = 0
    memory: int = 0
    hypervisor: str = ""
    architecture: str = ""
    virtualization: str = ""
    controllers: Mapping[str, str] = field(default_factory=dict)
    migrates: tuple[str, ...] = ()
    networks: Mapping[str, HostNetworks] = field(default_factory=dict)
    foreign_domains: tuple[ForeignDomain, ...] = ()
    heartbeat_time: str = ""
    conditions: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStatus:
    """What a node sees of a pool (status/node/StoragePool/NAME). Sizes in bytes."""

    uid: str
    ready: bool
    message: str = ""
    total: int = 0
    free: int = 0
    conditions: tuple[Condition, ...] = ()
