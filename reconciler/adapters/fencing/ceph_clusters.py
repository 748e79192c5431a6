"""A blocklist fencer for each Ceph cluster that the store or a pool is on, connected ahead of need.

A monitor that has just died makes connecting slow, and a fencing is the time when one has: so the connection
is there before. Invariant: one fencer for each fsid, whichever configuration file or user led to it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from reconciler.adapters.fencing.ceph_blocklist import CephBlocklistFencer
from reconciler.resources.errors import FenceFailed

log = logging.getLogger(__name__)

LOOK = 0.5
RETRY = 3.0
ID = "ceph-blocklist"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Way:
    """How a Ceph cluster is reached, and as whom."""

    conf: str
    user: str


class CephClusters:
    """`store`: the way to the store's, None when it is elsewhere; `pools()`: that of each pool on Ceph."""

    def __init__(self, store: Way | None, pools: Callable[[], Mapping[str, Way]]) -> None:
        self._store = store
        self._wanted = pools
        self._open: dict[Way, CephBlocklistFencer] = {}
        self._opening: dict[Way, asyncio.Task[None]] = {}
        self._told: dict[Way, str] = {}

    async def run(self) -> None:
        """Connect to whatever a pool needs, for ever; what was connected stays so."""
        try:
            while True:
                for way in sorted({*self._wanted().values(), *([self._store] if self._store else [])}):
                    if way not in self._open and way not in self._opening:
                        self._opening[way] = asyncio.create_task(self._connect(way))
                await asyncio.sleep(LOOK)
        finally:
            for task in self._opening.values():
                task.cancel()
            await asyncio.gather(*self._opening.values(), return_exceptions=True)
            self._opening.clear()

    def fencers(self) -> tuple[CephBlocklistFencer, ...]:
        """Those that are connected, one for each cluster."""
        found: dict[str, CephBlocklistFencer] = {}
        for way in sorted(self._open, key=lambda way: (way != self._store, way)):
            found.setdefault(self._open[way].fsid, self._open[way])
        return tuple(found.values())

    def of_store(self) -> CephBlocklistFencer | None:
        """The store's, once it is connected."""
        return self._open.get(self._store) if self._store is not None else None

    def pools(self) -> dict[str, str]:
        """The fsid of each pool on Ceph, as far as known."""
        return {
            name: self._open[way].fsid for name, way in sorted(self._wanted().items()) if way in self._open
        }

    @property
    def addresses(self) -> tuple[str, ...]:
        """The fencers' own clients of Ceph, all so far."""
        return tuple(address for fencer in self._open.values() for address in fencer.addresses)

    async def close(self) -> None:
        """Disconnect."""
        for fencer in self._open.values():
            await fencer.close()
        self._open.clear()

    async def _connect(self, way: Way) -> None:
        while True:
            try:
                fencer = await CephBlocklistFencer.open(way.conf, way.user)
                break
            except FenceFailed as error:
                if self._told.get(way) != str(error):
                    log.warning("fencing by client.%s of %s: %s; trying again", way.user, way.conf, error)
                self._told[way] = str(error)
                await asyncio.sleep(RETRY)
        if way != self._store:
            fencer.id = f"{ID} {fencer.fsid}"
        self._open[way] = fencer
        del self._opening[way]
