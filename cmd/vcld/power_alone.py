"""An order to shut down on a host whose daemon has no store: it waits for it, or does not run at all.

Invariants (SAFETY rule 20): the order is on this host's disk first; what ends guests is the very loop that a
daemon with a store runs, for domains with this cluster's and this node's marks only. Priorities and
`startAfter` are those of the manifests on this host's disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from typing import Any

from reconciler.adapters import host
from reconciler.adapters.host_switch import CommandSwitch
from reconciler.adapters.instance_lock import InstanceLock
from reconciler.adapters.last_run_file import LastRunFile
from reconciler.adapters.power_orders_file import PowerOrdersFile
from reconciler.adapters.schema_files import load_schemas
from reconciler.loops.power_down import Machines, PowerDown, PowerDownContext
from reconciler.loops.power_orders import OrderKeeper
from reconciler.loops.power_requests import PARALLEL, ShutdownRequest, order_of_request, order_view
from reconciler.planning.homecoming import LastRun
from reconciler.ports.controller import Controller
from reconciler.resources.errors import AlreadyExists, StoreUnavailable, VclError
from reconciler.resources.kinds import Kind
from reconciler.resources.manifest import parse_manifest
from reconciler.resources.records import EventType
from reconciler.resources.shutdowns import PowerOrders, PowerStart, ShutdownOrder
from vcld.config import Config
from vcld.parts import CLOCK, IDS, build_controllers, host_identity

log = logging.getLogger(__name__)

LOOK = 0.2
KILLED_LOOKS = 10
"""So often it is looked whether a killed daemon has let go of its lock."""
GRACE = 45.0
"""Seconds after the deadline within which guests that were ended are gone."""


class PowerAlone:
    """`run` obeys the keeper's order until cancelled; also a PowerDesk. `last`: what this host's last run
    left; without one nothing of a cluster has ever run here."""

    def __init__(self, config: Config, keeper: OrderKeeper, last: LastRun | None) -> None:
        self._config = config
        self._keeper = keeper
        self._node = host_identity(config).node
        uid = last.cluster_uid if last is not None else ""
        self._controllers: Mapping[str, Controller] = (
            build_controllers(config, self._node, uid) if uid else {}
        )
        self._machines: Machines | None = None
        self.down = PowerDown(
            PowerDownContext(
                node=self._node,
                cluster_uid=uid,
                clock=CLOCK,
                keeper=keeper,
                controllers=self._controllers,
                machines=self._read_machines,
                event=_said,
                switch=CommandSwitch(config.power.off_command),
            )
        )

    async def run(self) -> None:
        """Wait for an order, and obey it."""
        async with self._open():
            saving = asyncio.create_task(self._keeper.run())
            try:
                await self.down.run()
            finally:
                saving.cancel()

    @property
    def over(self) -> bool:
        """Whether no guest of the cluster is seen here any more, or none can ever have been."""
        looked, standing = self.down.word()
        return not self._controllers or (bool(looked) and not standing)

    async def shut_down(self, request: ShutdownRequest) -> ShutdownOrder:
        """See PowerDesk."""
        order = order_of_request(request, self._node, IDS, CLOCK)
        await self._keeper.learn(PowerOrders(orders=(order,)), given=True)
        log.warning(
            "the cluster is shut down, ordered on %s%s",
            self._node,
            f": {order.reason}" if order.reason else "",
        )
        return order

    async def start(self, parallel: int = PARALLEL) -> PowerStart:
        """See PowerDesk."""
        raise StoreUnavailable(
            "vcld waits for its store, and no VM can start before that answers",
            cure="start Ceph first, then ask again; look at `ceph status`",
        )

    def view(self) -> dict[str, Any]:
        """See PowerDesk."""
        order = self._keeper.order
        found: dict[str, Any] = {
            "node": self._node,
            "power": "Off" if order is not None else "Unknown",
            "stored": False,
            "storeHealthy": False,
        }
        if order is not None:
            found |= order_view(order, self._keeper, self.down) | {
                "told": [self._node],
                "heard": [self._node],
                "members": [self._node],
            }
            found["looked"] = found["looked"] or not self._controllers
        return found

    @contextlib.asynccontextmanager
    async def _open(self) -> AsyncIterator[None]:
        try:
            for controller in self._controllers.values():
                await controller.open()
            yield
        finally:
            for controller in self._controllers.values():
                with contextlib.suppress(VclError, TimeoutError):
                    async with asyncio.timeout(5.0):
                        await controller.close()

    def _read_machines(self) -> Machines:
        """Of the manifests here, read once; a file that cannot be read costs its VMs their place only."""
        if self._machines is None:
            priorities: dict[str, int] = {}
            after: dict[str, tuple[str, ...]] = {}
            schemas = load_schemas()
            for path in sorted(self._config.manifests_path.rglob("*.y*ml")):
                try:
                    documents = parse_manifest(str(path), path.read_bytes(), schemas).documents
                except (OSError, VclError) as error:
                    log.warning("%s: %s", path, error)
                    continue
                for each in documents:
                    if each.kind is Kind.VIRTUAL_MACHINE and each.valid:
                        priorities[each.name] = int(each.spec.get("priority", 0))
                        after[each.name] = tuple(each.spec.get("startAfter") or ())
            self._machines = Machines(priorities=priorities, start_after=after)
        return self._machines


def _said(type: EventType, kind: Kind, name: str, reason: str, message: str) -> None:
    """There is no store for events; the log has it."""


async def shut_down_here(config: Config, request: ShutdownRequest) -> int:
    """Order it, and end this host's guests, without a daemon. One that runs and does not answer is killed: it
    would start guests again when it wakes up, and the next one reads the order. Returns the exit code. Raises
    VclError when it cannot be recorded."""
    lock = InstanceLock(config.state_path / "vcld.lock")
    await _take(lock)
    try:
        keeper = OrderKeeper(PowerOrdersFile(config.orders_path), CLOCK, host.boot_id())
        last = LastRunFile(config.state_path / "last-run.json").load()
        alone = PowerAlone(config, keeper, last)
        await alone.shut_down(request)
        async with obeying(alone):
            return await _until_over(alone, request)
    finally:
        lock.release()


async def _take(lock: InstanceLock) -> None:
    """The lock, from a daemon that hangs. Raises AlreadyExists when another one is there at once: that one
    answers."""
    try:
        lock.acquire()
    except AlreadyExists:
        holder = lock.holder()
        if holder is None:
            raise
        print(f"vcld (process {holder}) does not answer: killing it", file=sys.stderr, flush=True)
        with contextlib.suppress(ProcessLookupError):
            os.kill(holder, signal.SIGKILL)
    else:
        return
    for _ in range(KILLED_LOOKS):
        with contextlib.suppress(AlreadyExists):
            lock.acquire()
            return
        await asyncio.sleep(LOOK)
    lock.acquire()


async def _until_over(alone: PowerAlone, request: ShutdownRequest) -> int:
    seen: frozenset[str] = frozenset()
    ends = CLOCK.monotonic() + request.deadline + GRACE
    while not alone.over and CLOCK.monotonic() < ends:
        looked, standing = alone.down.word()
        for vm in sorted(seen - set(standing)) if looked else ():
            print(f"virtualmachine/{vm} stopped", flush=True)
        seen = frozenset(standing) if looked else seen
        await asyncio.sleep(LOOK)
    if not alone.over:
        left = ", ".join(sorted(seen)) or "what runs here is not known: does libvirt answer?"
        print(f"error: the shutdown of this host is not complete: {left}", file=sys.stderr)
        return 1
    for vm in sorted(seen):
        print(f"virtualmachine/{vm} stopped", flush=True)
    print("no VM of the cluster is left on this host", flush=True)
    if request.power_off:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE):
                await alone.down.switched.wait()
    return 0


@contextlib.asynccontextmanager
async def obeying(alone: PowerAlone) -> AsyncIterator[None]:
    """Obey orders until the end of the block."""
    task = asyncio.create_task(alone.run())
    try:
        yield
    finally:
        task.cancel()
        for error in await asyncio.gather(task, return_exceptions=True):
            if isinstance(error, Exception):
                log.error("obeying the shutdown failed: %s", error)
