"""The daemon's life: lock, store, session, loops, API; and a clean end that leaves the guests running."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from functools import partial
from typing import Any

from reconciler.adapters.http_api import ApiServices, build_app, serve
from reconciler.adapters.instance_lock import InstanceLock
from reconciler.adapters.seen_file import SeenFile
from reconciler.adapters.sqlite_store import SqliteStore
from reconciler.adapters.status_tree import StatusTree
from reconciler.loops.apply import Manifests
from reconciler.loops.cache import StoreCache
from reconciler.loops.event_log import EventLog
from reconciler.loops.intents import Intents
from reconciler.loops.master import Master, MasterContext
from reconciler.loops.objects import Objects
from reconciler.loops.session import acquire_epoch, begin, patiently
from reconciler.loops.status_tree import StatusTreeLoop
from reconciler.loops.writer import Writer
from reconciler.planning.backoff import delay
from reconciler.planning.store_memory import Seen, doubt, most
from reconciler.ports.controller import Controller
from reconciler.resources.errors import StoreError, VclError
from reconciler.resources.records import Epoch
from vcld.config import Config
from vcld.parts import CLOCK, IDS, Node, build_node, host_identity, version_info

log = logging.getLogger(__name__)

STEADY_AFTER = 60.0
SEEN_EVERY = 30.0


class Daemon:
    """One vcld. `run` returns after `stop`."""

    def __init__(self, config: Config, *, accept_store: bool = False) -> None:
        self._config = config
        self._accept_store = accept_store
        self._stop = asyncio.Event()
        self._frozen = ""
        self._failed: dict[str, str] = {}
        self._epoch: Epoch | None = None
        self._seen: Seen | None = None
        self._saved: Seen | None = None
        self._seen_file = SeenFile(config.state_path / "seen.json")

    def stop(self) -> None:
        """End cleanly: the API first, then the loops; guests go on."""
        self._stop.set()

    async def run(self, ready: Callable[[], None] = lambda: None) -> None:
        """Run until `stop`. Raises VclError when it cannot start."""
        self._make_directories()
        lock = InstanceLock(self._config.state_path / "vcld.lock")
        lock.acquire()
        try:
            store = await SqliteStore.open(self._config.store_path)
            try:
                await self._with_store(store, ready)
            finally:
                await store.close()
        finally:
            lock.release()

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

    async def _with_store(self, store: SqliteStore, ready: Callable[[], None]) -> None:
        host = host_identity(self._config)
        begun = await patiently(
            lambda: begin(store, host, CLOCK, IDS, self._config.cluster), "beginning a session"
        )
        before = None if self._accept_store else self._seen_file.load()
        self._frozen = doubt(before, begun.seen)
        if self._frozen:
            log.error("frozen: %s", self._frozen)
        self._seen = begun.seen if self._frozen else most(before, begun.seen)
        cache = StoreCache(store)
        await patiently(lambda: cache.step(0.0), "reading the store")
        writer = Writer(store, cache, IDS)
        node = build_node(self._config, host.node, begun, cache, writer, lambda: self._frozen)
        log.info("vcld on node %s, session %d, cluster %s", node.name, begun.session, begun.cluster.uid)
        loops = self._loops(store, node)
        tasks = [asyncio.create_task(self._supervise(name, life), name=name) for name, life in loops.items()]
        try:
            await self._serve(node, ready)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            with contextlib.suppress(StoreError):
                await node.events.flush()
            self._save_seen(node)
            await self._close_all(node)

    def _loops(self, store: SqliteStore, node: Node) -> dict[str, Callable[[], Awaitable[None]]]:
        loops: dict[str, Callable[[], Awaitable[None]]] = {
            "store": lambda: follow(node.cache),
            "seen": lambda: self._remember(node),
            "agent": node.agent.run,
            "node": node.reporter.run,
            "events": node.events.run,
            "status": StatusTreeLoop(node.cache, StatusTree(self._config.status_path), CLOCK).run,
        }
        for name, controller in node.controllers.items():
            loops[f"controller {name}"] = partial(hold_open, controller)
        if not self._frozen:
            loops["manifests"] = node.manifests.run
            loops["master"] = lambda: self._master(store, node)
        return loops

    async def _master(self, store: SqliteStore, node: Node) -> None:
        """Be master; when another daemon on this store takes over, take part again as soon as it is gone."""
        self._epoch = await patiently(
            lambda: acquire_epoch(store, node.writer, node.name, IDS), "becoming master"
        )
        if self._epoch is None:
            return
        log.info("master: node %s holds epoch %d", node.name, self._epoch.epoch)
        context = MasterContext(
            node=node.name,
            epoch=self._epoch,
            clock=CLOCK,
            views=node.views,
            writer=node.writer,
            event=node.events.record,
        )
        await Master(context).run()
        self._epoch = None

    async def _supervise(self, name: str, life: Callable[[], Awaitable[None]]) -> None:
        """Run a loop for ever: one that fails is logged whole and started again, the others go on."""
        failures = 0
        while True:
            began = CLOCK.monotonic()
            try:
                await life()
                reason = "it ended"
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"
                log.exception("loop %s failed; the other loops go on", name)
            if CLOCK.monotonic() - began > STEADY_AFTER:
                failures = 0
            failures += 1
            self._failed[name] = reason
            await asyncio.sleep(delay(failures, IDS.jitter()))
            self._failed.pop(name, None)

    async def _remember(self, node: Node) -> None:
        """Keep the most that was seen of the store on disk (SAFETY rule 3)."""
        while True:
            self._save_seen(node)
            await asyncio.sleep(SEEN_EVERY)

    def _save_seen(self, node: Node) -> None:
        if self._frozen:
            return
        now = Seen(
            cluster_uid=node.begun.cluster.uid,
            revision=node.cache.revision,
            epoch=self._epoch.epoch if self._epoch is not None else 0,
        )
        seen = most(self._seen, now)
        if seen != self._saved:
            self._seen_file.save(seen)
            self._seen = self._saved = seen

    async def _serve(self, node: Node, ready: Callable[[], None]) -> None:
        socket = self._config.socket
        runner = await serve(
            build_app(self._services(node)),
            self._config.socket_path,
            group=socket.group,
            mode=int(socket.mode, 8),
        )
        try:
            ready()
            await self._stop.wait()
            log.info("stopping; guests are left running")
        finally:
            await runner.cleanup()

    def _services(self, node: Node) -> ApiServices:
        def controller_of(vm: str) -> Controller | None:
            spec = node.views.vm(vm)
            return node.controllers.get(spec.controller) if spec is not None else None

        def console_for(vm: str) -> Any:
            controller = controller_of(vm)
            return controller.console if controller is not None else None

        def guest_for(vm: str) -> Any:
            controller = controller_of(vm)
            return controller.guest if controller is not None else None

        return ApiServices(
            objects=Objects(node.cache),
            manifests=Manifests(node.manifests),
            intents=Intents(node.views, node.writer, CLOCK, IDS),
            events=EventLog(node.cache),
            console_for=console_for,
            guest_for=guest_for,
            version=lambda: version_info(node.name),
            live=lambda: tuple(f"loop {name}: {why}" for name, why in sorted(self._failed.items())),
            ready=lambda: self._problems(node),
            status=lambda: self._status(node),
            read_only=lambda: self._frozen,
        )

    def _problems(self, node: Node) -> tuple[str, ...]:
        """Why this node is not ready, one line each."""
        found = [f"loop {name}: {why}" for name, why in sorted(self._failed.items())]
        if not node.cache.healthy:
            found.append("the store does not answer")
        if self._frozen:
            found.append(self._frozen)
        found += [f"controller {n}: {why}" for n, why in sorted(node.agent.controller_errors.items())]
        return tuple(found)

    def _status(self, node: Node) -> dict[str, Any]:
        return {
            "node": node.name,
            "session": node.begun.session,
            "master": self._epoch is not None,
            "epoch": self._epoch.epoch if self._epoch is not None else None,
            "frozen": self._frozen,
            "problems": list(self._problems(node)),
            "store": {"path": str(self._config.store_path), "revision": node.cache.revision},
            "agent": {"queued": node.agent.queued},
            "manifests": {
                "directory": str(self._config.manifests_path),
                **asdict(node.manifests.status()),
            },
            "controllers": {
                name: node.agent.controller_errors.get(name, "ok") for name in sorted(node.controllers)
            },
            "pools": {name: str(why) for name, why in sorted(node.pools.errors.items())},
        }

    async def _close_all(self, node: Node) -> None:
        await node.directory.close()
        for controller in node.controllers.values():
            try:
                async with asyncio.timeout(5.0):
                    await controller.close()
            except (VclError, TimeoutError) as error:
                log.warning("controller %s: closing: %s", controller.name, error)


async def follow(cache: StoreCache) -> None:
    """Keep the copy of the store fresh."""
    while True:
        try:
            await cache.step(10.0)
        except StoreError as error:
            log.warning("store: %s; trying again", error)
            await asyncio.sleep(1.0)


async def hold_open(controller: Controller) -> None:
    """Open a controller and keep it; it reconnects by itself."""
    await controller.open()
    await asyncio.Event().wait()
