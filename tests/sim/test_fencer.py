"""The twins keep the contract of fencers, and the blocklist behaves as Ceph's does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from reconciler.ports.fencer import Fencer
from reconciler.resources.errors import FenceFailed
from reconciler.resources.fencing import FenceOrder
from reconciler.sim.fencer import ENOUGH, SimBlocklist, SimCephFencer, SimPowerFencer
from reconciler.testing.fencer_contract import CountingGuard, FencerContract

ORDER = FenceOrder(
    id="id",
    node="r3",
    incident="r3-5",
    boot_id="boot-1",
    addresses=("10.0.0.3",),
    clients=("10.0.0.3:0/55",),
)


class TestSimCephFencer(FencerContract):
    def ready(self) -> AbstractAsyncContextManager[tuple[Fencer, FenceOrder]]:
        return _with(SimCephFencer(SimBlocklist(fsid="f")))

    def broken(self) -> AbstractAsyncContextManager[tuple[Fencer, FenceOrder]]:
        return _with(SimCephFencer(SimBlocklist(fsid="f", hang=True)))


class TestSimPowerFencer(FencerContract):
    def ready(self) -> AbstractAsyncContextManager[tuple[Fencer, FenceOrder]]:
        return _with(SimPowerFencer(lambda node: None))

    def broken(self) -> AbstractAsyncContextManager[tuple[Fencer, FenceOrder]]:
        dead = SimPowerFencer(lambda node: None)
        dead.hang = True
        return _with(dead)


@asynccontextmanager
async def _with(fencer: Fencer) -> AsyncIterator[tuple[Fencer, FenceOrder]]:
    yield fencer, ORDER
    await fencer.close()


async def test_adding_an_entry_again_extends_nothing_and_the_fencer_sees_that() -> None:
    blocklist = SimBlocklist(fsid="f")
    blocklist.add("10.0.0.3:0/55", 3600.0)
    blocklist.add("10.0.0.3:0/55", 10 * ENOUGH)
    assert blocklist.until("10.0.0.3:0/55") == 3600.0
    await SimCephFencer(blocklist).fence(ORDER, CountingGuard(), timeout=1.0)
    until = blocklist.until("10.0.0.3:0/55")
    assert until is not None
    assert until > ENOUGH


async def test_a_host_entry_bars_every_client_of_the_host_and_no_other() -> None:
    blocklist = SimBlocklist(fsid="f")
    blocklist.add("10.0.0.3:0/0", 10.0)
    assert blocklist.bars("10.0.0.3:0/1")
    assert not blocklist.bars("10.0.0.4:0/1")


async def test_a_command_that_fails_is_no_proof() -> None:
    blocklist = SimBlocklist(fsid="f", failures=1)
    fencer = SimCephFencer(blocklist)
    with pytest.raises(FenceFailed):
        await fencer.fence(ORDER, CountingGuard(), timeout=1.0)
    await fencer.fence(ORDER, CountingGuard(), timeout=1.0)
