"""The daemon before its store opens, on a host that was fenced: see loops/lobby.py."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator

import reconciler
from reconciler.adapters import host
from reconciler.loops.lobby import Lobby, LobbyContext
from reconciler.loops.supervisor import Supervisor
from reconciler.planning.homecoming import LastRun
from reconciler.planning.timers import load_timers
from reconciler.resources.errors import FenceFailed, VclError
from vcld.config import Config
from vcld.homecoming import Homecoming
from vcld.parts import CLOCK, IDS, build_controllers, host_identity, make_transport

log = logging.getLogger(__name__)

LOOK = 5.0


@contextlib.asynccontextmanager
async def waiting_for_the_fence(config: Config, homecoming: Homecoming) -> AsyncIterator[None]:
    """Be in the lobby as soon as it is seen that this host is fenced, until the end of the block."""
    waiting = asyncio.create_task(_wait(config, homecoming))
    try:
        yield
    finally:
        waiting.cancel()
        for error in await asyncio.gather(waiting, return_exceptions=True):
            if isinstance(error, Exception):
                log.warning("waiting for the end of a fence: %s", error)


async def _wait(config: Config, homecoming: Homecoming) -> None:
    last = homecoming.last()
    if config.mesh is None or last is None or not last.cluster_uid:
        return
    while True:
        if await _fenced(homecoming):
            log.warning(
                "this host is fenced: waiting to be let in, once nothing of the cluster is left on it"
            )
            await _stay(config, homecoming, last)
        await asyncio.sleep(LOOK)


async def _fenced(homecoming: Homecoming) -> bool:
    try:
        return await homecoming.fenced()
    except FenceFailed as error:
        log.info("whether this host is fenced is not known: %s", error)
        return False


async def _stay(config: Config, homecoming: Homecoming, last: LastRun) -> None:
    identity = host_identity(config)
    transport = make_transport(config, identity.node, last.cluster_uid)
    assert transport is not None
    controllers = build_controllers(config, identity.node, last.cluster_uid)
    lobby = Lobby(
        LobbyContext(
            node=identity.node,
            boot_id=identity.boot_id,
            version=reconciler.__version__,
            last=last,
            transport=transport,
            controllers=controllers,
            fenced=homecoming.fenced,
            guests=host.has_guests,
            beat=load_timers(config.timers).mesh_heartbeat,
            number=time.time_ns() // 1_000_000,
        )
    )
    supervisor = Supervisor(CLOCK, IDS)
    supervisor.start(lobby.loops())
    try:
        await asyncio.Event().wait()
    finally:
        await supervisor.stop()
        for controller in controllers.values():
            with contextlib.suppress(VclError, TimeoutError):
                async with asyncio.timeout(5.0):
                    await controller.close()
