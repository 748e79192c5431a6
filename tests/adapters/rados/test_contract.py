"""RadosStore keeps the contract of the Store port."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler.adapters.rados import Place, RadosStore
from reconciler.testing.store_contract import StoreContract


@pytest.mark.ceph
class TestRadosStore(StoreContract):
    @pytest.fixture(autouse=True)
    def _cluster(self, place_in: Callable[[Path], Place]) -> None:
        self.place_in = place_in

    async def open(self, directory: Path, *, log_size: int = 10_000) -> RadosStore:
        return await RadosStore.open(self.place_in(directory), log_size=log_size)
