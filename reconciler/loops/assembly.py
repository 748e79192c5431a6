"""A whole node, put together from its ports: the daemon and the simulation run the very same loops.

No decisions here: what a loop needs is named, and who is told of what.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import partial

from reconciler.loops.adoption import Adoptions
from reconciler.loops.agent import Agent
from reconciler.loops.agent_state import Deadlines, NodeContext
from reconciler.loops.cache import StoreCache
from reconciler.loops.disk_locks import DiskLocks
from reconciler.loops.elector import Elector, ElectorContext
from reconciler.loops.events import EventRecorder
from reconciler.loops.fencing import Fencing, FencingContext
from reconciler.loops.fencing_facts import FencingInput
from reconciler.loops.isolation import Hold, Isolation, IsolationContext
from reconciler.loops.manifest_sync import ManifestSync, SyncPorts
from reconciler.loops.master import Master, MasterContext
from reconciler.loops.membership import Membership, MembershipContext
from reconciler.loops.node_status import NodeFacts, NodeReporter
from reconciler.loops.osds import OsdContext, OsdWatch
from reconciler.loops.own_clients import OwnClients
from reconciler.loops.pools import BackendFactory, Pools
from reconciler.loops.rejoin import Rejoin, RejoinContext
from reconciler.loops.schema import SchemaRule
from reconciler.loops.session import Begun, Entry
from reconciler.loops.status_tree import StatusTreeLoop
from reconciler.loops.supervisor import Life
from reconciler.loops.views import Views
from reconciler.loops.writer import Writer
from reconciler.planning.liveness import Standing, judge
from reconciler.planning.manifest_parsed import ParseFile
from reconciler.planning.timers import Timers
from reconciler.ports.clock import Clock, Ids
from reconciler.ports.controller import Controller
from reconciler.ports.fencer import Fencer
from reconciler.ports.leases import Leases
from reconciler.ports.manifests import BaseStore, ManifestDirectory, StatusSink
from reconciler.ports.osds import Osds
from reconciler.ports.store import Store
from reconciler.ports.transport import Transport
from reconciler.resources import keys
from reconciler.resources.crosscheck import KnownObjects
from reconciler.resources.errors import StoreError
from reconciler.resources.infrastructure import StoragePoolSpec
from reconciler.resources.kinds import Kind
from reconciler.resources.membership import NodeHealth
from reconciler.resources.records import ArmedWatchdog, Epoch, EventType

log = logging.getLogger(__name__)

LOOK_AGAIN = 1.0
"""Seconds between the beginnings of two looks at a store that does not answer."""
SCHEMA_PAUSE = 10.0
"""Seconds between a master's looks whether the store's schema can be raised."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePorts:
    """Everything outside of the loops. Without `transport` and `leases` the cluster is this one node.

    `pools` need no manifest; `health` is asked at every heartbeat and must be quick. Without `fencers` nobody
    is ever fenced; they come and go with the pools. Without `osds` Ceph is never told that any are down.
    `ceph_pools()`: the fsid of each pool that is on Ceph; `ceph_clients()`: the addresses of all clients of
    Ceph that this process has had. `begin_anew` ends this run of the daemon, whose session a fence has ended,
    and begins the next. `shut_out()`: the store's storage lets this host in no more. `armed()`: its watchdog.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """The loops of one node, made and not yet running."""

    name: str
    ports: NodePorts
    begun: Begun
    cache: StoreCache
    views: Views
    writer: Writer
    events: EventRecorder
    pools: Pools
    locks: DiskLocks
    adoptions: Adoptions
    agent: Agent
    reporter: NodeReporter
    manifests: ManifestSync
    membership: Membership
    elector: Elector
    rejoin: Rejoin
    clients: OwnClients
    isolation: Isolation
    schema: SchemaRule
    osds: OsdWatch | None
    frozen: Callable[[], str]

    def loops(self) -> Mapping[str, Life]:
        """What is to run for ever, by name. A frozen node takes part in nothing, but can be looked at."""
        found: dict[str, Life] = {
            "store": partial(follow, self.cache),
            "agent": self.agent.run,
            "node": self.reporter.run,
            "events": self.events.run,
            "status": StatusTreeLoop(self.cache, self.ports.status, self.ports.clock).run,
            "heartbeats": self.membership.run_heart,
        }
        for name, controller in self.ports.controllers.items():
            found[f"controller {name}"] = partial(hold_open, controller)
        if self.ports.transport is not None:
            found["mesh"] = self.ports.transport.run
        if self.ports.leases is not None:
            found["leases"] = self.membership.run_leases
        if not self.frozen():
            if self.ports.leases is not None:
                found["isolation"] = self.isolation.run
            found["return"] = self.rejoin.run
            found["locks"] = self.locks.run
            found["manifests"] = self.manifests.run
            found["election"] = self.elector.run
            found["clients"] = self.clients.run
            if self.osds is not None:
                found["osds"] = self.osds.run
        return found


def assemble(
    ports: NodePorts, begun: Begun, cache: StoreCache, writer: Writer, doubt: Callable[[], str]
) -> Node:
    """Put the node together. `doubt`: why the store is not to be trusted, or nothing."""
    name, views = ports.entry.host.node, Views(cache)
    events = EventRecorder(name, cache, writer, ports.clock)
    writer.guard(keys.SCHEMA, begun.schema_revision)
    writer.guard(keys.session(name), begun.session_revision)
    schema = SchemaRule(views, writer, ports.entry.member.schemas)
    schema.follow()

    def frozen() -> str:
        return doubt() or schema.problem

    membership = Membership(_membership_context(ports, begun, views))
    writer.committed = membership.wake
    hold = Hold()
    context = replace(_node_context(ports, begun, views, writer, events, frozen), held=lambda: hold.reason)
    agent = Agent(context)
    rejoin = _rejoin(ports, begun, views, writer, membership, agent, hold)
    isolation = _isolation(ports, context, membership, agent, hold, rejoin)

    def problems() -> tuple[str, ...]:
        return tuple(why for why in (frozen(), rejoin.barred) if why)

    osds = _osds(ports, views, membership, events)
    manifests = _manifests(ports, views, writer, events)
    run_master = partial(_run_master, ports, views, writer, events, membership, schema, osds)
    elector = Elector(
        ElectorContext(
            node=name,
            clock=ports.clock,
            views=views,
            writer=writer,
            membership=membership,
            timers=ports.timers,
            problems=problems,
            run_master=run_master,
            elected=lambda reason, words: events.record(EventType.NORMAL, Kind.NODE, name, reason, words),
            switched_off=partial(_switched_off, osds),
        )
    )
    return Node(
        name=name,
        ports=ports,
        begun=begun,
        cache=cache,
        views=views,
        writer=writer,
        events=events,
        pools=context.pools,
        locks=DiskLocks(context),
        adoptions=Adoptions(context, manifests),
        agent=agent,
        reporter=NodeReporter(context, agent, ports.facts),
        manifests=manifests,
        membership=membership,
        elector=elector,
        rejoin=rejoin,
        clients=OwnClients(views, writer, name, begun, ports.ceph_clients, ports.armed),
        isolation=isolation,
        schema=schema,
        osds=osds,
        frozen=frozen,
    )


def _osds(ports: NodePorts, views: Views, membership: Membership, events: EventRecorder) -> OsdWatch | None:
    if ports.osds is None:
        return None
    return OsdWatch(
        OsdContext(
            node=ports.entry.host.node,
            clock=ports.clock,
            views=views,
            membership=membership,
            timers=ports.timers,
            osds=ports.osds,
            fencers=ports.fencers or tuple,
            policy=lambda: views.cluster_spec().fencing,
            event=events.record,
        )
    )


def _isolation(
    ports: NodePorts,
    context: NodeContext,
    membership: Membership,
    agent: Agent,
    hold: Hold,
    rejoin: Rejoin,
) -> Isolation:
    return Isolation(
        IsolationContext(
            node=context.node,
            cluster_uid=context.cluster_uid,
            session=context.session,
            clock=ports.clock,
            views=context.views,
            membership=membership,
            timers=ports.timers,
            controllers=ports.controllers,
            hold=hold,
            event=context.event,
            unsay_empty=rejoin.unsay_empty,
            look_again=agent.look_again,
            shut_out=ports.shut_out,
        )
    )


def _rejoin(
    ports: NodePorts,
    begun: Begun,
    views: Views,
    writer: Writer,
    membership: Membership,
    agent: Agent,
    hold: Hold,
) -> Rejoin:
    host = ports.entry.host
    return Rejoin(
        RejoinContext(
            node=host.node,
            session=begun.session,
            boot_id=host.boot_id,
            machine_id=host.machine_id,
            clock=ports.clock,
            views=views,
            writer=writer,
            bearing=membership.bearing,
            empty=agent.empty,
            begin_anew=ports.begin_anew,
            shut_out=ports.shut_out,
            ending=lambda: hold.ending,
        )
    )


def _membership_context(ports: NodePorts, begun: Begun, views: Views) -> MembershipContext:
    return MembershipContext(
        node=ports.entry.host.node,
        boot_id=ports.entry.host.boot_id,
        session=begun.session,
        version=ports.facts.version,
        schemas=ports.entry.member.schemas,
        clock=ports.clock,
        views=views,
        timers=ports.timers,
        transport=ports.transport,
        leases=ports.leases,
        health=ports.health,
    )


def _node_context(
    ports: NodePorts,
    begun: Begun,
    views: Views,
    writer: Writer,
    events: EventRecorder,
    frozen: Callable[[], str],
) -> NodeContext:
    return NodeContext(
        node=ports.entry.host.node,
        cluster_uid=begun.cluster.uid,
        boot_id=ports.entry.host.boot_id,
        session=begun.session,
        clock=ports.clock,
        ids=ports.ids,
        views=views,
        writer=writer,
        controllers=ports.controllers,
        pools=Pools(views, ports.make_backend, ports.pools),
        event=events.record,
        frozen=frozen,
        deadlines=ports.deadlines,
    )


def _manifests(ports: NodePorts, views: Views, writer: Writer, events: EventRecorder) -> ManifestSync:
    def is_master() -> bool:
        """By the epoch, which wakes this loop, and not by the elector, which looks at it a moment later."""
        epoch = views.epoch()
        return epoch is not None and epoch.holder == ports.entry.host.node

    names = {
        Kind.STORAGE_POOL: frozenset(ports.pools),
        Kind.NODE: frozenset({ports.entry.host.node}),
    }
    return ManifestSync(
        SyncPorts(
            directory=ports.directory,
            bases=ports.bases,
            views=views,
            writer=writer,
            clock=ports.clock,
            ids=ports.ids,
            parse=ports.parse,
            builtin=KnownObjects(names=names, controllers=frozenset(ports.controllers)),
            node=ports.entry.host.node,
            is_master=is_master,
            event=events.record,
        )
    )


def standings(ports: NodePorts, membership: Membership) -> Mapping[str, Standing]:
    """Every member, as this node hears it."""
    me = ports.entry.host.node
    return {sight.name: judge(me, sight, ports.timers).standing for sight in membership.sights()}


def absence(ports: NodePorts, membership: Membership, node: str) -> str:
    """Why a node takes no work because of what is heard of it, or nothing."""
    standing = standings(ports, membership).get(node)
    if standing is None:
        return "is not a member of the cluster"
    return "" if standing is Standing.READY else f"is {standing.value.lower()}"


async def _run_master(
    ports: NodePorts,
    views: Views,
    writer: Writer,
    events: EventRecorder,
    membership: Membership,
    schema: SchemaRule,
    osds: OsdWatch | None,
    epoch: Epoch,
) -> None:
    """The master's work while `epoch` is held: placing, and raising the schema after an upgrade."""
    master = Master(
        MasterContext(
            node=ports.entry.host.node,
            epoch=epoch,
            clock=ports.clock,
            views=views,
            writer=writer,
            event=events.record,
            absent=lambda node: absence(ports, membership, node),
            reached=ports.reached,
        )
    )

    async def watch() -> None:
        before = standings(ports, membership)
        while True:
            await asyncio.sleep(ports.timers.mesh_heartbeat)
            now = standings(ports, membership)
            if now != before:
                master.look_again()
            before = now

    async with asyncio.TaskGroup() as group:
        beside = [group.create_task(watch()), group.create_task(_raise_schema(schema, membership))]
        if ports.fencers is not None:
            fencing = _fencing(ports, views, writer, events, membership, osds, epoch)
            beside.append(group.create_task(fencing.run()))
        await master.run()
        for task in beside:
            task.cancel()


