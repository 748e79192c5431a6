"""A controller's guests as clients of a `SimCeph`: what each QEMU opens, locks, and leaves behind.

It wraps another controller. A guest's client opens its writable images when it is created (a paused QEMU
already watches) and writes when it is resumed; one that ends in order closes them, one that crashes does not.
Of `intruders`, one opens them at the same moment.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator

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
from reconciler.resources.changes import AttachDisk, DetachDisk, LiveChange, Shape
from reconciler.resources.domains import (
    ControllerEvent,
    Definition,
    ExitReason,
    Gone,
    GuestKey,
    Observed,
    StartRequest,
    Stranger,
)
from reconciler.resources.images import RbdName
from reconciler.sim.ceph import Blocklisted, SimCeph, SimClient


class _Lifecycle:
    def __init__(self, inner: ResourceController, ceph: SimCeph, host: str) -> None:
        self._inner = inner
        self._ceph = ceph
        self._host = host
        self.clients: dict[str, tuple[SimClient, tuple[RbdName, ...]]] = {}
        self.plugged: dict[str, dict[RbdName, SimClient]] = {}
        """By domain, what was attached while it ran: QEMU opens each image as a client of its own."""
        self.intruders: list[SimClient] = []

    async def render(self, request: StartRequest, *, timeout: float) -> Definition:
        return await self._inner.render(request, timeout=timeout)

    async def inventory(self, *, timeout: float) -> tuple[Observed, ...]:
        return await self._inner.inventory(timeout=timeout)

    async def observe(self, name: str, *, uid: str = "", timeout: float) -> Observed | Gone:
        seen = await self._inner.observe(name, uid=uid, timeout=timeout)
        if isinstance(seen, Gone) and name in self.clients:
            client, _ = self.clients.pop(name)
            others = self.plugged.pop(name, {}).values()
            for each in (client, *others) if seen.exit is not ExitReason.CRASHED else ():
                each.close()
        return seen

    async def create(self, definition: Definition, *, timeout: float) -> Observed:
        seen = await self._inner.create(definition, timeout=timeout)
        names = tuple(name for path in definition.writable if (name := RbdName.parse(path)) is not None)
        client = self._ceph.client(self._host)
        intruder = self.intruders.pop() if self.intruders else client
        for name in names:
            client.open(name)
            intruder.open(name)
        self.clients[definition.name] = (client, names)
        return seen

    async def isolate(self, name: str, *, timeout: float) -> None:
        if isinstance(self._inner, Isolator):
            await self._inner.isolate(name, timeout=timeout)

    async def set_paused(self, name: str, paused: bool, *, timeout: float) -> None:
        await self._inner.set_paused(name, paused, timeout=timeout)
        if not paused:
            self.write(name)

    async def shape(self, name: str, *, timeout: float) -> Shape:
        return await self._changer().shape(name, timeout=timeout)

    async def change(self, definition: Definition, change: LiveChange, *, timeout: float) -> None:
        name = definition.name
        before = await self._changer().shape(name, timeout=timeout)
        await self._changer().change(definition, change, timeout=timeout)
        if isinstance(change, AttachDisk) and change.disk not in before.disks:
            self._open(name, json.loads(definition.document)["disks"][change.disk])
        if isinstance(change, DetachDisk) and change.disk in before.disks:
            self._close(name, before.disks[change.disk])

    def _open(self, name: str, path: str) -> None:
        image = RbdName.parse(path)
        if image is not None:
            client = self.plugged.setdefault(name, {})[image] = self._ceph.client(self._host)
            client.open(image)

    def _close(self, name: str, path: str) -> None:
        image, plugged = RbdName.parse(path), self.plugged.get(name, {})
        if image in plugged:
            plugged.pop(image).close()
        elif image is not None:
            client, images = self.clients[name]
            client.close(image)
            self.clients[name] = (client, tuple(each for each in images if each != image))

    def _changer(self) -> LiveChanger:
        assert isinstance(self._inner, LiveChanger)
        return self._inner

    async def stranger(self, name: str, *, timeout: float) -> Stranger | None:
        return await self._adopter().stranger(name, timeout=timeout)

    async def take_over(self, definition: Definition, *, timeout: float) -> None:
        await self._adopter().take_over(definition, timeout=timeout)

    async def give_back(self, name: str, *, uid: str, timeout: float) -> None:
        await self._adopter().give_back(name, uid=uid, timeout=timeout)

    def _adopter(self) -> Adopter:
        assert isinstance(self._inner, Adopter)
        return self._inner

    def by_hand(self, name: str, images: tuple[RbdName, ...]) -> SimClient:
        """The client of a domain that somebody made by hand, which has opened these images."""
        client = self._ceph.client(self._host)
        for image in images:
            client.open(image)
        self.clients[name] = (client, images)
        return client

    async def shutdown(self, name: str, *, timeout: float) -> None:
        await self._inner.shutdown(name, timeout=timeout)

    async def destroy(self, name: str, *, uid: str, timeout: float) -> None:
        await self._inner.destroy(name, uid=uid, timeout=timeout)

    def events(self) -> AsyncIterator[ControllerEvent]:
        return self._inner.events()

    def write(self, name: str) -> None:
        """The guest writes to all its images; one that is fenced gets errors."""
        client, images = self.clients[name]
        with contextlib.suppress(Blocklisted):
            for image in images:
                client.write(image, name)
            for image, plugged in self.plugged.get(name, {}).items():
                plugged.write(image, name)


class RbdGuests:
    """A Controller whose guests are on the host with the address `host`; `keys` are those it was given."""

    def __init__(self, inner: Controller, ceph: SimCeph, host: str = "10.77.0.1") -> None:
        self.name = inner.name
        self.qemus = _Lifecycle(inner.lifecycle, ceph, host)
        self.lifecycle: ResourceController = self.qemus
        self.guest: Guest | None = inner.guest
        self.console: Console | None = inner.console
        self.host: Host | None = inner.host
        self.keys: dict[str, GuestKey] = {}
        self._inner = inner

    async def keep_key(self, key: GuestKey, *, timeout: float) -> None:
        """See KeyKeeper."""
        self.keys[key.secret] = key

    async def open(self) -> None:
        await self._inner.open()

    async def close(self) -> None:
        await self._inner.close()
