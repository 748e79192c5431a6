"""A store and a controller that stop the world at their n-th call: the daemon dies there, before or after the
call took effect. With them a test can kill a node at every step of whatever it does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from reconciler.ports.controller import (
    Adopter,
    Console,
    Controller,
    Guest,
    Host,
    Isolator,
    LiveChanger,
    ResourceController,
)
from reconciler.ports.store import Store
from reconciler.resources import keys
from reconciler.resources.changes import LiveChange, Shape
from reconciler.resources.domains import ControllerEvent, Definition, Gone, Observed, StartRequest, Stranger
from reconciler.resources.kinds import Kind
from reconciler.resources.transactions import KeyValue, Listing, Resolution, Txn, TxnResult, WatchResult

T = TypeVar("T")


@dataclass(slots=True)
class Killpoint:
    """The n-th counted call (from 1) never returns; `after`: its effect happened. 0 never kills."""

    at: int = 0
    after: bool = False
    count: int = 0
    what: str = ""
    reached: asyncio.Event = field(default_factory=asyncio.Event)

    async def pass_through(self, what: str, call: Callable[[], Awaitable[T]]) -> T:
        """Do the call, or die at it."""
        if self.reached.is_set():
            await asyncio.Event().wait()
        self.count += 1
        if self.count != self.at:
            return await call()
        self.what = what
        self.reached.set()
        if self.after:
            await call()
        await asyncio.Event().wait()
        raise AssertionError("a dead daemon goes on")


_OF_THE_NODE = tuple(keys.node_status(kind, "") for kind in (Kind.NODE, Kind.STORAGE_POOL))
"""What a node reports of itself now and then: no step of what it does, and it would shift their numbers."""


class KillStore:
    """Counts transactions."""

    def __init__(self, inner: Store, point: Killpoint) -> None:
        self._inner = inner
        self._point = point

    async def get(self, keys: Sequence[str], *, timeout: float = 2.0) -> Mapping[str, KeyValue]:
        return await self._inner.get(keys, timeout=timeout)

    async def list(self, prefix: str, *, timeout: float = 2.0) -> Listing:
        return await self._inner.list(prefix, timeout=timeout)

    async def txn(self, txn: Txn, *, timeout: float = 2.0) -> TxnResult:
        written = sorted([put.key for put in txn.puts] + list(txn.deletes))
        if all(key.startswith(_OF_THE_NODE) for key in written) and not self._point.reached.is_set():
            return await self._inner.txn(txn, timeout=timeout)
        what = f"txn {' '.join(written)}"
        return await self._point.pass_through(what, lambda: self._inner.txn(txn, timeout=timeout))

    async def watch(self, since: int, *, timeout: float) -> WatchResult:
        return await self._inner.watch(since, timeout=timeout)

    async def resolve(self, txn_id: str, *, timeout: float = 2.0) -> Resolution:
        return await self._inner.resolve(txn_id, timeout=timeout)

    async def txn_at(self, revision: int, *, timeout: float = 2.0) -> str | None:
        return await self._inner.txn_at(revision, timeout=timeout)

    async def close(self) -> None:
        await self._inner.close()


class KillLifecycle:
    """Counts the calls that change something; `calls` lists what took effect."""

    def __init__(self, inner: ResourceController, point: Killpoint, calls: list[str]) -> None:
        self._inner = inner
        self._point = point
        self._calls = calls

    async def render(self, request: StartRequest, *, timeout: float) -> Definition:
        return await self._inner.render(request, timeout=timeout)

    async def inventory(self, *, timeout: float) -> tuple[Observed, ...]:
        return await self._inner.inventory(timeout=timeout)

    async def observe(self, name: str, *, uid: str = "", timeout: float) -> Observed | Gone:
        return await self._inner.observe(name, uid=uid, timeout=timeout)

    async def create(self, definition: Definition, *, timeout: float) -> Observed:
        return await self._do(
            f"create {definition.name}", lambda: self._inner.create(definition, timeout=timeout)
        )

    async def isolate(self, name: str, *, timeout: float) -> None:
        if isinstance(self._inner, Isolator):
            inner = self._inner
            await self._do(f"isolate {name}", lambda: inner.isolate(name, timeout=timeout))

    async def set_paused(self, name: str, paused: bool, *, timeout: float) -> None:
        what = f"{'pause' if paused else 'resume'} {name}"
        await self._do(what, lambda: self._inner.set_paused(name, paused, timeout=timeout))

    async def shape(self, name: str, *, timeout: float) -> Shape:
        return await self._changer().shape(name, timeout=timeout)

    async def change(self, definition: Definition, change: LiveChange, *, timeout: float) -> None:
        call = partial(self._changer().change, definition, change, timeout=timeout)
        await self._do(f"change {definition.name}: {', '.join(change.paths)}", call)

    def _changer(self) -> LiveChanger:
        assert isinstance(self._inner, LiveChanger)
        return self._inner

    async def stranger(self, name: str, *, timeout: float) -> Stranger | None:
        return await self._adopter().stranger(name, timeout=timeout)

    async def take_over(self, definition: Definition, *, timeout: float) -> None:
        call = partial(self._adopter().take_over, definition, timeout=timeout)
        await self._do(f"take over {definition.name}", call)

    async def give_back(self, name: str, *, uid: str, timeout: float) -> None:
        call = partial(self._adopter().give_back, name, uid=uid, timeout=timeout)
        await self._do(f"give back {name}", call)

    def _adopter(self) -> Adopter:
        assert isinstance(self._inner, Adopter)
        return self._inner

    async def shutdown(self, name: str, *, timeout: float) -> None:
        await self._do(f"shutdown {name}", lambda: self._inner.shutdown(name, timeout=timeout))

    async def destroy(self, name: str, *, uid: str, timeout: float) -> None:
        await self._do(f"destroy {name}", lambda: self._inner.destroy(name, uid=uid, timeout=timeout))

    def events(self) -> AsyncIterator[ControllerEvent]:
        return self._inner.events()

    async def _do(self, what: str, call: Callable[[], Awaitable[T]]) -> T:
        async def counted() -> T:
            result = await call()
            self._calls.append(what)
            return result

        return await self._point.pass_through(what, counted)


class KillController:
    """A controller whose lifecycle has a killpoint."""

    def __init__(self, inner: Controller, point: Killpoint) -> None:
        self.name = inner.name
        self.calls: list[str] = []
        self.lifecycle: ResourceController = KillLifecycle(inner.lifecycle, point, self.calls)
        self.guest: Guest | None = inner.guest
        self.console: Console | None = inner.console
        self.host: Host | None = inner.host
        self._inner = inner

    async def open(self) -> None:
        await self._inner.open()

    async def close(self) -> None:
        await self._inner.close()
