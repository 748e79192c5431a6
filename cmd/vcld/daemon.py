"""The daemon's life: lock, store, session, loops, API; and a clean end that leaves the guests running."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from reconciler.adapters import host
from reconciler.adapters.fencing.watchdog import WatchdogFacts
from reconciler.adapters.health import HealthProbe
from reconciler.adapters.http_api import ApiServices, build_app, serve, waiting_app
from reconciler.adapters.instance_lock import InstanceLock
from reconciler.adapters.log_file import LogFile
from reconciler.adapters.log_handler import ClusterLogHandler
from reconciler.adapters.manifest_directory import LocalManifestDirectory
from reconciler.adapters.power_orders_file import PowerOrdersFile
from reconciler.adapters.seen_file import SeenFile
from reconciler.loops.apply import Manifests
from reconciler.loops.assembly import Node, absence, assemble
from reconciler.loops.cache import StoreCache
from reconciler.loops.cluster_log import ClusterLog
from reconciler.loops.cluster_status import fencing_of, samples_of, view_of
from reconciler.loops.event_log import EventLog
from reconciler.loops.intents import Intents
from reconciler.loops.liveness import Liveness
from reconciler.loops.members import Members
from reconciler.loops.migration_requests import MigrationRequests
from reconciler.loops.objects import Objects
from reconciler.loops.placement_status import placement_of
from reconciler.loops.plans import Plans
from reconciler.loops.power_orders import OrderKeeper
from reconciler.loops.power_requests import PowerDesk
from reconciler.loops.rebalance_requests import RebalanceRequests
from reconciler.loops.session import Begun, begin, doubts, patiently, seen_of
from reconciler.loops.supervisor import Supervisor
from reconciler.loops.writer import Writer
from reconciler.planning.liveness import Standing
from reconciler.planning.store_memory import Seen, most
from reconciler.ports.controller import Controller
from reconciler.ports.metrics import Measured, Sample
from reconciler.resources import keys
from reconciler.resources.codec import encode
from reconciler.resources.errors import StoreError, VclError
from reconciler.resources.infrastructure import StoragePoolSpec
from reconciler.resources.membership import NodeHealth
from reconciler.resources.rebalancing import RebalanceRecord
from reconciler.resources.records import SchemaRecord, Session
from vcld.beside import confirmations, status_tree
from vcld.config import Config, StoreType
from vcld.fencing import Fencers, facts_of, keeper_of
from vcld.homecoming import Homecoming, ShutOut
from vcld.lobby import waiting_for_the_fence
from vcld.parts import CLOCK, IDS, Outside, Way, entry, node_ports, open_store, version_info
from vcld.power_alone import PowerAlone, obeying

log = logging.getLogger(__name__)

SEEN_EVERY = 30.0
STORE_RETRY = 5.0
"""Seconds between attempts to open a cluster's store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entered:
    """A store that has taken this run's session."""

    outside: Outside
    begun: Begun
    cache: StoreCache
    before: Seen | None
    frozen: str


@contextlib.asynccontextmanager
async def _closed_on_error(outside: Outside) -> AsyncIterator[None]:
    try:
        yield
    except BaseException:
        await outside.close()
        raise


