"""The twin of Ceph's OSDs keeps their contract."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from reconciler.ports.osds import Osds
from reconciler.sim.osds import SimOsdMap, SimOsds
from reconciler.testing.osds_contract import OsdsContract


class TestSimOsds(OsdsContract):
    def ready(self) -> AbstractAsyncContextManager[Osds]:
        return _of(SimOsdMap(where={0: "10.0.0.1"}))

    def broken(self) -> AbstractAsyncContextManager[Osds]:
        return _of(SimOsdMap(where={0: "10.0.0.1"}, hang=True))


@asynccontextmanager
async def _of(map: SimOsdMap) -> AsyncIterator[Osds]:
    osds = SimOsds(map, delay=0.01)
    yield osds
    await osds.close()
