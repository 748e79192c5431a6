"""The daemon is killed at every store transaction and every hypervisor call of a start and of a stop, before
and after it took effect. The next daemon always finishes, with one copy at most at any time."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from reconciler.adapters.clock import SystemClock, SystemIds
from reconciler.adapters.sqlite_store import SqliteStore
from reconciler.ports.controller import ControllerContext
from reconciler.resources import keys
from reconciler.resources.domains import Observed
from reconciler.resources.kinds import Kind
from reconciler.resources.records import ClaimPhase, Intent
from reconciler.sim.controller import create
from reconciler.sim.killpoints import KillController, Killpoint, KillStore
from reconciler.sim.node import SimNode

SPEC = {
    "cpu": {"cores": 1},
    "memory": "64Mi",
    "controller": "dummy",
    "terminationGracePeriodSeconds": 2,
}
MOST = 40
"""More steps than a start or stop has; the test fails if they are not all reached."""


class Rig:
    """A store and a hypervisor that outlive the daemons which are killed on them."""

    def __init__(self, store: SqliteStore, state: Path) -> None:
        context = ControllerContext(node="r1", cluster_uid="", state_dir=state, run_dir=state)
        self.hypervisor = create(context)
        self.store = store

    def node(self, point: Killpoint) -> SimNode:
        return SimNode(
            KillStore(self.store, point),
            clock=SystemClock(),
            ids=SystemIds(),
            controllers={"dummy": KillController(self.hypervisor, point)},
        )

    async def copies(self) -> list[Observed]:
        return list(await self.hypervisor.lifecycle.inventory(timeout=1.0))


async def _run_until_killed(node: SimNode, point: Killpoint, done: object) -> bool:
    """True when the killpoint was reached before `done()` held."""
    assert callable(done)
    async with asyncio.timeout(20.0):
        while not point.reached.is_set() and not done():
            await asyncio.sleep(0.005)
    return point.reached.is_set()


async def _settled(node: SimNode) -> None:
    """Started, and done with what it writes at its start: every later step is one of the VM's."""
    await node.start()
    await node.until(lambda: node.views.exists(keys.node_status(Kind.NODE, node.name)))
    await asyncio.sleep(0.05)


async def _check_owner(rig: Rig, node: SimNode) -> None:
    """Whoever exists is owned, and whoever runs has its clients in the claim."""
    found = (await rig.store.get([keys.claim("web")])).get(keys.claim("web"))
    copies = await rig.copies()
    assert len(copies) <= 1
    if copies:
        assert found is not None
        node.cache._take(found.key, found.value, found.revision)
        claim = node.views.claim("web")
        assert claim is not None
        assert claim.node == "r1"
        if copies[0].phase == "Running":
            assert claim.phase is ClaimPhase.RUNNING
            assert set(copies[0].clients) <= set(claim.clients)


@pytest.mark.slow
@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_killed_at_each_step_of_a_start(tmp_path: Path, after: bool) -> None:
    finished = False
    reached: list[str] = []
    for step in range(1, MOST):
        store = await SqliteStore.open(tmp_path / f"store{step}.db")
        rig = Rig(store, tmp_path / f"state{step}")
        calm = rig.node(Killpoint())
        await calm.start()
        point = Killpoint(at=0, after=after)
        await calm.kill()
        node = rig.node(point)
        await _settled(node)
        point.at = point.count + step
        await rig_apply(rig, node)
        killed = await _run_until_killed(node, point, lambda node=node: node.phase("web") == "Running")
        await node.kill()
        reached.append(point.what)
        await _check_owner(rig, node)
        if killed:
            second = rig.node(Killpoint())
            await second.start()
            await second.until(lambda second=second: second.phase("web") == "Running")
            await _check_owner(rig, second)
            assert len(await rig.copies()) == 1
            await second.kill()
        await store.close()
        if not killed:
            finished = True
            break
    assert finished
    assert any(what.startswith("create") for what in reached)
    assert any(what.startswith("resume") for what in reached)
    assert any(what.startswith("txn claim/web") for what in reached)


async def rig_apply(rig: Rig, node: SimNode) -> None:
    """Put the VM's spec without going through the killpoint."""
    direct = SimNode(rig.store, clock=SystemClock(), ids=SystemIds(), controllers={})
    direct.views, direct.cache = node.views, node.cache
    await direct.apply("web", SPEC)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_killed_at_each_step_of_a_stop(tmp_path: Path, after: bool) -> None:
    finished = False
    reached: list[str] = []
    for step in range(1, MOST):
        store = await SqliteStore.open(tmp_path / f"store{step}.db")
        rig = Rig(store, tmp_path / f"state{step}")
        point = Killpoint(after=after)
        node = rig.node(point)
        await _settled(node)
        await rig_apply(rig, node)
        await node.until(lambda node=node: node.phase("web") == "Running")
        point.at = point.count + step
        direct = SimNode(rig.store, clock=SystemClock(), ids=SystemIds(), controllers={})
        await direct.intend("web", Intent(run="Stop"))
        killed = await _run_until_killed(node, point, lambda node=node: node.phase("web") == "Stopped")
        await node.kill()
        reached.append(point.what)
        await _check_owner(rig, node)
        if killed:
            second = rig.node(Killpoint())
            await second.start()
            await second.until(lambda second=second: second.phase("web") == "Stopped")
            assert await rig.copies() == []
            claim = second.views.claim("web")
            assert claim is not None
            assert claim.node == ""
            assert second.cache.prefix(keys.DISKS) == []
            await second.kill()
        await store.close()
        if not killed:
            finished = True
            break
    assert finished
    assert any(what.startswith("shutdown") for what in reached)
    assert any(what.startswith("txn claim/web") for what in reached)
