"""What the API needs of the daemon. The handlers carry requests to these and answers back: they decide
nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from reconciler.loops.adoption import Adoptions
from reconciler.loops.cluster_log import ClusterLog
from reconciler.loops.confirmations import Confirmations
from reconciler.loops.disk_locks import DiskLocks
from reconciler.loops.event_log import EventLog
from reconciler.loops.intents import Intents
from reconciler.loops.members import Members
from reconciler.loops.migration_requests import MigrationRequests
from reconciler.loops.objects import Objects
from reconciler.loops.plans import Plans
from reconciler.loops.power_requests import PowerDesk
from reconciler.loops.rebalance_requests import RebalanceRequests
from reconciler.ports.controller import Console, Guest
from reconciler.ports.manifests import ManifestService
from reconciler.ports.metrics import MetricsSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Seconds and bytes. `read` and `change` are the deadlines of simple calls, `apply` that of manifests;
    `stall`: how long a reader of a stream may take nothing; `bookmark`: the longest silence of a watch."""

    read: float = 10.0
    change: float = 20.0
    apply: float = 60.0
    stall: float = 30.0
    bookmark: float = 10.0
    body: int = 16 * 2**20
    tail: int = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiServices:
    """The daemon's parts. The callables answer at once.

    `console_for`, `guest_for`: those of the controller that runs the VM of this name on this node, or None
    (it runs elsewhere, or its controller has none). `read_only`: why nothing may be changed now, or empty
    (a store that is not to be trusted). `version`: the answer of /version. `live`, `ready`: what
    is wrong, one line each; nothing is well. `status`: the answer of /apis/vcl/v1/status. `placement`: that
    of /apis/vcl/v1/placement, for which the controllers are asked. `members`: takes nodes out of the cluster;
    None where nobody is a member. `confirmations`: takes a person's word that a node is down; None where
    nobody is fenced. `logs`: None when this daemon keeps no log for readers. `plans`: what would happen;
    None where nothing is placed. `migrations`: takes requests for live ones; None likewise. `adoptions`:
    makes existing domains VMs; None without controllers. `power`: shuts the cluster down; None where nothing
    can be. `rebalancing`: moves VMs to where they are better off; None where nothing is placed.
    """

    objects: Objects
    manifests: ManifestService
    intents: Intents
    events: EventLog
    console_for: Callable[[str], Console | None]
    guest_for: Callable[[str], Guest | None]
    version: Callable[[], Mapping[str, Any]]
    live: Callable[[], tuple[str, ...]]
    ready: Callable[[], tuple[str, ...]]
    status: Callable[[], Mapping[str, Any]]
    placement: Callable[[], Awaitable[Mapping[str, Any]]]
    members: Members | None = None
    confirmations: Confirmations | None = None
    logs: ClusterLog | None = None
    disks: DiskLocks | None = None
    adoptions: Adoptions | None = None
    plans: Plans | None = None
    migrations: MigrationRequests | None = None
    power: PowerDesk | None = None
    rebalancing: RebalanceRequests | None = None
    metrics: MetricsSource = tuple
    read_only: Callable[[], str] = str
    limits: Limits = field(default_factory=Limits)


SERVICES = web.AppKey("services", ApiServices)
