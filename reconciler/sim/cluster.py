"""A simulated vcl cluster: on each host of a World the very loops that the daemon runs, assembled as there.

Outside of the loops are twins: the manifest directory and what the node remembers of it are on the host's
disk, the guests of the dummy hypervisor in its memory (they outlive the daemon, and not the power).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from reconciler.loops.assembly import Node as Loops
from reconciler.loops.assembly import assemble
from reconciler.loops.cache import StoreCache
from reconciler.loops.cluster_status import view_of
from reconciler.loops.liveness import Liveness
from reconciler.loops.node_ports import NodePorts as LoopPorts
from reconciler.loops.node_status import NodeFacts
from reconciler.loops.power_orders import OrderKeeper
from reconciler.loops.session import Begun, Entry, HostIdentity, begin, doubts, patiently, seen_of
from reconciler.loops.status_tree import StatusTreeLoop
from reconciler.loops.supervisor import Life, Supervisor
from reconciler.loops.writer import Writer
from reconciler.planning.homecoming import LastRun, may_let_itself_in
from reconciler.planning.manifest_parsed import ParseFile
from reconciler.planning.schema import KNOWN_SCHEMAS
from reconciler.planning.store_memory import Seen, most
from reconciler.planning.timers import Timers
from reconciler.ports.controller import Controller
from reconciler.ports.disks import DiskBackend
from reconciler.ports.fencer import Fencer
from reconciler.ports.osds import Osds
from reconciler.resources import keys
from reconciler.resources.errors import InvalidInput, StoreError
from reconciler.resources.infrastructure import StoragePoolSpec
from reconciler.resources.membership import MESH_PORT, Member, NodeHealth
from reconciler.resources.records import dump
from reconciler.resources.transactions import Put, Txn
from reconciler.sim.controller import DummyController, DummyOptions
from reconciler.sim.disks import SimDisks, SimFiles
from reconciler.sim.dummy_guests import Faults, Guest, settle
from reconciler.sim.dummy_guests import Life as GuestLife
from reconciler.sim.dummy_hypervisor import DummyHypervisor
from reconciler.sim.dummy_shelf import MemoryShelf
from reconciler.sim.guest_wire import GuestWire, Site
from reconciler.sim.lobby import waiting_for_the_fence
from reconciler.sim.manifest_directory import MemoryBaseStore, MemoryManifestDirectory, MemoryStatusSink
from reconciler.sim.power import MemoryOrderBook, SimFlags, SimSwitch
from reconciler.sim.site_ceph import SiteCeph
from reconciler.sim.site_ports import POOL_NAME, POOL_SPEC, SiteFencer, SiteGuests, SiteRbd
from reconciler.sim.world import NodePorts, World

SEEN_EVERY = 30.0
SWITCH_SECONDS = 2.0
GIB = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """Which daemon is installed on a host."""

    version: str = "sim"
    schemas: tuple[int, int] = KNOWN_SCHEMAS


@dataclass(slots=True)
class Host:
    """What a host keeps when its daemon ends. `refused`: why the last daemon did not start."""

    rank: int
    directory: MemoryManifestDirectory
    faults: Faults = field(default_factory=Faults)
    """What goes wrong with guests on it; changed while it runs."""
    release: Release = field(default_factory=Release)
    bases: MemoryBaseStore = field(default_factory=MemoryBaseStore)
    status: MemoryStatusSink = field(default_factory=MemoryStatusSink)
    seen: Seen | None = None
    last_run: LastRun | None = None
    orders: MemoryOrderBook = field(default_factory=MemoryOrderBook)
    running: Loops | None = None
    refused: str = ""


class SimCluster:
    """`names` are the hosts in the order of the hierarchy; `parse` reads manifests as the daemon does."""

    def __init__(
        self,
        world: World,
        names: tuple[str, ...],
        parse: ParseFile,
        *,
        timers: Timers | None = None,
        fencers: Callable[[NodePorts], Sequence[Fencer]] | None = None,
        let_in: Callable[[str], None] = lambda address: None,
        osds: Callable[[NodePorts], Osds | None] = lambda ports: None,
        site: SiteCeph | None = None,
        reached: Callable[[str, str], None] = lambda name, point: None,
    ) -> None:
        """`fencers`: those of each run of a daemon; without any, nobody is ever fenced. `let_in`: a host
        takes its own address off the blocklists. `osds`: its way to Ceph's OSDs. `site`: the world's Ceph:
        guests may have disks in the pool `ceph` then, and its blocklist is the fencer.
        `reached(host, point)`: see FencingContext."""
        self.world = world
        self.site = site
        self._reached = reached
        self._fencers = fencers or _fencers_of(site)
        self._let_in = let_in
        if site is not None:
            self._let_in = site.let_in
            site.guests = self.guests
        self._osds = osds
        self.wire = GuestWire(_site_of(world, site))
        self.files = SimFiles()
        self.flags = SimFlags()
        """Of the world's Ceph, where there is one."""
        self.hosts: dict[str, Host] = {}
        self._ended: dict[int, tuple[Guest, Guest]] = {}
        self.watchers: list[Callable[[str, str, bytes | None], None]] = []
        """Told of each `save`, before it happens."""
        self._parse = parse
        self._timers = timers or Timers()
        for name in names:
            self.add(name)

    def add(self, name: str, *, rank: int | None = None) -> None:
        """One more host, by default the last in the hierarchy; off."""
        directory = MemoryManifestDirectory(node=name)
        self.hosts[name] = Host(rank=len(self.hosts) if rank is None else rank, directory=directory)
        self.world.add(name, self._program)

    def found(self) -> None:
        """Register every host, as `vcl init` does: a majority is counted over all of them from the start."""
        hosts = self.hosts.items()
        puts = tuple(Put(key=keys.member(name), value=dump(self._member(name, host))) for name, host in hosts)
        self.world.storage.cluster.apply(Txn(id="founding", puts=puts))

    def guests(self, name: str) -> tuple[Guest, ...]:
        """The guests on a host as they are now, whether or not a daemon runs."""
        node = self.world.node(name)
        shelf = node.memory.get("guests")
        if not node.on or not isinstance(shelf, MemoryShelf):
            return ()
        found = shelf.load()
        if not found:
            return ()
        now = node.monotonic
        return tuple(self._settled(guest, now) for guest in found)

    def _settled(self, guest: Guest, now: float) -> Guest:
        """As it is by now; how one has ended is worked out once, for the audits ask after every event."""
        known = self._ended.get(id(guest))
        if known is not None and known[0] is guest:
            return known[1]
        after = settle(guest, now)
        if after is not guest and after.life is GuestLife.ENDED:
            self._ended[id(guest)] = (guest, after)
        return after

    def loops(self, name: str) -> Loops | None:
        """The running daemon's loops; None while none runs or it has not got that far."""
        loops, node = self.hosts[name].running, self.world.node(name)
        return loops if loops is not None and node.running and loops.ports.clock is node.clock else None

    def masters(self) -> Mapping[str, int]:
        """The nodes that believe to be master, with their epochs."""
        found = {}
        for name in sorted(self.hosts):
            loops = self.loops(name)
            if loops is not None and loops.elector.epoch is not None:
                found[name] = loops.elector.epoch.epoch
        return found

    def save(self, name: str, path: str, data: bytes | None) -> None:
        """A user saves a file on a host, or (None) removes it; whether or not a daemon runs."""
        for watcher in self.watchers:
            watcher(name, path, data)
        directory = self.hosts[name].directory
        if data is None:
            directory.files.pop(path, None)
        else:
            directory.files[path] = data
        directory.hint()

    async def _program(self, ports: NodePorts) -> None:
        """One life of the daemon; a session that a fence has ended is followed by another."""
        keeper = OrderKeeper(self.hosts[ports.name].orders, ports.clock, ports.boot_id)
        while await self._run(ports, keeper):
            pass

    async def _run(self, ports: NodePorts, keeper: OrderKeeper) -> bool:
        """Whether to begin anew."""
        host = self.hosts[ports.name]
        host.running, host.refused = None, ""
        host.directory = _opened_again(host.directory)
        identity = self._entry(ports, host)
        now = LastRun(boot_id=ports.boot_id, machine_id=identity.host.machine_id)
        may = not may_let_itself_in(host.last_run, now, bool(self.guests(ports.name)))

        async def attempt() -> tuple[Begun, str]:
            if may:
                self._let_in(ports.address)
            after = host.seen.session if host.seen is not None else 0
            begun = await begin(ports.store, identity, ports.clock, ports.ids, after=after)
            return begun, await doubts(ports.store, host.seen, begun)

        try:
            begun, frozen = await self._begun(ports, host, attempt)
        except InvalidInput as error:
            host.refused = str(error)
            ports.log(f"does not start: {error.message}")
            return False
        host.last_run = replace(host.last_run or now, boot_id=now.boot_id, machine_id=now.machine_id)
        if frozen and host.seen is not None:
            ports.log(f"frozen: {frozen}")
            host.seen = replace(host.seen, doubted=True, session=begun.session)
        cache = StoreCache(ports.store)
        await patiently(lambda: cache.step(0.0), "reading the store")
        over = asyncio.Event()
        loops = host.running = self._assemble((ports, keeper), host, identity, begun, cache, frozen, over)
        supervisor = Supervisor(ports.clock, ports.ids)
        supervisor.start({**loops.loops(), **_beside(host, loops, frozen)})
        await self._until_stopped(loops, supervisor, over)
        return over.is_set()

    async def _begun(
        self, ports: NodePorts, host: Host, attempt: Callable[[], Awaitable[tuple[Begun, str]]]
    ) -> tuple[Begun, str]:
        """A session, once the store answers; a host that was fenced waits in the lobby."""
        last = host.last_run
        async with contextlib.AsyncExitStack() as stack:
            if self.site is not None and last is not None and last.cluster_uid:
                controller, beat = self._controller(ports, host), self._timers.mesh_heartbeat
                await stack.enter_async_context(
                    waiting_for_the_fence(self.site, ports, controller, last, beat)
                )
            return await patiently(attempt, "beginning a session")

    def _controller(self, ports: NodePorts, host: Host) -> Controller:
        shelf = ports.memory.setdefault("guests", MemoryShelf())
        controller = DummyController(
            hypervisor=DummyHypervisor(shelf=shelf, faults=host.faults),
            options=DummyOptions(cpus=16, memory=64 * GIB),
            wire=(self.wire, ports.name),
        )
        return SiteGuests(controller, self.site, ports.name) if self.site is not None else controller

    def _entry(self, ports: NodePorts, host: Host) -> Entry:
        return Entry(
            host=HostIdentity(
                node=ports.name,
                boot_id=ports.boot_id,
                machine_id=f"machine-{ports.name}",
                addresses=(ports.address,),
            ),
            member=self._member(ports.name, host),
            cluster="sim",
            alone=False,
        )

    def _member(self, name: str, host: Host) -> Member:
        return Member(
            address=self.world.node(name).address,
            port=MESH_PORT,
            rank=host.rank,
            version=host.release.version,
            schemas=host.release.schemas,
        )

    def _assemble(
        self,
        given: tuple[NodePorts, OrderKeeper],
        host: Host,
        entry: Entry,
        begun: Begun,
        cache: StoreCache,
        frozen: str,
        over: asyncio.Event,
    ) -> Loops:
        ports, keeper = given
        fencers = self._fencers(ports)
        outside = LoopPorts(
            entry=entry,
            clock=ports.clock,
            ids=ports.ids,
            store=ports.store,
            transport=ports.transport,
            leases=ports.leases,
            controllers={"dummy": self._controller(ports, host)},
            make_backend=lambda name, spec: self._pool(ports, name, spec),
            pools={POOL_NAME: POOL_SPEC} if self.site is not None else {},
            ceph_pools=lambda: {POOL_NAME: self.site.images.fsid} if self.site is not None else {},
            directory=host.directory,
            bases=host.bases,
            parse=self._parse,
            status=host.status,
            facts=NodeFacts(version=host.release.version, address=ports.address, cpus=16, memory=64 * GIB),
            health=lambda: NodeHealth(store=cache.healthy),
            keeper=keeper,
            switch=SimSwitch(lambda: self._goes_off(ports.name)),
            flags=self.flags if self.site is not None else None,
            timers=self._timers,
            fencers=(lambda: fencers) if fencers else None,
            osds=self._osds(ports),
            begin_anew=over.set,
            shut_out=lambda: self.site is not None and not cache.healthy and self.site.shuts_out(ports.name),
            reached=lambda point: self._reached(ports.name, point),
        )
        writer = Writer(ports.store, cache, ports.ids)
        return assemble(outside, begun, cache, writer, lambda: frozen)

    def _goes_off(self, name: str) -> None:
        """Its host, a moment after it was told to: whoever tells it runs there."""
        self.world.schedule.call_later(SWITCH_SECONDS, self.world.node(name).power_off)

    def _pool(self, ports: NodePorts, name: str, spec: StoragePoolSpec) -> DiskBackend:
        """The world's Ceph under any name, or a directory that all hosts see."""
        if spec.directory is not None and spec.directory.shared:
            return SimDisks(self.files, spec.directory.path, spec.directory.format)
        if self.site is None or spec.rbd != POOL_SPEC.rbd:
            raise InvalidInput(f"pool '{name}' is not simulated", cure="use guests without disks")
        return SiteRbd(self.site, ports.name)

    @staticmethod
    async def _until_stopped(loops: Loops, supervisor: Supervisor, over: asyncio.Event) -> None:
        """Until SIGTERM, then the clean end of a daemon; or until the session is over, and nothing is left
        to end cleanly."""
        try:
            await over.wait()
            await supervisor.stop()
            return
        except asyncio.CancelledError:
            await supervisor.stop()
            with contextlib.suppress(StoreError):
                await loops.events.flush()
            with contextlib.suppress(StoreError):
                await loops.membership.say_goodbye()
            raise


