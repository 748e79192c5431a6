"""What is recorded of a fencing (fence/NODE), of its proofs, and of a node's return.

Invariant: every step is recorded before the next begins, so that any later master goes on from here, knowing
nothing else. A record is deleted only when the node's return is settled (SAFETY rule 15).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from ipaddress import ip_address
from typing import TypeAlias, assert_never


class FenceMethod(StrEnum):
    """How a node can be kept from writing. The names are those of the cluster's setting `fencing.methods`."""

    CEPH_BLOCKLIST = "ceph-blocklist"
    AGENT = "agent"
    WATCHDOG = "watchdog"
    MANUAL = "manual"


class FenceCause(StrEnum):
    """What made a node a candidate."""

    SILENT = "Silent"
    """On both channels."""
    DAEMON_GONE = "DaemonGone"
    """Its host refuses connections, and its daemon has been away for longer than `daemonGrace`."""
    STORAGE_LOST = "StorageLost"
    """It is heard, and has not reached the store for longer than `storageGrace`."""


class StepName(StrEnum):
    """The steps of a fencing, in the order in which they are first reached."""

    INTENT = "Intent"
    FENCE = "Fence"
    SETTLE = "Settle"
    BREAK_LOCKS = "BreakLocks"
    RELEASE = "Release"
    FINISH = "Finish"
    LIFT = "Lift"
    CLEAR = "Clear"


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """How long nothing was heard of a node, in seconds by one judge's steady clock: `heard` on the mesh
    (None: never), `lease` since its lease was last seen to change; `since` its last sign of life on the
    channels that are silent."""

    heard: float | None = None
    lease: float
    since: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StepDone:
    """One step that was carried out: `at` for people (RFC 3339), `seconds` it took, and its `epoch`.

    `after`: seconds since the node's last sign of life, by the clock of the master `by`.
    """

    step: StepName
    at: str
    epoch: int
    seconds: float = 0.0
    detail: str = ""
    after: float | None = None
    by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocklisted:
    """The Ceph cluster `fsid` lets none of `entries` write, for years, as its own list has shown.

    `entries`: whole hosts (IP:0/0) and single clients (IP:0/NONCE). `settled`: everything that this master
    does from then on is ordered behind the entries (wait_for_latest_osdmap). `unlocked`: stale locks of these
    clients were broken.
    """

    fsid: str
    entries: tuple[str, ...]
    settled: bool = False
    unlocked: bool = False
    lifted: bool = False
    at: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoweredOff:
    """A fence agent has switched the host off, and a later `status` has said that it is off."""

    agent: str
    at: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchdogExpired:
    """The host's hardware watchdog has reset it: nothing fed it for two periods and a margin."""

    device: str
    seconds: float
    at: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmedDown:
    """A person says that this boot of the host is over, for this incident."""

    incident: str
    boot_id: str
    by: str
    at: str = ""


