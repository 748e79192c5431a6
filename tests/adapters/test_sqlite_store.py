"""SqliteStore keeps the contract of the Store port."""

from __future__ import annotations

from pathlib import Path

from reconciler.adapters.sqlite_store import SqliteStore
from reconciler.testing.store_contract import StoreContract


class TestSqliteStore(StoreContract):
    async def open(self, directory: Path, *, log_size: int = 10_000) -> SqliteStore:
        return await SqliteStore.open(directory / "vcl" / "store.db", log_size=log_size)
