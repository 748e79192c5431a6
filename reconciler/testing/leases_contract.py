"""What every Leases adapter promises, as tests to inherit: one value per node, the newest one that was
acknowledged."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractAsyncContextManager

import pytest

from reconciler.ports.leases import Leases
from reconciler.resources.errors import StoreUnavailable

TIMEOUT = 10.0


class LeasesContract(ABC):
    """Inherit, and give `pair`: two clients of the same, empty place."""

    @abstractmethod
    def pair(self) -> AbstractAsyncContextManager[tuple[Leases, Leases]]:
        """Two clients; closed at the end."""

    async def test_an_empty_place_has_no_leases(self) -> None:
        async with self.pair() as (one, _):
            assert dict(await one.read(timeout=TIMEOUT)) == {}

    async def test_a_renewal_is_seen_by_all_once_it_is_acknowledged(self) -> None:
        async with self.pair() as (one, other):
            await one.renew("r1", b"1", timeout=TIMEOUT)
            await one.renew("r1", b"2", timeout=TIMEOUT)
            assert dict(await other.read(timeout=TIMEOUT)) == {"r1": b"2"}

    async def test_each_node_has_its_own(self) -> None:
        async with self.pair() as (one, other):
            await one.renew("r1", b"a", timeout=TIMEOUT)
            await other.renew("r2.example", b"b", timeout=TIMEOUT)
            assert dict(await one.read(timeout=TIMEOUT)) == {"r1": b"a", "r2.example": b"b"}

    async def test_after_the_end_nothing_is_answered(self) -> None:
        async with self.pair() as (one, _):
            await one.close()
            with pytest.raises(StoreUnavailable):
                await one.read(timeout=TIMEOUT)
