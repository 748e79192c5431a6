"""What every way to Ceph's OSDs promises, as tests to inherit."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from contextlib import AbstractAsyncContextManager

import pytest

from reconciler.ports.osds import Osds
from reconciler.resources.errors import FenceFailed

TIMEOUT = 20.0


class OsdsContract(ABC):
    """Inherit, and give `ready` and `broken`."""

    @abstractmethod
    def ready(self) -> AbstractAsyncContextManager[Osds]:
        """With OSDs; closed at the end."""

    @abstractmethod
    def broken(self) -> AbstractAsyncContextManager[Osds]:
        """The monitors do not answer."""

    async def test_each_osd_has_an_address(self) -> None:
        async with self.ready() as osds:
            found = await osds.locate(timeout=TIMEOUT)
            assert found
            assert all(found.values())

    async def test_one_is_reported_down_and_again_and_as_dead(self) -> None:
        async with self.ready() as osds:
            first = min(await osds.locate(timeout=TIMEOUT))
            for dead in (False, False, True):
                await osds.mark_down([first], dead=dead, timeout=TIMEOUT)

    async def test_what_hangs_is_a_failure_in_time(self) -> None:
        async with self.broken() as osds, asyncio.timeout(TIMEOUT):
            with pytest.raises(FenceFailed):
                await osds.locate(timeout=0.5)
            with pytest.raises(FenceFailed):
                await osds.mark_down([0], dead=False, timeout=0.5)
