"""A daemon that is started while its host is fenced, in the boot that was fenced: it cannot read the store,
and says on the mesh that nothing of the cluster is left here, so that the master lets it in.

Invariants (SAFETY rules 7, 9, 15): a guest is ended only while the whole host is on the blocklist for years,
which nothing but a fence does, and only one with this cluster's and this node's marks; `empty` is said only
when every controller has answered that it has none, and no process of QEMU is on this host.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial

from reconciler.loops.supervisor import Life
from reconciler.planning.homecoming import LastRun
from reconciler.planning.liveness import mesh_peers
from reconciler.ports.controller import Controller
from reconciler.ports.transport import Endpoint, Message, Topic, Transport
from reconciler.resources.codec import encode
from reconciler.resources.errors import ControllerUnavailable, FenceFailed, VclError
from reconciler.resources.membership import Heartbeat, NodeHealth

log = logging.getLogger(__name__)

LOOK = 2.0
WITHIN = 10.0
"""Seconds for a controller to answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LobbyContext:
    """`last`: what this host's last run left. `fenced()`: whether the blocklist has the whole host, for
    years; raises FenceFailed when that cannot be told. `guests()`: whether a process of QEMU is here, None:
    unknown. `beat`: seconds between heartbeats; `number`: of the first one, above any that was ever sent."""

    node: str
    boot_id: str
    version: str
    last: LastRun
    transport: Transport
    controllers: Mapping[str, Controller]
    fenced: Callable[[], Awaitable[bool]]
    guests: Callable[[], bool | None]
    beat: float
    number: int


class Lobby:
    """`loops` are to run until the store opens; the controllers are open meanwhile."""

    def __init__(self, context: LobbyContext) -> None:
        self.empty = False
        self._context = context
        self._number = context.number

    def loops(self) -> Mapping[str, Life]:
        """What is to run, by name."""
        found: dict[str, Life] = {"mesh": self._context.transport.run, "beat": self._beat, "look": self._look}
        for name, controller in self._context.controllers.items():
            found[f"controller {name}"] = partial(_hold_open, controller)
        return found

    async def step(self) -> None:
        """One look at this host: end what is the cluster's, and see whether anything is left."""
        try:
            self.empty = await self._context.fenced() and await self._nothing_left()
        except (ControllerUnavailable, FenceFailed) as error:
            self.empty = False
            log.info("lobby: not known to be empty: %s", error)

    def beat(self) -> None:
        """One heartbeat to every node that the last run knew."""
        context = self._context
        peers = {
            name: Endpoint(address=context.last.members[name].address, port=context.last.members[name].port)
            for name in mesh_peers(context.node, context.last.members)
        }
        context.transport.connect(peers)
        self._number += 1
        message = Message(topic=Topic.HEARTBEAT, body=encode(self._heartbeat()))
        for name in peers:
            context.transport.send(name, message)

    async def _nothing_left(self) -> bool:
        context, found = self._context, False
        for controller in context.controllers.values():
            for domain in await controller.lifecycle.inventory(timeout=WITHIN):
                if domain.cluster_uid != context.last.cluster_uid or not domain.uid:
                    continue
                found = True
                if domain.node != context.node:
                    continue
                log.warning("this host was fenced: ending %s", domain.name)
                try:
                    await controller.lifecycle.destroy(domain.name, uid=domain.uid, timeout=WITHIN)
                except VclError as error:
                    log.warning("lobby: %s: %s", domain.name, error)
        if not found and context.guests() is not False:
            log.info("lobby: a process of QEMU is left on this host, or that cannot be told")
            return False
        return not found

    def _heartbeat(self) -> Heartbeat:
        """In the name of the last session: the store knows whether a fence has ended that one."""
        context = self._context
        return Heartbeat(
            node=context.node,
            session=context.last.session,
            boot_id=context.boot_id,
            sequence=self._number,
            version=context.version,
            reason="this host was fenced: it waits to be let in",
            empty=self.empty,
            health=NodeHealth(store=False, problems=("this host was fenced: it waits to be let in",)),
        )

    async def _beat(self) -> None:
        while True:
            self.beat()
            await asyncio.sleep(self._context.beat)

    async def _look(self) -> None:
        while True:
            await self.step()
            await asyncio.sleep(LOOK)


async def _hold_open(controller: Controller) -> None:
    await controller.open()
    await asyncio.Event().wait()
