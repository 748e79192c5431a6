"""RadosLeases keep the contract of the Leases port, and say so when Ceph does not answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from reconciler.adapters.rados import Place, RadosStore
from reconciler.ports.leases import Leases
from reconciler.resources.errors import StoreUnavailable
from reconciler.testing.leases_contract import LeasesContract

pytestmark = pytest.mark.ceph


@asynccontextmanager
async def leases_at(place: Place) -> AsyncIterator[Leases]:
    store = await RadosStore.open(place)
    leases = store.leases()
    try:
        yield leases
    finally:
        await leases.close()
        await store.close()


class TestRadosLeases(LeasesContract):
    @pytest.fixture(autouse=True)
    def _place(self, place: Place) -> None:
        self.place = place

    @asynccontextmanager
    async def pair(self) -> AsyncIterator[tuple[Leases, Leases]]:
        async with leases_at(self.place) as one, leases_at(self.place) as other:
            yield one, other


async def test_a_ceph_that_does_not_answer_is_said_within_the_deadline_and_waited_for(
    ceph: Any, place: Place
) -> None:
    async with leases_at(place) as leases:
        await leases.renew("r1", b"1", timeout=10.0)
        ceph.freeze(0, 1, 2)
        with pytest.raises(StoreUnavailable):
            await leases.renew("r1", b"2", timeout=0.5)
        with pytest.raises(StoreUnavailable):
            await leases.read(timeout=0.5)
        ceph.thaw(0, 1, 2)
        await leases.renew("r1", b"3", timeout=30.0)
        assert (await leases.read(timeout=30.0))["r1"] == b"3"
