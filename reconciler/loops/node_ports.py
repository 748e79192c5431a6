"""What a node is put together from: everything outside of its loops."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from reconciler.loops.agent_state import Deadlines
from reconciler.loops.node_status import NodeFacts
from reconciler.loops.pools import BackendFactory
from reconciler.loops.power_orders import OrderKeeper
from reconciler.loops.session import Entry
from reconciler.planning.manifest_parsed import ParseFile
from reconciler.planning.timers import Timers
from reconciler.ports.clock import Clock, Ids
from reconciler.ports.controller import Controller
from reconciler.ports.fencer import Fencer
from reconciler.ports.leases import Leases
from reconciler.ports.manifests import BaseStore, ManifestDirectory, StatusSink
from reconciler.ports.osds import Osds
from reconciler.ports.power import CephFlags, HostSwitch
from reconciler.ports.store import Store
from reconciler.ports.transport import Transport
from reconciler.resources.infrastructure import StoragePoolSpec
from reconciler.resources.membership import NodeHealth
from reconciler.resources.records import ArmedWatchdog


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePorts:
    """Everything outside of the loops. Without `transport` and `leases` the cluster is this one node.

    `pools` need no manifest; `health` is asked at every heartbeat and must be quick. Without `fencers` nobody
    is ever fenced; they come and go with the pools. Without `osds` Ceph is never told that any are down.
    `ceph_pools()`: the fsid of each pool that is on Ceph; `ceph_clients()`: the addresses of all clients of
    Ceph that this process has had. `begin_anew` ends this run of the daemon, whose session a fence has ended,
    and begins the next. `shut_out()`: the store's storage lets this host in no more. `armed()`: its watchdog.
    `keeper`: what it knows of orders to shut down; `switch`: the host's power; `flags`: Ceph's.
    """

    entry: Entry
    clock: Clock
    ids: Ids
    store: Store
    transport: Transport | None
    leases: Leases | None
    controllers: Mapping[str, Controller]
    make_backend: BackendFactory
    pools: Mapping[str, StoragePoolSpec]
    directory: ManifestDirectory
    bases: BaseStore
    parse: ParseFile
    status: StatusSink
    facts: NodeFacts
    health: Callable[[], NodeHealth]
    keeper: OrderKeeper
    switch: HostSwitch | None = None
    flags: CephFlags | None = None
    fencers: Callable[[], Sequence[Fencer]] | None = None
    osds: Osds | None = None
    ceph_pools: Callable[[], Mapping[str, str]] = dict
    ceph_clients: Callable[[], Iterable[str]] = tuple
    armed: Callable[[], ArmedWatchdog | None] = lambda: None
    begin_anew: Callable[[], None] = lambda: None
    shut_out: Callable[[], bool] = lambda: False
    reached: Callable[[str], None] = lambda point: None
    timers: Timers = field(default_factory=Timers)
    deadlines: Deadlines = field(default_factory=Deadlines)
