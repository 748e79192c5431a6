"""The twin of Ceph's OSDs: who is up, as the monitors' map says, and what they were told."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from reconciler.resources.errors import FenceFailed


@dataclass(slots=True)
class SimOsdMap:
    """One Ceph cluster's. `where`: the address of each OSD; `up`: those that the map shows up; `dead`: those
    that can serve nobody any more; `log`: what the monitors took; `hang`: they answer nobody."""

    where: dict[int, str]
    up: set[int] = field(default_factory=set)
    dead: set[int] = field(default_factory=set)
    log: list[str] = field(default_factory=list)
    hang: bool = False

    def __post_init__(self) -> None:
        self.up.update(self.where)


class SimOsds:
    """One node's way to it; `delay`: seconds that the monitors need."""

    def __init__(self, map: SimOsdMap, *, delay: float = 0.1) -> None:
        self._map = map
        self._delay = delay

    async def locate(self, *, timeout: float) -> Mapping[int, frozenset[str]]:
        """See Osds."""
        await self._answer(timeout)
        return {osd: frozenset({at}) for osd, at in self._map.where.items() if osd in self._map.up}

    async def mark_down(self, osds: Sequence[int], *, dead: bool, timeout: float) -> None:
        """See Osds."""
        await self._answer(timeout)
        self._map.log.append(f"{'dead' if dead else 'down'} {' '.join(map(str, osds))}")
        self._map.up.difference_update(osds)
        if dead:
            self._map.dead.update(osds)

    async def close(self) -> None:
        """See Osds."""

    async def _answer(self, timeout: float) -> None:
        if self._map.hang:
            await asyncio.sleep(timeout)
            raise FenceFailed("Ceph's monitors did not answer")
        await asyncio.sleep(self._delay)
