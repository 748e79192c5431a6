"""What a node reports of its host."""

from __future__ import annotations

import pytest

from reconciler.adapters.clock import SystemClock, SystemIds
from reconciler.loops.node_status import near_full
from reconciler.ports.controller import Controller
from reconciler.resources.domains import HostNetworks
from reconciler.resources.images import PoolCapacity
from reconciler.resources.keys import node_status
from reconciler.resources.kinds import Kind
from reconciler.resources.status import ConditionStatus, ConditionType, NodeStatus, PoolStatus
from reconciler.sim.ceph import SimCeph
from reconciler.sim.controller import DummyController, DummyOptions
from reconciler.sim.node import SimNode
from reconciler.sim.rbd import SimRbd
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


async def test_each_controller_tells_what_guests_can_be_connected_to() -> None:
    told = await reported({"dummy": DummyController(options=DummyOptions(bridges=("br0",)))})
    assert told.networks == {"dummy": HostNetworks(bridges=("br0",), unknown=("networks",))}


@pytest.mark.parametrize(
    ("capacity", "reason", "words"),
    [
        (PoolCapacity(total=100, free=50), "HasRoom", ""),
        (PoolCapacity(total=0, free=0), "HasRoom", ""),
        (PoolCapacity(total=100, free=4), "NearFull", "less than 5 % free"),
        (PoolCapacity(total=100, free=50, full="nearfull"), "NearFull", "nearly full (nearfull)"),
        (
            PoolCapacity(total=100, free=0, full="full", refuses=True),
            "Full",
            "nothing can be written",
        ),
    ],
)
def test_a_pool_says_when_it_runs_out_of_room(capacity: PoolCapacity, reason: str, words: str) -> None:
    found = near_full(capacity)
    assert (found.type, found.reason) == (ConditionType.NEAR_FULL, reason)
    assert found.status == (ConditionStatus.TRUE if words else ConditionStatus.FALSE)
    assert words in found.message


async def test_the_condition_of_a_pool_is_reported_with_it() -> None:
    ceph = SimCeph(total=1 << 30)
    node = SimNode(
        MemoryStore(),
        clock=SystemClock(),
        ids=SystemIds(),
        controllers={"dummy": DummyController()},
        backends={"ceph": SimRbd(ceph)},
    )
    await node.start()
    key = node_status(Kind.STORAGE_POOL, "ceph")
    await node.until(lambda: node.views.record(key, PoolStatus) is not None)
    status = node.views.record(key, PoolStatus)
    await node.kill()
    assert status is not None
    assert [(c.type, c.status) for c in status.conditions] == [("NearFull", "False")]
    assert all(condition.last_transition_time for condition in status.conditions)


async def test_a_host_without_any_bridge_says_so() -> None:
    bare = DummyController(options=DummyOptions(bridges=(), networks=()))
    assert (await reported({"dummy": bare})).networks == {"dummy": HostNetworks()}
