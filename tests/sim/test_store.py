"""MemoryStore keeps the contract of the Store port, and its faults do what they say."""

from __future__ import annotations

from pathlib import Path

from reconciler.sim.store import MemoryCluster, MemoryStore
from reconciler.testing.store_contract import StoreContract


class TestMemoryStore(StoreContract):
    def setup_method(self) -> None:
        self.clusters: dict[Path, MemoryCluster] = {}

    async def open(self, directory: Path, *, log_size: int = 10_000) -> MemoryStore:
        cluster = self.clusters.setdefault(directory, MemoryCluster(log_size=log_size))
        return MemoryStore(cluster)
