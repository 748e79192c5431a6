"""VMs on network images from the agent's side: who may write is recorded before a guest runs, who is left
over is shut out before its claim is emptied, and what somebody else holds is left alone (rules 5 to 8)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from reconciler.adapters.clock import SystemClock, SystemIds
from reconciler.resources import keys
from reconciler.resources.domains import ExitReason
from reconciler.resources.images import RbdName
from reconciler.resources.kinds import Kind
from reconciler.resources.records import Claim, ClaimPhase, Intent, dump
from reconciler.resources.transactions import Put, Txn
from reconciler.sim.ceph import SimCeph, SimClient
from reconciler.sim.controller import DummyController, DummyOptions
from reconciler.sim.disks import SimFiles
from reconciler.sim.killpoints import KillController, Killpoint, KillStore
from reconciler.sim.node import SimNode
from reconciler.sim.rbd import ACCESS, SimRbd
from reconciler.sim.rbd_guests import RbdGuests
from reconciler.sim.store import MemoryStore

SMALL = {"cpu": {"cores": 1}, "memory": "64Mi", "controller": "dummy", "terminationGracePeriodSeconds": 1}
DISK = {"name": "root", "size": "10Mi", "pool": "ceph"}
ROOT = RbdName(pool="vms", image="web.root")
MOST = 60
TEMPLATE = "/firmware/vars.fd"


class World:
    """A Ceph, a hypervisor and a store that outlive the daemons on them."""

    def __init__(self) -> None:
        self.ceph = SimCeph()
        self.dummy = DummyController(options=DummyOptions(nvram_template=TEMPLATE))
        self.files = SimFiles()
        self.files.add(TEMPLATE, size=540672)
        self.guests = RbdGuests(self.dummy, self.ceph)
        self.store = MemoryStore()

    def node(self, point: Killpoint | None = None) -> SimNode:
        point = point or Killpoint()
        controller: Any = KillController(self.guests, point) if point.at else self.guests
        return SimNode(
            KillStore(self.store, point),
            clock=SystemClock(),
            ids=SystemIds(),
            controllers={"dummy": controller},
            backends={"ceph": SimRbd(self.ceph, files=self.files)},
        )

    def qemu(self, name: str = "web") -> SimClient:
        return self.guests.qemus.clients[name][0]


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
async def node(world: World) -> AsyncIterator[SimNode]:
    made = world.node()
    await made.start()
    yield made
    await made.kill()


async def run(node: SimNode, name: str = "web", **changes: Any) -> None:
    await node.apply(name, {**SMALL, "disks": [{**DISK, **changes}]})
    await node.until(lambda: node.phase(name) == "Running")


def claim(node: SimNode, name: str = "web") -> Claim:
    found = node.views.claim(name)
    assert found is not None
    return found


async def refused(node: SimNode, name: str = "web") -> str:
    await node.until(
        lambda: (found := node.status(name)) is not None and found.failures.reason == "ImageInUse"
    )
    found = node.status(name)
    assert found is not None
    assert found.conditions
    return found.failures.message


async def test_a_guest_runs_only_after_its_client_is_in_the_claim(world: World, node: SimNode) -> None:
    await run(node)
    client = world.qemu().address
    assert client in claim(node).clients
    assert claim(node).phase is ClaimPhase.RUNNING
    assert [write.client for write in world.ceph.writes] == [client]
    assert ACCESS.secret in world.guests.keys


async def test_a_guest_that_ends_in_order_leaves_a_claim_without_a_fence(world: World, node: SimNode) -> None:
    await run(node)
    client = world.qemu().address
    await node.intend("web", Intent(run="Stop"))
    await node.until(lambda: node.phase("web") == "Stopped")
    assert claim(node).former_clients == (client,)
    assert world.ceph.blocklist == {}
    await node.intend("web", Intent(run="Start", start="1"))
    await node.until(lambda: node.phase("web") == "Running")
    assert claim(node).former_clients == ()


async def test_a_killed_qemu_is_shut_out_before_another_one_starts(world: World, node: SimNode) -> None:
    await run(node)
    dead = world.qemu()
    world.dummy.hypervisor.end("web", ExitReason.CRASHED)
    await node.until(lambda: "web" in world.guests.qemus.clients and world.qemu() is not dead)
    await node.until(lambda: node.phase("web") == "Running")
    assert world.ceph.blocked(dead.address)
    assert world.ceph.find(ROOT).lock == world.qemu().address
    assert dead.address not in claim(node).clients
    assert any(event[1] == "CuttingOff" for event in node.events)


async def test_a_claim_is_not_emptied_while_the_storage_does_not_answer(world: World, node: SimNode) -> None:
    await run(node)
    dead = world.qemu()
    world.ceph.available = False
    world.dummy.hypervisor.end("web", ExitReason.CRASHED)
    await node.until(lambda: node.phase("web") == "Unknown")
    assert claim(node).node == "r1"
    assert claim(node).clients
    world.ceph.available = True
    await node.until(lambda: node.phase("web") == "Running")
    assert world.ceph.blocked(dead.address)


async def test_an_image_that_a_stranger_holds_is_not_started_on(world: World, node: SimNode) -> None:
    await run(node)
    await node.intend("web", Intent(run="Stop"))
    await node.until(lambda: node.phase("web") == "Stopped")
    stranger = world.ceph.client("10.77.0.9")
    stranger.open(ROOT)
    await node.intend("web", Intent(run="Start", start="1"))
    said = await refused(node)
    assert stranger.address in said
    assert "not a client that vcl knows" in said
    assert not world.ceph.blocked(stranger.address)
    assert list(world.dummy.hypervisor.alive()) == []
    stranger.close()
    await node.until(lambda: node.phase("web") == "Running")


async def test_who_opens_an_image_while_its_guest_is_made_keeps_it_from_running(
    world: World, node: SimNode
) -> None:
    stranger = world.ceph.client("10.77.0.9")
    world.guests.qemus.intruders.append(stranger)
    await node.apply("web", {**SMALL, "disks": [DISK]})
    assert stranger.address in await refused(node)
    assert world.ceph.writes == []
    assert list(world.dummy.hypervisor.alive()) == []
    stranger.close()
    await node.until(lambda: node.phase("web") == "Running")


async def test_a_client_of_another_vm_is_told_by_its_vm_and_node(world: World, node: SimNode) -> None:
    """A claim of another node that does not hold the image's key, as one of an older store would."""
    await run(node)
    await node.intend("web", Intent(run="Stop"))
    await node.until(lambda: node.phase("web") == "Stopped")
    other = world.ceph.client("10.77.0.2")
    other.open(ROOT)
    record = dump(Claim(node="r2", uid="u", phase=ClaimPhase.RUNNING, clients=(other.address,)))
    txn = Txn(id="t", puts=(Put(key=keys.claim("other"), value=record),))
    await world.store.txn(txn, timeout=1.0)
    await node.intend("web", Intent(run="Start", start="1"))
    assert f"{other.address}, VM other on node r2" in await refused(node)