class Daemon:
    """One vcld. `run` returns after `stop`. `said`: what Python's logging says, for the cluster log."""

    def __init__(self, config: Config, said: ClusterLogHandler, *, accept_store: bool = False) -> None:
        self._config = config
        self._said = said
        self._accept_store = accept_store
        self._stop = asyncio.Event()
        self._anew = asyncio.Event()
        self._homecoming = Homecoming(config)
        self._watchdog = keeper_of(config, CLOCK)
        self._frozen = ""
        self._supervisor = Supervisor(CLOCK, IDS)
        self._node: Node | None = None
        self._seen: Seen | None = None
        self._saved: Seen | None = None
        self._seen_file = SeenFile(config.state_path / "seen.json")
        self._orders: OrderKeeper | None = None

    def stop(self) -> None:
        """End cleanly: the API first, then the loops; guests go on."""
        self._stop.set()

    async def run(self, ready: Callable[[], None] = lambda: None) -> None:
        """Run until `stop`. Raises VclError when it cannot start."""
        self._make_directories()
        lock = InstanceLock(self._config.state_path / "vcld.lock")
        lock.acquire()
        try:
            # Before anything else: a file that cannot be read is never taken for "VMs may run".
            self._orders = OrderKeeper(PowerOrdersFile(self._config.orders_path), CLOCK, host.boot_id())
            while not self._stop.is_set() and await self._live(ready):
                log.info("beginning anew, with another session")
        finally:
            lock.release()

    async def _live(self, ready: Callable[[], None]) -> bool:
        """One session; whether another one is to follow."""
        self._anew = asyncio.Event()
        entered = await self._enter()
        if entered is None:
            return False
        try:
            self._homecoming.arrived()
            await self._with_store(entered, ready)
        finally:
            self._node = None
            await entered.outside.close()
        return self._anew.is_set()

    async def _enter(self) -> _Entered | None:
        """A cluster's store is waited for: Ceph may come up after this host. None when told to stop first."""
        if self._config.store.type is StoreType.SQLITE:
            alone = await open_store(self._config)
            async with _closed_on_error(alone):
                return await patiently(lambda: self._begin(alone), "beginning a session")
        why = ""

        async def attempt() -> _Entered:
            nonlocal why
            try:
                await self._homecoming.let_in()
                # With a connection of its own each time: a fence may hit the client of this one just now,
                # which is shut out for good then, while another one is let in.
                outside = await open_store(self._config)
                async with _closed_on_error(outside):
                    return await self._begin(outside)
            except StoreError as error:
                why = str(error)
                raise

        opening = asyncio.create_task(patiently(attempt, "opening the store", STORE_RETRY))
        stopping = asyncio.create_task(self._stop.wait())
        waits = {opening, stopping}
        try:
            done, _ = await asyncio.wait(waits, timeout=1.0, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                desk = PowerAlone(self._config, self._keeper, self._homecoming.last())
                async with (
                    self._waiting_room(lambda: why, desk),
                    obeying(desk),
                    waiting_for_the_fence(self._config, self._homecoming),
                ):
                    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            return opening.result() if opening.done() else None
        finally:
            for task in waits:
                task.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    @property
    def _keeper(self) -> OrderKeeper:
        assert self._orders is not None
        return self._orders

    async def _begin(self, outside: Outside) -> _Entered:
        """Raises StoreError."""
        known = self._seen_file.load()
        after = known.session if known is not None else 0
        begun = await begin(outside.store, entry(self._config, outside.addresses()), CLOCK, IDS, after=after)
        before = None if self._accept_store else known
        frozen = await doubts(outside.store, before, begun)
        cache = StoreCache(outside.store)
        await cache.step(0.0)
        return _Entered(outside=outside, begun=begun, cache=cache, before=before, frozen=frozen)

    @contextlib.asynccontextmanager
    async def _waiting_room(self, why: Callable[[], str], desk: PowerDesk) -> AsyncIterator[None]:
        """Tell whoever asks what this daemon waits for."""
        socket = self._config.socket
        runner = await serve(
            waiting_app(why, desk), self._config.socket_path, group=socket.group, mode=int(socket.mode, 8)
        )
        try:
            yield
        finally:
            await runner.cleanup()

    def _make_directories(self) -> None:
        config = self._config
        for path in (config.state_path, config.run_path, config.manifests_path, config.status_path):
            try:
                path.mkdir(parents=True, exist_ok=True, mode=0o755)
            except OSError as error:
                raise VclError(
                    f"cannot make the directory {path}: {error.strerror}",
                    cure="run vcld as root, or name other directories in its configuration",
                ) from error

    async def _with_store(self, entered: _Entered, ready: Callable[[], None]) -> None:
        outside, begun, cache = entered.outside, entered.begun, entered.cache
        self._frozen, self._seen = entered.frozen, entered.before
        if self._frozen and self._seen is not None:
            log.error("frozen: %s", self._frozen)
            # Until it is accepted or proves to be the right one: its numbers grow from here on.
            self._seen_file.save(replace(self._seen, doubted=True, session=begun.session))
        writer = Writer(outside.store, cache, IDS)
        probe = HealthProbe(self._config.state_path)
        directory = LocalManifestDirectory(self._config.manifests_path, node=entry(self._config).host.node)
        fencers = Fencers(self._config, outside.store, self._pool_specs, self._watchdog_of)
        shut_out = ShutOut(outside.addresses, fencers.listed, lambda: node.cache.healthy, self._anew.set)
        way = Way(
            health=lambda: self._health(probe),
            begin_anew=self._anew.set,
            shut_out=lambda: shut_out.known,
            armed=lambda: self._watchdog.armed() if self._watchdog is not None else None,
            keeper=self._keeper,
        )
        ports = node_ports(self._config, begun, outside, fencers, directory, way)
        node = self._node = assemble(ports, begun, cache, writer, lambda: self._frozen)
        log.info("vcld on node %s, session %d, cluster %s", node.name, begun.session, begun.cluster.uid)
        liveness = Liveness(lambda: view_of(node), CLOCK, ports.timers.mesh_heartbeat)
        async with self._cluster_log(node) as logs:
            loops = {
                "seen": lambda: self._remember(node),
                "health": probe.run,
                "log": logs.run,
                "liveness": liveness.run,
                "status": status_tree(node, liveness).run,
            }
            if fencers.clusters is not None and self._config.mesh is not None:
                loops["fencers"] = fencers.clusters.run
                loops["shut out"] = shut_out.run
            if self._watchdog is not None and not self._frozen:
                loops["watchdog"] = partial(self._watchdog.run, lambda: node.membership.renewed_at)
            services = self._services(node, logs, liveness)
            self._supervisor.start({**node.loops(), **loops})
            try:
                await self._until_stopped(node, services, directory, ready)
            finally:
                await fencers.close()

    @contextlib.asynccontextmanager
    async def _cluster_log(self, node: Node) -> AsyncIterator[ClusterLog]:
        """The log of all nodes; this one's last words are in its file at the end."""
        file = LogFile(self._config.state_path / "log")
        logs = ClusterLog(
            node.name,
            node.begun.session,
            CLOCK,
            node.ports.transport,
            archive=file,
            members=node.membership.members,
        )
        self._said.connect(logs.add)
        try:
            yield logs
        finally:
            self._said.disconnect()
            await file.close()

    async def _until_stopped(
        self, node: Node, services: ApiServices, directory: LocalManifestDirectory, ready: Callable[[], None]
    ) -> None:
        try:
            await self._serve(services, ready)
        finally:
            if self._watchdog is not None and not self._anew.is_set():
                await self._watchdog.retire(node.clients.confirm)  # the copy of the store is still followed
            await self._supervisor.stop()
            if not self._anew.is_set():  # a session that is over has nothing to say
                with contextlib.suppress(StoreError):
                    await node.events.flush()
                with contextlib.suppress(StoreError):
                    await node.membership.say_goodbye()
            await self._save_seen(node)
            await directory.close()
            await self._close_all(node)

    def _watchdog_of(self, name: str) -> WatchdogFacts | None:
        node = self._node
        if node is None:
            return None
        age = next((sight.lease_age for sight in node.membership.sights() if sight.name == name), None)
        return facts_of(node.views.record(keys.session(name), Session), age)

    def _pool_specs(self) -> Mapping[str, StoragePoolSpec]:
        return self._node.pools.specs() if self._node is not None else {}

    def _health(self, probe: HealthProbe) -> NodeHealth:
        """What the heartbeats tell of this node."""
        node = self._node
        if node is None:
            return probe.health
        controllers = (f"controller {n}: {why}" for n, why in sorted(node.agent.controller_errors.items()))
        return replace(
            probe.health,
            store=node.cache.healthy,
            problems=(*probe.health.problems, *controllers, *self._failed_loops()),
        )

    async def _remember(self, node: Node) -> None:
        """Keep the most that was seen of the store on disk (SAFETY rule 3)."""
        while True:
            await self._save_seen(node)
            await asyncio.sleep(SEEN_EVERY)

    async def _save_seen(self, node: Node) -> None:
        if self._frozen:
            return
        self._homecoming.remember(
            replace(
                self._homecoming.now,
                cluster_uid=node.begun.cluster.uid,
                session=node.begun.session,
                members=node.membership.members(),
            )
        )
        try:
            now = await seen_of(node.ports.store, node.begun, node.views)
        except StoreError:
            return  # what was seen before it was away is on disk; what comes after is looked at again
        seen = most(self._seen, now) if now is not None else None
        if seen is not None and seen != self._saved:
            self._seen_file.save(seen)
            self._seen = self._saved = seen

    async def _serve(self, services: ApiServices, ready: Callable[[], None]) -> None:
        socket = self._config.socket
        runner = await serve(
            build_app(services),
            self._config.socket_path,
            group=socket.group,
            mode=int(socket.mode, 8),
        )
        try:
            ready()
            await _first(self._stop, self._anew)
            log.info("stopping; guests are left running")
        finally:
            await runner.cleanup()

    def _services(self, node: Node, logs: ClusterLog, liveness: Liveness) -> ApiServices:
        objects = Objects(node.cache, liveness.line)
        liveness.subscribe(objects.seen_anew)

        def controller_of(vm: str) -> Controller | None:
            spec = node.views.vm(vm)
            return node.ports.controllers.get(spec.controller) if spec is not None else None

        def console_for(vm: str) -> Any:
            controller = controller_of(vm)
            return controller.console if controller is not None else None

        def guest_for(vm: str) -> Any:
            controller = controller_of(vm)
            return controller.guest if controller is not None else None

        def standing(name: str) -> Standing | None:
            line = liveness.line(name)
            return Standing(line.standing) if line is not None else None

        manifests = Manifests(node.manifests)
        absent = partial(absence, node.ports, node.membership)
        plans = Plans(node.views, CLOCK, node.manifests.reader, manifests, absent)
        return ApiServices(
            objects=objects,
            manifests=manifests,
            intents=Intents(node.views, node.writer, CLOCK, IDS),
            events=EventLog(node.cache),
            console_for=console_for,
            guest_for=guest_for,
            version=lambda: version_info(node.name),
            live=self._failed_loops,
            ready=lambda: self._problems(node),
            status=lambda: self._status(node, liveness),
            placement=lambda: self._placement(node, liveness),
            read_only=node.frozen,
            metrics=lambda: self._samples(node),
            members=Members(node.views, node.writer, standing),
            confirmations=confirmations(node),
            logs=logs,
            disks=node.locks,
            adoptions=node.adoptions,
            plans=plans,
            migrations=MigrationRequests(node.views, node.writer, CLOCK, IDS, absent),
            power=node.power.requests,
            rebalancing=RebalanceRequests(node.views, node.writer, CLOCK, IDS, plans),
        )

    @staticmethod
    def _samples(node: Node) -> Iterator[Sample]:
        yield from samples_of(node)
        transport = node.ports.transport
        if isinstance(transport, Measured):
            yield from transport.samples()

    async def _placement(self, node: Node, liveness: Liveness) -> dict[str, Any]:
        found: dict[str, Any] = encode(await placement_of(node, liveness))
        return found

    def _failed_loops(self) -> tuple[str, ...]:
        return tuple(f"loop {name}: {why}" for name, why in sorted(self._supervisor.failed.items()))

    def _problems(self, node: Node) -> tuple[str, ...]:
        """Why this node is not ready, one line each."""
        found = list(self._failed_loops())
        if not node.cache.healthy:
            found.append("the store does not answer")
        if node.frozen():
            found.append(node.frozen())
        found += [f"controller {n}: {why}" for n, why in sorted(node.agent.controller_errors.items())]
        return tuple(found)

    def _status(self, node: Node, liveness: Liveness) -> dict[str, Any]:
        return {
            "node": node.name,
            "session": node.begun.session,
            "master": node.elector.epoch is not None,
            "epoch": node.elector.epoch.epoch if node.elector.epoch is not None else None,
            "frozen": node.frozen(),
            "problems": list(self._problems(node)),
            "cluster": {"name": node.begun.cluster.name, **encode(liveness.view())},
            "timers": encode(node.ports.timers),
            "fencing": fencing_of(node),
            "power": node.power.requests.view(),
            "rebalance": _rebalance(node),
            "store": self._store_status(node),
            "agent": {"queued": node.agent.queued},
            "manifests": {
                "directory": str(self._config.manifests_path),
                **asdict(node.manifests.status()),
            },
            "controllers": {
                name: node.agent.controller_errors.get(name, "ok") for name in sorted(node.ports.controllers)
            },
            "pools": {name: str(why) for name, why in sorted(node.pools.errors.items())},
        }

    def _store_status(self, node: Node) -> dict[str, Any]:
        store = self._config.store
        schema = node.views.record(keys.SCHEMA, SchemaRecord)
        where = (
            f"{store.pool}/{store.namespace}/{store.object}"
            if store.type is StoreType.RADOS
            else str(self._config.store_path)
        )
        return {
            "type": store.type.value,
            "path": where,
            "revision": node.cache.revision,
            "healthy": node.cache.healthy,
            "schema": schema.version if schema is not None else None,
        }

    async def _close_all(self, node: Node) -> None:
        for controller in node.ports.controllers.values():
            try:
                async with asyncio.timeout(5.0):
                    await controller.close()
            except (VclError, TimeoutError) as error:
                log.warning("controller %s: closing: %s", controller.name, error)
        await asyncio.to_thread(node.pools.close)


def _rebalance(node: Node) -> dict[str, Any]:
    record = node.views.record(keys.REBALANCE, RebalanceRecord)
    return dict(encode(record)) if record is not None else {}


async def _first(*events: asyncio.Event) -> None:
    """Until one of them is set."""
    waits = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waits:
            task.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