HostProof: TypeAlias = PoweredOff | WatchdogExpired | ConfirmedDown
"""The whole host is down, and with it everything that ran on it."""
Proof: TypeAlias = Blocklisted | HostProof


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """How a fencer has done: `failures` in a row, and the last one's `error`; empty after a success."""

    fencer: str
    failures: int = 0
    error: str = ""
    at: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FenceRecord:
    """fence/NODE. While it exists the node claims nothing (SAFETY rule 4).

    `id` is unique; `incident` is its short name for people. `session` is the one that the intent gave the
    node: a larger one is a daemon that began after it. `boot_id`, `machine_id`: of the host to be fenced.
    `addresses`: by which it reaches storage; `entries`: the single clients that are known of it.
    `fsids`: the Ceph clusters that it uses. `vms`: what was taken from it so far; `missing`: what still
    lacks a proof, in words. `released`: when the last claim was emptied. `silence`: at the intent.
    """

    id: str
    node: str
    incident: str
    cause: FenceCause
    reason: str
    epoch: int
    session: int
    boot_id: str
    machine_id: str
    began: str
    addresses: tuple[str, ...] = ()
    entries: tuple[str, ...] = ()
    fsids: tuple[str, ...] = ()
    blocklisted: tuple[Blocklisted, ...] = ()
    powered_off: tuple[PoweredOff, ...] = ()
    watchdog: tuple[WatchdogExpired, ...] = ()
    confirmed: tuple[ConfirmedDown, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    steps: tuple[StepDone, ...] = ()
    vms: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    released: str = ""
    silence: Silence | None = None

    @property
    def host_proofs(self) -> tuple[HostProof, ...]:
        """Every proof that the whole host is down."""
        return (*self.powered_off, *self.watchdog, *self.confirmed)

    def on(self, fsid: str) -> Blocklisted | None:
        """What was proven at one Ceph cluster."""
        return next((proof for proof in self.blocklisted if proof.fsid == fsid), None)

    def attempt(self, fencer: str) -> Attempt:
        """How a fencer has done."""
        found = (attempt for attempt in self.attempts if attempt.fencer == fencer)
        return next(found, Attempt(fencer=fencer))


@dataclass(frozen=True, slots=True, kw_only=True)
class FenceOrder:
    """Whom a fencer is to fence. `clients`: of Ceph, each to get an entry of its own. `images`: identities
    of what they may write to, as in the keys of disk claims. `settings`: the node's own for power fencing."""

    id: str
    node: str
    incident: str
    boot_id: str
    addresses: tuple[str, ...] = ()
    clients: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmRecord:
    """confirm/NODE: what `vcl node confirm-down` wrote. It counts for this incident and boot only."""

    incident: str
    boot_id: str
    by: str
    at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReturnRecord:
    """return/NODE, written by the node: in `session` it has looked at everything that runs on its host, and
    nothing of this cluster is left there. `boot_id`, `machine_id`: of the host, then."""

    session: int
    boot_id: str
    machine_id: str
    at: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FencingTimeOuts:
    """Seconds for one attempt. Monitors need up to 12 s for a command while one of them is newly dead."""

    ceph_blocklist: float = 30.0
    agent: float = 60.0
    watchdog: float = 10.0
    manual: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FencingPolicy:
    """The cluster's setting `fencing`. `methods` are tried in this order: a later one begins once every
    earlier one that applies has failed. No method: nobody is fenced. `mark_osds_down`: Ceph is told at once
    that the OSDs of a silent node are down, and in a stall of Ceph its fence agent switches it off."""

    methods: tuple[FenceMethod, ...] = (
        FenceMethod.CEPH_BLOCKLIST,
        FenceMethod.AGENT,
        FenceMethod.WATCHDOG,
        FenceMethod.MANUAL,
    )
    time_outs: FencingTimeOuts = field(default_factory=FencingTimeOuts)
    mark_osds_down: bool = False

    def time_out(self, method: FenceMethod) -> float:
        """Seconds for one attempt."""
        match method:
            case FenceMethod.CEPH_BLOCKLIST:
                return self.time_outs.ceph_blocklist
            case FenceMethod.AGENT:
                return self.time_outs.agent
            case FenceMethod.WATCHDOG:
                return self.time_outs.watchdog
            case FenceMethod.MANUAL:
                return self.time_outs.manual
            case _:
                assert_never(method)


@lru_cache(maxsize=4096)
def host_entry(address: str) -> str:
    """The blocklist's entry for a whole host: 10.77.0.1:0/0, or [fd00::1]:0/0. Raises ValueError."""
    found = ip_address(address)
    return f"[{found}]:0/0" if found.version == 6 else f"{found}:0/0"


@lru_cache(maxsize=4096)
def client_host(client: str) -> str:
    """The IP address of a Ceph client such as 10.77.0.1:0/544144402. Raises ValueError for anything else."""
    host, _, rest = canonical(client).rpartition(":")
    port, slash, nonce = rest.partition("/")
    if not (slash and port.isdigit() and nonce.isdigit()):
        raise ValueError(f"{client!r} is no address of a Ceph client")
    return str(ip_address(host.strip("[]")))


def is_address(text: str) -> bool:
    """Whether it is an IP address: a blocklist knows no names."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def is_client(client: str) -> bool:
    """Whether it is the address of a Ceph client (and not pid:N:STARTTIME, say)."""
    try:
        client_host(client)
    except ValueError:
        return False
    return True


def canonical(client: str) -> str:
    """As the blocklist shows it: without the protocol's name in front."""
    for prefix in ("v1:", "v2:", "any:"):
        client = client.removeprefix(prefix)
    return client
