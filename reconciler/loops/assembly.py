"""A whole node, put together from its ports: the daemon and the simulation run the very same loops.

No decisions here: what a loop needs is named, and who is told of what.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, replace
from functools import partial

from reconciler.loops.adoption import Adoptions
from reconciler.loops.agent import Agent
from reconciler.loops.agent_state import NodeContext
from reconciler.loops.cache import StoreCache
from reconciler.loops.departure import Departure, DepartureContext
from reconciler.loops.disk_locks import DiskLocks
from reconciler.loops.elector import Elector, ElectorContext
from reconciler.loops.events import EventRecorder
from reconciler.loops.fencing import Fencing, FencingContext
from reconciler.loops.fencing_facts import FencingInput
from reconciler.loops.isolation import Hold, Isolation, IsolationContext
from reconciler.loops.manifest_sync import ManifestSync, SyncPorts
from reconciler.loops.master import Master, MasterContext
from reconciler.loops.membership import Membership, MembershipContext
from reconciler.loops.node_ports import NodePorts
from reconciler.loops.node_status import NodeReporter
from reconciler.loops.osds import OsdContext, OsdWatch
from reconciler.loops.own_clients import OwnClients
from reconciler.loops.pools import Pools
from reconciler.loops.power import NodePower, NodePowerContext
from reconciler.loops.rejoin import Rejoin, RejoinContext
from reconciler.loops.schema import SchemaRule
from reconciler.loops.session import Begun
from reconciler.loops.status_tree import StatusTreeLoop
from reconciler.loops.supervisor import Life
from reconciler.loops.views import Views
from reconciler.loops.writer import Writer
from reconciler.planning.liveness import Standing, judge
from reconciler.ports.controller import Controller
from reconciler.resources import keys
from reconciler.resources.crosscheck import KnownObjects
from reconciler.resources.errors import StoreError
from reconciler.resources.kinds import Kind
from reconciler.resources.records import Epoch, EventType

log = logging.getLogger(__name__)

LOOK_AGAIN = 1.0
"""Seconds between the beginnings of two looks at a store that does not answer."""
SCHEMA_PAUSE = 10.0
"""Seconds between a master's looks whether the store's schema can be raised."""


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
    departure: Departure
    clients: OwnClients
    isolation: Isolation
    schema: SchemaRule
    osds: OsdWatch | None
    power: NodePower
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
        found |= self.power.loops(frozen=bool(self.frozen()))
        if not self.frozen():
            if self.ports.leases is not None:
                found["isolation"] = self.isolation.run
            found["return"] = self.rejoin.run
            found["departure"] = self.departure.run
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
    name, views = ports.entry.host.node, Views(cache, ports.keeper.off)
    events = EventRecorder(name, cache, writer, ports.clock)
    writer.guard(keys.SCHEMA, begun.schema_revision)
    writer.guard(keys.session(name), begun.session_revision)
    schema = SchemaRule(views, writer, ports.entry.member.schemas)
    schema.follow()

    def frozen() -> str:
        return doubt() or schema.problem

    power = _power(ports, begun, views, writer, events)
    membership = Membership(_membership_context(ports, begun, views, power))
    power.attach(membership)
    writer.committed = membership.wake
    hold = Hold()
    context = replace(
        _node_context(ports, begun, views, writer, events, frozen),
        held=lambda: hold.reason,
        shut_down=power.down.words_for,
        departs=lambda vm: departure.departs(vm),
    )
    agent = Agent(context)
    power.changed = agent.look_again
    departure = Departure(
        DepartureContext(
            node=name,
            boot_id=ports.entry.host.boot_id,
            clock=ports.clock,
            views=views,
            writer=writer,
            look_again=agent.look_again,
        )
    )
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
        departure=departure,
        clients=OwnClients(views, writer, name, begun, ports.ceph_clients, ports.armed),
        isolation=isolation,
        schema=schema,
        osds=osds,
        power=power,
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


def _power(ports: NodePorts, begun: Begun, views: Views, writer: Writer, events: EventRecorder) -> NodePower:
    return NodePower(
        NodePowerContext(
            node=ports.entry.host.node,
            cluster_uid=begun.cluster.uid,
            clock=ports.clock,
            ids=ports.ids,
            keeper=ports.keeper,
            controllers=ports.controllers,
            views=views,
            writer=writer,
            event=events.record,
            timers=ports.timers,
            switch=ports.switch,
            flags=ports.flags,
        )
    )


def _membership_context(ports: NodePorts, begun: Begun, views: Views, power: NodePower) -> MembershipContext:
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
        power=power.word,
        hear_power=power.hear,
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

    undo = ports.keeper.subscribe(master.look_again)
    async with asyncio.TaskGroup() as group:
        beside = [group.create_task(watch()), group.create_task(_raise_schema(schema, membership))]
        if ports.fencers is not None:
            fencing = _fencing(ports, views, writer, events, membership, osds, epoch)
            beside.append(group.create_task(fencing.run()))
        try:
            await master.run()
        finally:
            undo()
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
