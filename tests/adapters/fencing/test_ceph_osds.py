"""Telling a real Ceph that OSDs are down, with the rights that vcl has; a living one comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from reconciler.adapters.fencing.ceph_osds import CephOsds
from reconciler.ports.osds import Osds
from reconciler.testing.osds_contract import OsdsContract

pytestmark = pytest.mark.ceph


class TestCephOsds(OsdsContract):
    @pytest.fixture(autouse=True)
    def _cluster(self, private_ceph: Any, tmp_path: Path) -> None:
        self.conf = str(private_ceph.conf)
        self.nowhere = tmp_path / "ceph.conf"
        self.nowhere.write_text("[global]\nmon host = v1:127.0.0.1:1\nauth client required = none\n")

    def ready(self) -> AbstractAsyncContextManager[Osds]:
        return _at(self.conf)

    def broken(self) -> AbstractAsyncContextManager[Osds]:
        return _at(str(self.nowhere))


@asynccontextmanager
async def _at(conf: str) -> AsyncIterator[Osds]:
    osds = CephOsds(conf, "vcl")
    yield osds
    await osds.close()


async def test_a_living_osd_that_is_reported_down_marks_itself_up_again(private_ceph: Any) -> None:
    async with _at(str(private_ceph.conf)) as osds:
        private_ceph.start()  # waits until all of them are up
        assert dict(await osds.locate(timeout=10.0)) == dict.fromkeys(range(3), frozenset({"127.0.0.1"}))
        before = _up_from(private_ceph, 1)
        await osds.mark_down([1], dead=False, timeout=10.0)
        async with asyncio.timeout(30.0):
            while _up_from(private_ceph, 1) == before or private_ceph.up_osds() != (0, 1, 2):
                await asyncio.sleep(0.2)


def _up_from(ceph: Any, osd: int) -> str:
    """The epoch of the map in which it came up."""
    lines = ceph.command("osd", "dump").splitlines()
    line: str = next(line for line in lines if line.startswith(f"osd.{osd} "))
    return line.partition("up_from ")[2].split()[0]
