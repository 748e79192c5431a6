"""What the agent works with: its surroundings, and what it keeps in memory for each VM."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from reconciler.loops.pools import Pools
from reconciler.loops.views import Views
from reconciler.loops.writer import Writer
from reconciler.planning.hangs import Watch
from reconciler.planning.lifecycle import Memory
from reconciler.planning.live_changes import Tries
from reconciler.ports.clock import Clock, Ids
from reconciler.ports.controller import Controller
from reconciler.ports.disks import NetworkImages
from reconciler.ports.migrator import Migrator
from reconciler.resources.changes import LiveChange
from reconciler.resources.domains import Definition, GuestInfo, Observed
from reconciler.resources.failures import Failures
from reconciler.resources.images import Holder
from reconciler.resources.kinds import Kind
from reconciler.resources.records import EventType
from reconciler.resources.status import DiskStatus, VmNodeStatus
from reconciler.resources.virtualmachine import VirtualMachineSpec

RecordEvent = Callable[[EventType, Kind, str, str, str], None]
"""(type, kind, name, reason, message); never blocks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """Seconds that the agent waits for one call of each kind."""

    observe: float = 10.0
    create: float = 60.0
    act: float = 30.0
    guest: float = 3.0
    disk: float = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Departs:
    """`reason`: why the node runs the VM no longer, empty while it may run. `now`: its guest is not asked any
    more, but ended."""

    reason: str = ""
    now: bool = False

    def grace(self, vm: VirtualMachineSpec | None) -> float:
        """Seconds that a guest gets to power off; 60 while its spec cannot be read."""
        if self.now:
            return 0.0
        return float(vm.termination_grace_period_seconds) if vm is not None else 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeContext:
    """Who this node is, for one run of the daemon. `frozen()`: why nothing may be changed, or empty;
    `held()`: the same while the node has lost contact; `shut_down(vm)`: what its status says while the
    cluster is shut down, and its guest another's to end (power_down.py); `departs(vm)`: whether this node
    runs it no longer, since its host goes down."""

    node: str
    cluster_uid: str
    boot_id: str
    session: int
    clock: Clock
    ids: Ids
    views: Views
    writer: Writer
    controllers: Mapping[str, Controller]
    pools: Pools
    event: RecordEvent
    frozen: Callable[[], str]
    deadlines: Deadlines = field(default_factory=Deadlines)
    held: Callable[[], str] = str
    shut_down: Callable[[str], str] = lambda vm: ""
    departs: Callable[[str], Departs] = lambda vm: Departs()

    @property
    def migrates(self) -> tuple[str, ...]:
        """The controllers that can hand running guests over, by name."""
        found = sorted(self.controllers.items())
        return tuple(name for name, controller in found if isinstance(controller.lifecycle, Migrator))


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """An image that is held, by whom, and the pool to ask about it."""

    identity: str
    holders: tuple[Holder, ...]
    network: NetworkImages


@dataclass(slots=True)
class VmState:
    """One VM in the agent's memory; nothing here is needed for safety after a crash."""

    memory: Memory = field(default_factory=Memory)
    definition: Definition | None = None
    task: asyncio.Task[None] | None = None
    progress: float | None = None
    notes: tuple[str, ...] = ()
    failures: Failures = field(default_factory=Failures)
    failing: bool = False
    unknown_count: int = 0
    last: Observed | None = None
    guest: GuestInfo = field(default_factory=GuestInfo)
    guest_read_at: float = float("-inf")
    running_since: float | None = None
    start_time: str | None = None
    restarts: int = 0
    last_exit: str | None = None
    killed: bool = False
    ending: tuple[str, str] | None = None
    """Why a run that is being ended counts as a failure: reason and words."""
    watch: Watch = field(default_factory=Watch)
    reset_id: str | None = None
    generation: int = 0
    written: VmNodeStatus | None = None
    loaded: bool = False
    intruder: str = ""
    lingering: tuple[Held, ...] = ()
    change: LiveChange | None = None
    """What is brought to the running guest next."""
    tries: Tries = field(default_factory=Tries)
    give_back: bool = False
    """Making an image for the running guest has failed: what the claim holds for it is let go."""
    disks: tuple[DiskStatus, ...] = ()
    disks_read_at: float = float("-inf")
