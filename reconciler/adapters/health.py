"""This host's load and the room in its state directory, measured now and then on a thread of its own: a disk
that hangs must not hang the heartbeats."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from reconciler.adapters.blocking import Workers
from reconciler.adapters.host import cpus
from reconciler.resources.membership import NodeHealth
from reconciler.resources.quantity import human_bytes

INTERVAL = 5.0
TIMEOUT = 2.0
FULL = 20
"""One part in so many: less free space than this is a problem."""
BUSY = 8.0
"""A load by cores at which heartbeats may be late."""


class HealthProbe:
    """`run` for ever; `health` is the last finding."""

    def __init__(self, directory: Path) -> None:
        self.health = NodeHealth()
        self._directory = directory
        self._workers = Workers("vcl-health")

    async def run(self) -> None:
        """Measure every few seconds."""
        try:
            while True:
                await self.step()
                await asyncio.sleep(INTERVAL)
        finally:
            self._workers.close()

    async def step(self) -> None:
        """Measure once."""
        load = os.getloadavg()[0] / cpus()
        problems = [f"its load is {load:.0f} for each core"] if load > BUSY else []
        free = 0
        try:
            room = await self._workers.call(lambda: os.statvfs(self._directory), timeout=TIMEOUT)
            free = room.f_bavail * room.f_frsize
            if free < room.f_blocks * room.f_frsize // FULL:
                problems.append(f"only {human_bytes(free)} are free in {self._directory}")
        except OSError as error:
            problems.append(f"{self._directory} cannot be looked at: {error.strerror}")
        except TimeoutError:
            problems.append(f"{self._directory} does not answer")
        self.health = NodeHealth(load=load, disk_free=free, problems=tuple(problems))
