"""The values behind the store's keys (see keys.py), as frozen dataclasses; JSON through codec.py.

Times are wall-clock strings for people (RFC 3339, UTC): no decision ever compares them across hosts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar

from reconciler.resources.codec import decode, encode
from reconciler.resources.infrastructure import ShutdownPolicy
from reconciler.resources.migrations import ClaimMigration

T = TypeVar("T")

STORE_SCHEMA = 2
"""The schema version this program reads and writes (key `schema`). 2: a claim may name two nodes."""


def dump(value: Any) -> bytes:
    """A record or JSON-shaped value as compact, key-sorted JSON: equal values give equal bytes."""
    return json.dumps(encode(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def load(cls: type[T], value: bytes) -> T:
    """The record that `dump` wrote. Raises InvalidInput (or ValueError when it is not JSON)."""
    return decode(cls, json.loads(value))


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaRecord:
    """Compared in every transaction (SAFETY rule 3)."""

    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterRecord:
    """The cluster's identity, made once."""

    uid: str
    name: str
    created: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """Incremented at each acquisition of mastership; compared in every master write."""

    epoch: int
    holder: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmedWatchdog:
    """A node's hardware watchdog, armed in its session's boot: `period` in seconds."""

    identity: str
    period: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """`session` grows at every daemon start and with every fence intent (SAFETY rule 4).

    `addresses`: the IP addresses by which the host reaches shared storage; `clients`: the daemon's own
    clients of Ceph (10.77.0.1:0/544144402). Both are what a fencer closes out (SAFETY rule 10).
    `watchdog`: is armed, and will be until this says otherwise.
    """

    session: int
    boot_id: str
    machine_id: str
    started: str
    addresses: tuple[str, ...] = ()
    clients: tuple[str, ...] = ()
    watchdog: ArmedWatchdog | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectMeta:
    """Kubernetes' metadata. `generation` counts changes of the spec."""

    name: str
    uid: str
    generation: int = 1
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    creation_timestamp: str = ""
    deletion_timestamp: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where the object was read from: a path relative to the manifest directory, its first line, and the
    digest of the file's bytes (empty in records of versions that did not note it)."""

    path: str
    line: int = 1
    digest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecRecord:
    """One accepted object. `spec` is what the user wrote, as JSON; `warnings` name ignored fields.

    `purge`: deletion was asked for with the images (`vcl delete --purge`).
    """

    kind: str
    metadata: ObjectMeta
    spec: Mapping[str, Any]
    source: Source
    purge: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """What verbs asked for on top of a VM's manifest; shown in `get`, cleared by the opposite verb.

    `run`: 'Start' or 'Stop' overrides runStrategy; `start`: the id of the last `start`, which begins one run
    (a Manual VM whose run ended stays off until the next one); `paused`: keep the guest suspended;
    `restart`: an id; a claim that does not carry it is stopped once and started again; `reset`: an id; a
    running guest whose claim does not carry it is reset once;
    `force`: the stop is a destroy, without waiting for the guest; `reset_failures`: an id, forget failures.
    `run_strategy` is the spec's at the time: a later change of runStrategy clears `run`.
    """

    run: str | None = None
    start: str | None = None
    paused: bool = False
    restart: str | None = None
    reset: str | None = None
    force: bool = False
    reset_failures: str | None = None
    run_strategy: str | None = None
    requested: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeShutdown:
    """The host of a node goes down in order. `boot_id`: of the boot that ends so; in another one it is over.
    `timeout_seconds`: for guests to power off, once they are asked."""

    id: str
    policy: ShutdownPolicy
    boot_id: str
    timeout_seconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeIntent:
    """What verbs asked for on top of a Node's manifest; shown in `get`, cleared by the opposite verb.

    `unschedulable`, `maintenance`: stand above the manifest's, None: as the manifest says. `spec_...`: what
    it said at the time; a later change of that field clears the verb. `drain`: an id: the node's VMs go
    elsewhere until it is uncordoned. `bring_back`: those that went for a drain come back. `shutdown`: until
    the host has booted again, or is uncordoned.
    """

    unschedulable: bool | None = None
    maintenance: bool | None = None
    drain: str | None = None
    bring_back: bool = False
    shutdown: NodeShutdown | None = None
    spec_unschedulable: bool = False
    spec_maintenance: bool = False
    requested: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """The master's word on where a VM is to run. `epoch` is the master's; `uid` the VM's."""

    node: str
    uid: str
    epoch: int
    bound: str
    reason: str = ""


class ClaimPhase(StrEnum):
    """How far the owner got: each phase is committed before the next begins.

    Provisioning: images are being made or checked; Starting: the domain may exist, paused;
    Running: the clients are recorded and the guest was (or may have been) resumed.
    """

    PROVISIONING = "Provisioning"
    STARTING = "Starting"
    RUNNING = "Running"


@dataclass(frozen=True, slots=True, kw_only=True)
class HotPlug:
    """A disk that is being attached to the running domain, or taken from it (`away`).

    Recorded before anything is done, and as long as it is not certain whether the domain has the disk open:
    meanwhile the VM is not migrated. `keys`: the `disk/` keys that the claim holds for this disk alone.
    `session`: of the daemon that began; a later one cannot know whether a call of it is still under way.
    """

    disk: str
    session: int
    keys: tuple[str, ...] = ()
    away: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The ownership of a VM. An empty `node` is an emptied claim: it keeps `former_clients` (SAFETY rule 8).

    `clients`: what may write to the images (RBD addresses; `pid:N:STARTTIME` for local files).
    `disks`: the `disk/` keys held with this claim, without the prefix.
    `start`, `restart`, `reset`: the ids of the requests that this run already honours. `paused`: vcl
    suspended it.
    `exit`: how the last run ended (an ExitReason), on an emptied claim; `purged`: its images are trashed.
    `controller`: who has, or is to have, the domain, whatever the spec says by now.
    `migration`: it is the claim of two nodes while one is under way. `plugging`: a disk comes or goes.
    """

    node: str = ""
    uid: str = ""
    boot_id: str = ""
    session: int = 0
    binding_revision: int = 0
    phase: ClaimPhase = ClaimPhase.PROVISIONING
    disks: tuple[str, ...] = ()
    clients: tuple[str, ...] = ()
    former_clients: tuple[str, ...] = ()
    generation: int = 0
    start: str | None = None
    restart: str | None = None
    reset: str | None = None
    paused: bool = False
    exit: str | None = None
    purged: bool = False
    controller: str = ""
    claimed: str = ""
    migration: ClaimMigration | None = None
    plugging: HotPlug | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskClaim:
    """Who may write to one image: a VM's claim, or an operation with its id."""

    node: str
    vm: str
    uid: str
    operation: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """What stays the same from the first start on: the machine type version and the domain UUID.

    `spec` is what the present run was started with, to name what a restart would change.
    """

    uid: str
    machine: str
    domain_uuid: str
    spec: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeRecord:
    """That an image was created (or found) once. Missing afterwards is ImageMissing (SAFETY rule 18).

    `node`: the only node that has it, when its pool is each node's own; empty for a shared one.
    """

    identity: str
    uid: str
    created: str
    made_by_vcl: bool = True
    node: str = ""


class EventType(StrEnum):
    NORMAL = "Normal"
    WARNING = "Warning"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One line of history about an object."""

    sequence: int
    time: str
    type: EventType
    kind: str
    name: str
    reason: str
    message: str
    node: str
    count: int = 1
    first_time: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tombstone:
    """A deletion that ended, kept until every node has acknowledged it."""

    uid: str
    deleted: str
