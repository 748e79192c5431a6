"""The libvirt controller put together: one connection, one register of calls, the four ports on top."""

from __future__ import annotations

import asyncio
from typing import Any

import libvirt

from reconciler.adapters.libvirt import endings, options, secrets
from reconciler.adapters.libvirt.console import LibvirtConsole
from reconciler.adapters.libvirt.details import DetailsCache
from reconciler.adapters.libvirt.domains import Reader
from reconciler.adapters.libvirt.files import Files
from reconciler.adapters.libvirt.guest import Boots, LibvirtGuest
from reconciler.adapters.libvirt.hints import Ends, Hints
from reconciler.adapters.libvirt.host import LibvirtHost
from reconciler.adapters.libvirt.link import Link
from reconciler.adapters.libvirt.migrating import MigratingLifecycle
from reconciler.adapters.libvirt.outstanding import Outstanding
from reconciler.adapters.libvirt.processes import Processes
from reconciler.ports.controller import Console, ControllerContext, Guest, Host, ResourceController
from reconciler.resources.domains import ControllerEvent, GuestKey

_OPEN_SECONDS = 5.0
_CLOSE_SECONDS = 2.0

_WORDS = {
    libvirt.VIR_DOMAIN_EVENT_DEFINED: "defined",
    libvirt.VIR_DOMAIN_EVENT_UNDEFINED: "undefined",
    libvirt.VIR_DOMAIN_EVENT_STARTED: "started",
    libvirt.VIR_DOMAIN_EVENT_SUSPENDED: "paused",
    libvirt.VIR_DOMAIN_EVENT_RESUMED: "resumed",
    libvirt.VIR_DOMAIN_EVENT_STOPPED: "stopped",
    libvirt.VIR_DOMAIN_EVENT_SHUTDOWN: "shutting down",
    libvirt.VIR_DOMAIN_EVENT_PMSUSPENDED: "suspended",
    libvirt.VIR_DOMAIN_EVENT_CRASHED: "crashed",
}
_CHANGES = {
    libvirt.VIR_DOMAIN_EVENT_ID_REBOOT: "rebooted",
    libvirt.VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE: "agent",
    libvirt.VIR_DOMAIN_EVENT_ID_METADATA_CHANGE: "metadata",
    libvirt.VIR_DOMAIN_EVENT_ID_IO_ERROR_REASON: "I/O error",
    libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_ADDED: "device added",
    libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED: "device removed",
    libvirt.VIR_DOMAIN_EVENT_ID_BALLOON_CHANGE: "memory",
}
"""Besides the lifecycle: everything after which a domain's XML may read differently."""


class LibvirtController:
    """See Controller; made by `reconciler.adapters.libvirt.create`."""

    name = "libvirt"

    def __init__(self, context: ControllerContext) -> None:
        """Raises InvalidInput for wrong options."""
        parsed = options.parse(context.options)
        processes = Processes()
        files = Files(root=context.state_dir / "libvirt")
        self._hints = Hints()
        self._ends = Ends()
        self._boots = Boots()
        self._cache = DetailsCache(processes)
        self._link = Link(parsed, watch=self._watch, changed=self._connection_changed)
        self._host = LibvirtHost(self._link, parsed, context.state_dir / "libvirt")
        self.lifecycle: ResourceController = MigratingLifecycle(
            node=context.node,
            migration=parsed.migration.reached_at(context.address),
            link=self._link,
            options=parsed,
            files=files,
            reader=Reader(cache=self._cache, processes=processes),
            cache=self._cache,
            processes=processes,
            outstanding=Outstanding(),
            hints=self._hints,
            ends=self._ends,
            profile=self._host.profile,
        )
        self.guest: Guest | None = LibvirtGuest(link=self._link, boots=self._boots)
        self.console: Console | None = LibvirtConsole(link=self._link, files=files)
        self.host: Host | None = self._host

    async def open(self) -> None:
        """See Controller. Returns after five seconds at most; connecting goes on."""
        self._hints.attach(asyncio.get_running_loop())
        await self._link.open(patience=_OPEN_SECONDS)
        self._host.begin()

    async def close(self) -> None:
        """See Controller."""
        await self._link.close(patience=_CLOSE_SECONDS)
        await self._host.close()

    async def keep_key(self, key: GuestKey, *, timeout: float) -> None:
        """See KeyKeeper."""
        await self._link.run(
            lambda connection, ticket: secrets.put(connection, ticket, key),
            timeout=timeout,
            what=f"give libvirt the key '{key.usage}'",
        )

    def _watch(self, connection: libvirt.virConnect) -> list[int]:
        watched = [
            connection.domainEventRegisterAny(
                None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._on_lifecycle, None
            )
        ]
        for event, what in _CHANGES.items():
            watched.append(connection.domainEventRegisterAny(None, event, self._on_change, what))
        return watched

    def _on_lifecycle(
        self, _connection: libvirt.virConnect, domain: libvirt.virDomain, event: int, detail: int, _: object
    ) -> None:
        uuid = domain.UUIDString()
        self._cache.forget(uuid)
        if event == libvirt.VIR_DOMAIN_EVENT_STARTED:
            self._ends.started(uuid)
        elif event == libvirt.VIR_DOMAIN_EVENT_STOPPED:
            self._ends.ended(uuid, endings.from_event(detail))
            self._boots.ended(uuid)
        self._hints.publish(ControllerEvent(name=domain.name(), what=_WORDS.get(event, "changed")))

    def _on_change(self, _connection: libvirt.virConnect, domain: libvirt.virDomain, *rest: Any) -> None:
        # Each kind of event has arguments of its own; what we gave at registration comes last.
        self._cache.forget(domain.UUIDString())
        if rest[-1] == _CHANGES[libvirt.VIR_DOMAIN_EVENT_ID_REBOOT]:
            self._boots.rebooted(domain.UUIDString())
        self._hints.publish(ControllerEvent(name=domain.name(), what=str(rest[-1])))

    def _connection_changed(self, connected: bool) -> None:
        self._cache.forget()
        if connected:
            self._boots.reconnected()
            self._hints.publish(ControllerEvent(what="connected"))
        else:
            self._ends.forget_running()
