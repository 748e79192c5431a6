"""What a node reports of its host."""

from __future__ import annotations

from reconciler.adapters.clock import SystemClock, SystemIds
from reconciler.ports.controller import Controller
from reconciler.resources.keys import node_status
from reconciler.resources.kinds import Kind
from reconciler.resources.status import NodeStatus
from reconciler.sim.controller import DummyController, DummyOptions
from reconciler.sim.node import SimNode
from reconciler.sim.store import MemoryStore


async def reported(controllers: dict[str, Controller]) -> NodeStatus:
    node = SimNode(MemoryStore(), clock=SystemClock(), ids=SystemIds(), controllers=controllers)
    await node.start()
    key = node_status(Kind.NODE, node.name)
    await node.until(lambda: node.views.record(key, NodeStatus) is not None)
    status = node.views.record(key, NodeStatus)
    await node.kill()
    assert status is not None
    return status


async def test_a_real_hypervisor_s_word_counts_before_the_dummy_s() -> None:
    dummy = DummyController(options=DummyOptions(cpus=256))
    real = DummyController(options=DummyOptions(cpus=8))
    assert (await reported({"dummy": dummy, "libvirt": real})).cpu == 8


async def test_where_there_is_only_the_dummy_its_word_counts() -> None:
    assert (await reported({"dummy": DummyController(options=DummyOptions(cpus=256))})).cpu == 256
