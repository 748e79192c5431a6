"""The master writes what it planned, and nothing of a VM that changed after the plan was made."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import replace
from typing import Any

import pytest

from reconciler.loops.cache import StoreCache
from reconciler.loops.master import LARGE, Master, MasterContext
from reconciler.loops.views import Views
from reconciler.loops.writer import Writer
from reconciler.planning.master import MasterPlan, plan_master
from reconciler.resources import keys
from reconciler.resources.domains import HostNetworks
from reconciler.resources.kinds import Kind
from reconciler.resources.records import Binding, Claim, Epoch, ObjectMeta, Source, SpecRecord, dump, load
from reconciler.resources.status import MasterStatus, NodeStatus
from reconciler.resources.transactions import Committed, Put, Txn, TxnResult
from reconciler.sim.clock import SeededIds, VirtualClock
from reconciler.sim.store import MemoryStore

R1 = NodeStatus(uid="u-r1", ready=True, cpu=1, memory=2**30, controllers={"dummy": ""})


class MeddledStore(MemoryStore):
    """Somebody else writes `meddling` just before the key `before` is deleted."""

    def __init__(self) -> None:
        super().__init__()
        self.before = ""
        self.meddling: dict[str, bytes] = {}

    async def txn(self, txn: Txn, *, timeout: float = 2.0) -> TxnResult:
        """See Store.txn."""
        if self.meddling and self.before in txn.deletes:
            puts = tuple(Put(key=key, value=value) for key, value in self.meddling.items())
            self.meddling = {}
            await super().txn(Txn(id="meddled", puts=puts))
        return await super().txn(txn, timeout=timeout)


class Rig:
    def __init__(self) -> None:
        self.store = MeddledStore()
        self.cache = StoreCache(self.store)
        self.writer = Writer(self.store, self.cache, SeededIds())
        self.tasks: list[asyncio.Task[None]] = []
        self.events: list[tuple[str, str]] = []
        self.context = MasterContext(
            node="r1",
            epoch=Epoch(epoch=1, holder="r1"),
            clock=VirtualClock(),
            views=Views(self.cache),
            writer=self.writer,
            event=lambda type, kind, name, reason, message: self.events.append((name, reason)),
        )

    def spawn(self, life: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(asyncio.create_task(life))

    async def put(self, puts: Mapping[str, bytes]) -> None:
        values = tuple(Put(key=key, value=value) for key, value in puts.items())
        result = await self.store.txn(Txn(id=f"{len(values)}-{self.cache.revision}", puts=values))
        assert isinstance(result, Committed)
        await self.cache.wait_for(result.revision)

    async def follow(self) -> None:
        while True:
            await self.cache.step(1.0)

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(30.0):
            while not true():
                await asyncio.sleep(0.01)


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    made = Rig()
    made.spawn(made.follow())
    await made.put({keys.node_status(Kind.NODE, "r1"): dump(R1), keys.EPOCH: b"1"})
    made.writer.guard(keys.EPOCH, made.cache.revision_of(keys.EPOCH))
    yield made
    for task in made.tasks:
        task.cancel()
    await asyncio.gather(*made.tasks, return_exceptions=True)


def vm(name: str, **spec: Any) -> dict[str, bytes]:
    record = SpecRecord(
        kind=Kind.VIRTUAL_MACHINE,
        metadata=ObjectMeta(name=name, uid=f"u-{name}"),
        spec={"cpu": {"cores": 1}, "memory": "1Gi", "controller": "dummy", **spec},
        source=Source(path=f"{name}.yaml", line=1),
    )
    return {keys.spec(Kind.VIRTUAL_MACHINE, name): dump(record)}


def bound(name: str) -> dict[str, bytes]:
    return {keys.binding(name): dump(Binding(node="r1", uid=f"u-{name}", epoch=1, bound=""))}


async def test_what_was_planned_is_written(rig: Rig) -> None:
    rig.spawn(Master(rig.context).run())
    await rig.put(vm("web"))
    await rig.until(lambda: rig.events == [("web", "Placed")])
    item = rig.cache.get(keys.binding("web"))
    assert item is not None
    assert load(Binding, item.value).node == "r1"


async def test_a_binding_whose_vm_was_claimed_after_the_plan_was_made_stays(rig: Rig) -> None:
    halted = {"runStrategy": "Halted"}
    rig.store.before = keys.binding("a")
    rig.store.meddling = {keys.claim("b"): dump(Claim(node="r1", uid="u-b"))}
    rig.spawn(Master(rig.context).run())
    await rig.put(vm("a", **halted) | vm("b", **halted) | bound("a") | bound("b"))
    await rig.until(lambda: rig.cache.get(keys.binding("a")) is None)
    await rig.put(vm("c"))
    await rig.until(lambda: rig.cache.get(keys.master_status(Kind.VIRTUAL_MACHINE, "c")) is not None)
    assert rig.cache.get(keys.binding("b")) is not None


async def test_while_a_large_plan_is_made_the_loop_goes_on(rig: Rig) -> None:
    many: dict[str, bytes] = {}
    for number in range(LARGE):
        many |= vm(f"vm{number}", memory="4Gi")
    went_on = threading.Event()

    def plan(*inputs: Any) -> MasterPlan:
        loop.call_soon_threadsafe(went_on.set)
        assert went_on.wait(30.0)
        return plan_master(*inputs)

    loop = asyncio.get_running_loop()
    await rig.put(many)
    assert len((await Master(replace(rig.context, plan=plan)).step()).not_placed) == LARGE


async def test_a_vm_waits_in_words_until_its_bridge_is_there(rig: Rig) -> None:
    bare = replace(R1, networks={"dummy": HostNetworks(bridges=("br1",))})
    await rig.put({keys.node_status(Kind.NODE, "r1"): dump(bare)})
    rig.spawn(Master(rig.context).run())
    await rig.put(vm("web", interfaces=[{"name": "lan", "bridge": "br0"}]))
    await rig.until(lambda: ("web", "Unschedulable") in rig.events)
    item = rig.cache.get(keys.master_status(Kind.VIRTUAL_MACHINE, "web"))
    assert item is not None
    assert load(MasterStatus, item.value).message == "r1: has no bridge 'br0' (has br1)"
    wired = replace(bare, networks={"dummy": HostNetworks(bridges=("br0", "br1"))})
    await rig.put({keys.node_status(Kind.NODE, "r1"): dump(wired)})
    await rig.until(lambda: ("web", "Placed") in rig.events)
