"""Leases in the store itself keep the contract of the Leases port."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from reconciler.adapters.store_leases import StoreLeases
from reconciler.ports.leases import Leases
from reconciler.sim.clock import SeededIds
from reconciler.sim.store import MemoryCluster, MemoryStore
from reconciler.testing.leases_contract import LeasesContract


class TestStoreLeases(LeasesContract):
    @asynccontextmanager
    async def pair(self) -> AsyncIterator[tuple[Leases, Leases]]:
        cluster, ids = MemoryCluster(), SeededIds()
        yield StoreLeases(MemoryStore(cluster), ids), StoreLeases(MemoryStore(cluster), ids)