def _site_of(world: World, ceph: SiteCeph | None) -> Site:
    """What the wire knows of the world."""

    def shelf(host: str) -> MemoryShelf | None:
        node = world.node(host)
        found = node.memory.get("guests") if node.on else None
        return found if isinstance(found, MemoryShelf) else None

    def linked(one: str, other: str) -> bool:
        both = ((one, other), (other, one))
        return all(world.network.direction(*pair).up for pair in both) and world.node(other).on

    site = Site(
        call_later=world.schedule.call_later,
        shelf=shelf,
        now=lambda host: world.node(host).monotonic,
        linked=linked,
        changed=lambda host, text: world.log.write(host, text),
    )
    if ceph is not None:
        site.sent, site.opens, site.moved = ceph.sent, ceph.opens, ceph.moved
    return site


def _fencers_of(site: SiteCeph | None) -> Callable[[NodePorts], Sequence[Fencer]]:
    return lambda ports: (SiteFencer(site, ports.name),) if site is not None else ()


def _opened_again(before: MemoryManifestDirectory) -> MemoryManifestDirectory:
    """The same directory for another process: its hints went to the one before."""
    found = MemoryManifestDirectory(node=before.node)
    found.files, found.marker, found.faults = before.files, before.marker, before.faults
    return found


def _beside(host: Host, loops: Loops, frozen: str) -> Mapping[str, Life]:
    """What the daemon runs besides the node's loops."""
    clock = loops.ports.clock
    liveness = Liveness(lambda: view_of(loops), clock, loops.ports.timers.mesh_heartbeat)
    tree = StatusTreeLoop(loops.cache, host.status, clock, merge=liveness.merged)
    liveness.subscribe(lambda names: tree.mark(frozenset(keys.member(name) for name in names)))
    beside: dict[str, Life] = {"liveness": liveness.run, "status": tree.run}
    if not frozen:
        beside["seen"] = lambda: _remember(host, loops)
    return beside


async def _remember(host: Host, loops: Loops) -> None:
    while True:
        with contextlib.suppress(StoreError):
            now = await seen_of(loops.ports.store, loops.begun, loops.views)
            host.seen = most(host.seen, now) if now is not None else host.seen
        if host.last_run is not None:
            host.last_run = replace(
                host.last_run,
                cluster_uid=loops.begun.cluster.uid,
                session=loops.begun.session,
                members=loops.membership.members(),
            )
        await asyncio.sleep(SEEN_EVERY)
