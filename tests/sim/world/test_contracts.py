"""The simulated network and store keep the contracts of their ports, on virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

from reconciler.ports.clock import Clock
from reconciler.ports.transport import Endpoint
from reconciler.sim.world import NodePorts, SimTransport, World, WorldLeases, WorldStore
from reconciler.sim.world.storage import Storage
from reconciler.testing.leases_contract import LeasesContract
from reconciler.testing.store_contract import StoreContract
from reconciler.testing.transport_contract import TransportContract
from reconciler.testing.virtual import on_virtual_time


async def idle(ports: NodePorts) -> None:
    await asyncio.Event().wait()


class WorldMesh:
    """Hosts of a world; their ends of the mesh all run in the test's process, so that there is one clock."""

    def __init__(self, world: World) -> None:
        self.clock: Clock = world.node("test").clock
        self._world = world
        self._ends: dict[str, tuple[SimTransport, asyncio.Task[None]]] = {}

    def transport(self, node: str) -> SimTransport:
        return self._ends[node][0]

    def endpoint(self, node: str, *, seen_by: str) -> Endpoint:
        return self._world.node(node).endpoint

    async def cut(self, one: str, other: str) -> None:
        self._world.network.cut(one, other)

    async def heal(self, one: str, other: str) -> None:
        self._world.network.heal(one, other)

    async def stop(self, node: str) -> None:
        _, life = self._ends.pop(node)
        life.cancel()
        await asyncio.wait([life])

    async def start(self, node: str) -> None:
        end = SimTransport(self._world.network, self._world.node("test").loop, node)
        self._ends[node] = (end, asyncio.create_task(end.run()))
        await asyncio.sleep(0)

    async def stop_all(self) -> None:
        for node in list(self._ends):
            await self.stop(node)


@on_virtual_time
class TestSimTransport(TransportContract):
    world: World

    @asynccontextmanager
    async def mesh(self, names: Sequence[str]) -> AsyncIterator[WorldMesh]:
        mesh = WorldMesh(self.world)
        for name in names:
            self.world.add(name, idle)
        self.world.power_on(names)
        for name in names:
            await mesh.start(name)
        yield mesh
        await mesh.stop_all()


@on_virtual_time
class TestWorldStore(StoreContract):
    world: World

    def setup_method(self) -> None:
        self.storages: dict[Path, Storage] = {}

    async def open(self, directory: Path, *, log_size: int = 10_000) -> WorldStore:
        world = self.world
        storage = self.storages.get(directory)
        if storage is None:
            storage = Storage(world.schedule, Random("contract"), world.say, log_size=log_size)
            storage.add("test")
            self.storages[directory] = storage
        return WorldStore(storage, "test", world.node("test").loop)


@on_virtual_time
class TestWorldLeases(LeasesContract):
    world: World

    @asynccontextmanager
    async def pair(self) -> AsyncIterator[tuple[WorldLeases, WorldLeases]]:
        loop = self.world.node("test").loop
        one, two = (WorldLeases(self.world.storage, "test", loop) for _ in range(2))
        yield one, two
        await one.close()
        await two.close()
