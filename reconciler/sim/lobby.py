"""A simulated daemon before its store opens, on a host that was fenced: the very lobby of the daemon.

Invariant: as in the daemon, it is there only while the blocklist has the whole host.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from reconciler.loops.lobby import Lobby, LobbyContext
from reconciler.loops.supervisor import Supervisor
from reconciler.planning.homecoming import LastRun
from reconciler.ports.controller import Controller
from reconciler.resources.errors import FenceFailed
from reconciler.sim.site_ceph import SiteCeph
from reconciler.sim.world import NodePorts

LOOK = 5.0
FIRST = 10**9
"""Above every number of a heartbeat that a run sends."""


@contextlib.asynccontextmanager
async def waiting_for_the_fence(
    site: SiteCeph, ports: NodePorts, controller: Controller, last: LastRun, beat: float
) -> AsyncIterator[None]:
    """Be in the lobby as soon as it is seen that this host is fenced, until the end of the block. `last`:
    what the last run left; `beat`: seconds between heartbeats."""
    waiting = asyncio.create_task(_wait(site, ports, controller, last, beat))
    try:
        yield
    finally:
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


async def _wait(site: SiteCeph, ports: NodePorts, controller: Controller, last: LastRun, beat: float) -> None:
    async def fenced() -> bool:
        if not site.reaches(ports.name) or site.blocklist.hang:
            raise FenceFailed("the monitors did not answer")
        return site.shuts_out(ports.name)

    while True:
        await asyncio.sleep(LOOK)
        with contextlib.suppress(FenceFailed):
            if await fenced():
                break
    ports.log("this host is fenced: waiting to be let in")
    lobby = Lobby(
        LobbyContext(
            node=ports.name,
            boot_id=ports.boot_id,
            version="sim",
            last=last,
            transport=ports.transport,
            controllers={controller.name: controller},
            fenced=fenced,
            guests=lambda: bool(site.living(ports.name)),
            beat=beat,
            number=FIRST + int(site.world.now * 1000),
        )
    )
    supervisor = Supervisor(ports.clock, ports.ids)
    supervisor.start(lobby.loops())
    try:
        await asyncio.Event().wait()
    finally:
        await supervisor.stop()
