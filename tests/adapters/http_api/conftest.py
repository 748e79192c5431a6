"""The API on a real UNIX socket, over a store in memory and a fake of each port."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from reconciler.adapters.http_api import ApiServices, build_app, serve
from reconciler.adapters.http_api.services import Limits
from reconciler.loops.cluster_log import ClusterLog
from reconciler.loops.confirmations import Confirmations
from reconciler.loops.migration_requests import MigrationRequests
from reconciler.loops.plans import Plans
from reconciler.loops.power_requests import PowerDesk
from reconciler.ports.manifests import (
    ApplyInput,
    ApplyOutcome,
    ApplyReport,
    ApplyResult,
    FileReport,
    HeldDeletions,
)
from reconciler.resources.domains import GuestInfo
from reconciler.resources.errors import AlreadyExists, NotFound
from reconciler.sim.desk import Desk


class FakeManifests:
    """A ManifestService that remembers what it was asked."""

    def __init__(self) -> None:
        self.applied: list[tuple[tuple[ApplyInput, ...], bool]] = []
        self.deleted: list[tuple[str, str, bool]] = []
        self.documents = {"web.yaml": b"kind: VirtualMachine # mine\n"}
        self.guarded: HeldDeletions | None = None
        self.failure: Exception | None = None
        self.delay = 0.0

    async def apply(self, inputs: Sequence[ApplyInput], *, dry_run: bool) -> ApplyReport:
        await asyncio.sleep(self.delay)
        if self.failure:
            raise self.failure
        self.applied.append((tuple(inputs), dry_run))
        result = ApplyResult(
            source=inputs[0].name,
            kind="VirtualMachine",
            name="web",
            result=ApplyOutcome.CREATED,
            path="web.yaml",
        )
        return ApplyReport(results=(result,), problems=("web.yaml:1:1: spec: is missing",))

    async def delete(self, kind: str, name: str, *, purge: bool) -> None:
        self.deleted.append((kind, name, purge))

    async def files(self) -> tuple[FileReport, ...]:
        return (FileReport(path="web.yaml", objects=(("VirtualMachine", "web"),), valid=True),)

    async def read(self, path: str) -> bytes:
        if path not in self.documents:
            raise NotFound(f"there is no manifest file {path!r}")
        return self.documents[path]

    def held(self) -> HeldDeletions | None:
        return self.guarded

    async def confirm(self, id: str) -> None:
        if self.guarded is None or self.guarded.id != id:
            raise NotFound(f"no deletions with the id {id!r} are held")
        self.guarded = None


class FakeConsole:
    """One console: `printed` is what the guest prints, `typed` what it was sent."""

    def __init__(self) -> None:
        self.printed: asyncio.Queue[bytes] = asyncio.Queue()
        self.typed = bytearray()
        self.history = b"boot\nlogin: "
        self.opened = 0
        self.closed = 0
        self.takes = asyncio.Event()
        self.takes.set()

    async def open(self, name: str, *, timeout: float) -> FakeConsole:
        if self.opened > self.closed:
            raise AlreadyExists(f"somebody is connected to the console of '{name}'")
        self.opened += 1
        return self

    async def tail(self, name: str, limit: int, *, timeout: float) -> bytes:
        return self.history[-limit:]

    async def read(self) -> bytes:
        return await self.printed.get()

    async def write(self, data: bytes) -> None:
        await self.takes.wait()
        self.typed += data

    async def close(self) -> None:
        self.closed += 1


class FakeGuest:
    """A guest whose screen is at `vnc`."""

    def __init__(self) -> None:
        self.vnc: str | None = "127.0.0.1:5901"

    async def info(self, name: str, *, timeout: float) -> GuestInfo:
        return GuestInfo(vnc=self.vnc)


class Api:
    """The served API and a client of it."""

    def __init__(self, desk: Desk, path: Path) -> None:
        self.desk = desk
        self.path = path
        self.manifests = FakeManifests()
        self.console: FakeConsole | None = FakeConsole()
        self.guest: FakeGuest | None = FakeGuest()
        self.problems: tuple[str, ...] = ()
        self.mistake: Exception | None = None
        self.logs: ClusterLog | None = None
        self.confirmations: Confirmations | None = None
        self.plans: Plans | None = None
        self.migrations: MigrationRequests | None = None
        self.power: PowerDesk | None = None
        self.rebalancing: Any = None
        self.read_only = ""
        self.limits = Limits()
        self._runner: web.AppRunner | None = None
        self._session: aiohttp.ClientSession | None = None

    async def start(self, **limits: float) -> None:
        self.limits = replace(self.limits, **limits)  # type: ignore[arg-type]
        self._runner = await serve(build_app(self._services()), self.path)
        connector = aiohttp.UnixConnector(str(self.path))
        self._session = aiohttp.ClientSession(
            "http://vcld/apis/vcl/v1/", connector=connector, timeout=aiohttp.ClientTimeout(total=10)
        )

    async def stop(self) -> None:
        if self._session:
            await self._session.close()
        await self.stop_serving()

    async def stop_serving(self) -> None:
        if self._runner:
            runner, self._runner = self._runner, None
            await runner.cleanup()

    @property
    def session(self) -> aiohttp.ClientSession:
        assert self._session, "start() was not called"
        return self._session

    async def call(self, method: str, path: str, **kwargs: Any) -> tuple[int, Any]:
        """Status code and JSON."""
        async with self.session.request(method, path, **kwargs) as response:
            assert response.content_type == "application/json", await response.text()
            return response.status, await response.json()

    async def get(self, path: str) -> tuple[int, Any]:
        return await self.call("GET", path)

    def _status(self) -> dict[str, Any]:
        if self.mistake:
            raise self.mistake
        return {"store": {"revision": self.desk.cache.revision}}

    async def _placement(self) -> dict[str, Any]:
        return {"node": "r1", "vms": [], "nodes": []}

    def _services(self) -> ApiServices:
        return ApiServices(
            objects=self.desk.objects,
            manifests=self.manifests,
            intents=self.desk.intents,
            events=self.desk.events,
            console_for=lambda name: self.console,
            guest_for=lambda name: self.guest,
            version=lambda: {"version": "0.1.0", "apiVersion": "vcl/v1", "node": "r1"},
            live=tuple,
            ready=lambda: self.problems,
            status=self._status,
            placement=self._placement,
            logs=self.logs,
            confirmations=self.confirmations,
            plans=self.plans,
            migrations=self.migrations,
            power=self.power,
            rebalancing=self.rebalancing,
            read_only=lambda: self.read_only,
            limits=self.limits,
        )


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    made = Desk()
    await made.start()
    cache = asyncio.create_task(_follow(made))
    yield made
    cache.cancel()
    await asyncio.gather(cache, return_exceptions=True)


async def _follow(desk: Desk) -> None:
    while True:
        await desk.cache.step(1.0)


@pytest.fixture
async def idle_api(desk: Desk, tmp_path: Path) -> AsyncIterator[Api]:
    """Not started yet: a test may change its limits."""
    made = Api(desk, tmp_path / "vcld.sock")
    yield made
    await made.stop()


@pytest.fixture
async def api(idle_api: Api) -> Api:
    await idle_api.start()
    return idle_api