def _fencing(
    ports: NodePorts,
    views: Views,
    writer: Writer,
    events: EventRecorder,
    membership: Membership,
    osds: OsdWatch | None,
    epoch: Epoch,
) -> Fencing:
    given = FencingInput(
        node=ports.entry.host.node,
        views=views,
        membership=membership,
        timers=ports.timers,
        fencers=ports.fencers or tuple,
        policy=lambda: views.cluster_spec().fencing,
        pools=ports.ceph_pools,
        switched_off=partial(_switched_off, osds),
    )
    return Fencing(
        FencingContext(
            epoch=epoch,
            clock=ports.clock,
            ids=ports.ids,
            views=views,
            writer=writer,
            event=events.record,
            input=given,
            reached=ports.reached,
        )
    )


def _switched_off(osds: OsdWatch | None) -> Set[str]:
    return osds.powered_off if osds is not None else frozenset()


async def _raise_schema(schema: SchemaRule, membership: Membership) -> None:
    while True:
        try:
            await schema.raise_for(membership.members())
        except StoreError as error:
            log.info("schema: %s", error)
        await asyncio.sleep(SCHEMA_PAUSE)


async def follow(cache: StoreCache) -> None:
    """Keep the copy of the store fresh; one line in the log when that fails, and one when it works again.

    A look that waited for the store in vain is made again at once: what is under way when a stall ends is
    answered by its end.
    """
    failing, clock = False, asyncio.get_running_loop().time
    while True:
        began = clock()
        try:
            await cache.step(10.0)
        except StoreError as error:
            if not failing:
                log.warning("store: %s; trying again", error)
            failing = True
            await asyncio.sleep(max(0.05, LOOK_AGAIN - (clock() - began)))
        if failing and cache.healthy:
            log.info("store: it answers again")
            failing = False


async def hold_open(controller: Controller) -> None:
    """Open a controller and keep it; it reconnects by itself."""
    await controller.open()
    await asyncio.Event().wait()
