"""Meshes on the loopback, with a relay between every two nodes so that a test can cut them apart."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from reconciler.adapters.clock import SystemClock, SystemIds
from reconciler.adapters.mesh import MeshOptions, MeshTransport, TlsFiles
from reconciler.adapters.mesh.options import Limits
from reconciler.ports.clock import Clock
from reconciler.ports.transport import Endpoint, Transport

HERE = "127.0.0.1"
SECRET = b"not a secret at all, this is a test"
CLUSTER = "6f1d3c1e-0000-4000-8000-000000000001"

IMPATIENT = Limits(handshake=1.5, dial=1.0, silence=1.5, retry_last=1.0)
"""So that tests do not wait long."""


def options(node: str, certificates: Path | None = None) -> MeshOptions:
    """A node's options, on a port that the kernel chooses."""
    tls = None
    if certificates is not None:
        tls = TlsFiles(
            ca=certificates / "ca.crt", cert=certificates / f"{node}.crt", key=certificates / f"{node}.key"
        )
    return MeshOptions(
        node=node, bind=HERE, port=0, cluster_uid=CLUSTER, secret=SECRET, tls=tls, limits=IMPATIENT
    )


class Running:
    """A daemon's mesh, as a task."""

    def __init__(self, given: MeshOptions) -> None:
        self.options = given
        self.transport = MeshTransport(given, clock=SystemClock(), ids=SystemIds())
        self.task = asyncio.create_task(self.transport.run())

    async def listening(self) -> int:
        """Its port; raises what `run` raised."""
        while self.transport.port is None:
            if self.task.done():
                self.task.result()
            await asyncio.sleep(0.005)
        return self.transport.port

    async def stop(self) -> None:
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task


@asynccontextmanager
async def running(*given: MeshOptions) -> AsyncIterator[list[Running]]:
    """These nodes, listening and not connected."""
    nodes = [Running(each) for each in given]
    try:
        for node in nodes:
            await node.listening()
        yield nodes
    finally:
        for node in nodes:
            await node.stop()


class Relay:
    """Carries what one node sends to another, and back. Listens only while the other one's daemon runs."""

    def __init__(self, to: Running) -> None:
        self.to = to
        self.port = 0
        self._passing = asyncio.Event()
        self._passing.set()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        listener = socket.create_server((HERE, self.port))
        self.port = listener.getsockname()[1]
        self._server = await asyncio.start_server(self._serve, sock=listener)

    async def close(self) -> None:
        """Refuse connections, and break those that exist."""
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        self._passing.clear()

    def heal(self) -> None:
        self._passing.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        async with contextlib.AsyncExitStack() as ends:
            ends.callback(writer.transport.abort)
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await self._passing.wait()
                there, back = await asyncio.open_connection(HERE, self.to.transport.port)
                ends.callback(back.transport.abort)
                await self._until_one_ends(self._pump(reader, back), self._pump(there, writer))

    async def _until_one_ends(self, *pumps: Coroutine[Any, Any, None]) -> None:
        tasks = [asyncio.create_task(pump) for pump in pumps]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                await self._passing.wait()
                writer.write(data)
                await writer.drain()
            await self._passing.wait()


class RelayedMesh:
    """A MeshUnderTest."""

    def __init__(self, names: Sequence[str], certificates: Path | None) -> None:
        self.clock: Clock = SystemClock()
        self.nodes = {name: Running(options(name, certificates)) for name in names}
        self._relays = {
            (one, other): Relay(self.nodes[other]) for one in names for other in names if one != other
        }

    async def open(self) -> None:
        for node in self.nodes.values():
            node.options = replace(node.options, port=await node.listening())
        for relay in self._relays.values():
            await relay.open()

    async def close(self) -> None:
        for node in self.nodes.values():
            await node.stop()
        for relay in self._relays.values():
            relay.heal()
            await relay.close()

    def transport(self, node: str) -> Transport:
        return self.nodes[node].transport

    def endpoint(self, node: str, *, seen_by: str) -> Endpoint:
        return Endpoint(address=HERE, port=self._relays[(seen_by, node)].port)

    async def cut(self, one: str, other: str) -> None:
        self._relays[(one, other)].cut()
        self._relays[(other, one)].cut()

    async def heal(self, one: str, other: str) -> None:
        self._relays[(one, other)].heal()
        self._relays[(other, one)].heal()

    async def stop(self, node: str) -> None:
        for (_, other), relay in self._relays.items():
            if other == node:
                await relay.close()
        await self.nodes[node].stop()

    async def start(self, node: str) -> None:
        self.nodes[node] = Running(self.nodes[node].options)
        await self.nodes[node].listening()
        for (_, other), relay in self._relays.items():
            if other == node:
                relay.to = self.nodes[node]
                await relay.open()


@asynccontextmanager
async def relayed(names: Sequence[str], certificates: Path | None) -> AsyncIterator[RelayedMesh]:
    mesh = RelayedMesh(names, certificates)
    try:
        await mesh.open()
        yield mesh
    finally:
        await mesh.close()