async def test_a_former_client_that_comes_back_to_life_is_shut_out_at_the_next_start(
    world: World, node: SimNode
) -> None:
    await run(node)
    former = world.qemu()
    await node.intend("web", Intent(run="Stop"))
    await node.until(lambda: node.phase("web") == "Stopped")
    former.open(ROOT)
    await node.intend("web", Intent(run="Start", start="1"))
    await node.until(lambda: node.phase("web") == "Running")
    assert world.ceph.blocked(former.address)


async def test_a_restarted_daemon_finds_the_clients_in_the_claim(world: World) -> None:
    first = world.node()
    await first.start()
    await run(first)
    before = claim(first)
    await first.kill()
    second = world.node()
    await second.start()
    await second.until(lambda: second.phase("web") == "Running")
    assert claim(second) == before
    world.dummy.hypervisor.end("web", ExitReason.CRASHED)
    await second.until(lambda: world.ceph.blocked(before.clients[-1]))
    await second.kill()


async def test_a_disk_from_an_image_is_a_clone_in_the_same_pool(world: World, node: SimNode) -> None:
    await run(node, "golden")
    await node.delete("golden")
    await node.until(lambda: not node.views.exists(keys.spec(Kind.VIRTUAL_MACHINE, "golden")))
    await node.apply("tpl", {"pool": "ceph", "image": "golden.root"}, Kind.IMAGE)
    await node.apply("web", {**SMALL, "disks": [{**DISK, "source": {"image": "tpl"}}]})
    await node.until(lambda: node.phase("web") == "Running")
    assert world.ceph.find(ROOT).parent == "rbd:vms/golden.root"


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_killed_at_each_step_of_a_start_it_never_lets_an_unrecorded_client_write(after: bool) -> None:
    for step in range(1, MOST):
        world = World()
        point = Killpoint(at=10**6, after=after)
        node = world.node(point)
        await node.start()
        point.at = point.count + step
        outside = SimNode(world.store, clock=SystemClock(), ids=SystemIds(), controllers={})
        outside.views, outside.cache = node.views, node.cache
        await outside.apply("web", {**SMALL, "disks": [DISK]})
        await node.until(
            lambda node=node, point=point: point.reached.is_set() or node.phase("web") == "Running"
        )
        killed = point.reached.is_set()
        await node.kill()
        second = world.node()
        await second.start()
        await second.until(lambda second=second: second.phase("web") == "Running")
        assert len(list(world.dummy.hypervisor.alive())) == 1
        assert world.qemu().address in claim(second).clients
        assert {write.client for write in world.ceph.writes[-1:]} == {world.qemu().address}
        await second.kill()
        if not killed:
            return
    raise AssertionError("the start never came to its end")


async def test_uefi_variables_are_an_image_in_the_pool_and_are_never_made_twice(
    world: World, node: SimNode
) -> None:
    await node.apply("web", {**SMALL, "firmware": "uefi", "disks": [DISK]})
    await node.until(lambda: node.phase("web") == "Running")
    variables = world.ceph.find(RbdName(pool="vms", image="web.nvram"))
    assert variables.size == 540672
    assert sum(key.endswith(f"/{variables.id}") for key in claim(node).disks) == 1
    assert variables.watchers

    await node.intend("web", Intent(run="Stop"))
    await node.until(lambda: node.phase("web") == "Stopped")
    world.ceph.images.pop(RbdName(pool="vms", image="web.nvram"))
    await node.intend("web", Intent(run="Start", start="1"))
    await node.until(
        lambda: (found := node.status("web")) is not None and found.failures.reason == "ImageMissing"
    )
