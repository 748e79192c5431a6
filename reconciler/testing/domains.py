"""What the controller contract needs besides its tests: a context, domains that are cleaned up, a listener.

Invariant: every domain that a test started through `Domains` is proven gone before the next test begins.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pytest

from reconciler.ports.controller import ControllerContext, ResourceController
from reconciler.resources.domains import ControllerEvent, Gone, Observed, StartRequest
from reconciler.resources.errors import ControllerUnavailable

T = TypeVar("T")

CLUSTER = "7c0e5a52-0000-4000-8000-000000000001"
NODE = "contract-node"


def context_for(directory: Path, **options: object) -> ControllerContext:
    """A context whose directories exist below `directory`."""
    state, run = directory / "state", directory / "run"
    state.mkdir(parents=True, exist_ok=True)
    run.mkdir(parents=True, exist_ok=True)
    return ControllerContext(node=NODE, cluster_uid=CLUSTER, state_dir=state, run_dir=run, options=options)


@dataclass
class Domains:
    """Starts domains for a test, and ends all of them afterwards. Times in seconds."""

    lifecycle: ResourceController
    patience: float
    started: dict[str, str] = field(default_factory=dict)

    async def start(self, request: StartRequest) -> Observed:
        """Render and create; remembers the domain for the clean-up."""
        definition = await self.lifecycle.render(request, timeout=self.patience)
        self.started[request.name] = request.uid
        return await self.lifecycle.create(definition, timeout=self.patience)

    async def resume(self, name: str) -> None:
        await self.lifecycle.set_paused(name, False, timeout=self.patience)

    async def seen(self, name: str) -> Observed:
        """The domain, which must be there."""
        found = await self.lifecycle.observe(name, timeout=self.patience)
        assert isinstance(found, Observed), f"{name} is {found}"
        return found

    async def settled(self, name: str, uid: str) -> Observed | Gone:
        """Wait until it is known; ControllerUnavailable is a reason to ask again, as the agent does."""

        async def known() -> Observed | Gone | None:
            try:
                return await self.lifecycle.observe(name, uid=uid, timeout=self.patience)
            except ControllerUnavailable:
                return None

        return await self.eventually(known)

    async def gone(self, name: str, uid: str) -> Gone:
        """Wait until its end is proven."""

        async def proof() -> Gone | None:
            found = await self.settled(name, uid)
            return found if isinstance(found, Gone) else None

        return await self.eventually(proof)

    async def eventually(self, ask: Callable[[], Awaitable[T | None]]) -> T:
        """Ask until there is an answer, for `patience` seconds."""
        deadline = time.monotonic() + self.patience
        while (answer := await ask()) is None:
            assert time.monotonic() < deadline, f"nothing after {self.patience} s"
            await asyncio.sleep(0.02)
        return answer

    async def end_all(self) -> None:
        for name, uid in self.started.items():
            await self.lifecycle.destroy(name, uid=uid, timeout=self.patience)
            await self.gone(name, uid)


async def is_unavailable(call: Awaitable[object], patience: float) -> None:
    """The call must fail as unknown, and near its own deadline rather than never."""
    with pytest.raises(ControllerUnavailable):
        await asyncio.wait_for(call, patience)


class Heard:
    """What one reader of the events has heard so far."""

    def __init__(self, events: AsyncIterator[ControllerEvent]) -> None:
        self._names: list[str] = []
        self._changed = asyncio.Event()
        self._task = asyncio.create_task(self._listen(events))

    async def _listen(self, events: AsyncIterator[ControllerEvent]) -> None:
        async for event in events:
            self._names.append(event.name)
            self._changed.set()

    def forget(self) -> None:
        self._names.clear()

    async def wait_for(self, name: str, patience: float) -> None:
        """A hint that names the domain. A general one ("look at everything") would do for a caller too."""

        async def heard() -> None:
            while name not in self._names:
                self._changed.clear()
                await self._changed.wait()

        await asyncio.wait_for(heard(), patience)

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
