"""A changed spec comes to the running guest: a disk is claimed before the domain has it, and until nobody has
it open; whatever is in the way is told, and never a failure of the VM (SAFETY rules 5, 6 and 17)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from reconciler.adapters.clock import SystemClock, SystemIds
from reconciler.ports.store import Store
from reconciler.resources import keys
from reconciler.resources.domains import ExitReason
from reconciler.resources.errors import StoreUnavailable
from reconciler.resources.images import Blank, RbdName
from reconciler.resources.records import Claim, Intent, Pin
from reconciler.resources.status import ConditionType, VmNodeStatus
from reconciler.resources.transactions import Txn, TxnResult
from reconciler.sim.ceph import SimCeph
from reconciler.sim.controller import DummyController, DummyOptions
from reconciler.sim.disks import SimFiles
from reconciler.sim.dummy_guests import Faults, Guest, GuestFaults
from reconciler.sim.killpoints import KillController, Killpoint, KillStore
from reconciler.sim.node import SimNode
from reconciler.sim.rbd import SimRbd
from reconciler.sim.rbd_guests import RbdGuests
from reconciler.sim.store import MemoryStore

SMALL = {
    "cpu": {"cores": 1, "maxCores": 4},
    "memory": "64Mi",
    "maxMemory": "512Mi",
    "controller": "dummy",
    "terminationGracePeriodSeconds": 1,
    "interfaces": [{"name": "lan", "bridge": "br0"}],
}
ROOT = {"name": "root", "size": "10Mi", "pool": "ceph"}
DATA = {"name": "data", "size": "20Mi", "pool": "ceph"}
IMAGE = RbdName(pool="vms", image="web.data")
MOST = 60


class World:
    """A Ceph, a hypervisor and a store that outlive the daemons on them."""

    def __init__(self) -> None:
        self.ceph = SimCeph()
        self.dummy = DummyController(options=DummyOptions(memory=8 << 30))
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
            backends={"ceph": SimRbd(self.ceph, files=SimFiles())},
        )

    @property
    def guest(self) -> Guest:
        found = self.dummy.hypervisor.get("web")
        assert found is not None
        return found

    def watchers(self) -> set[str]:
        return set(self.ceph.images[IMAGE].watchers) if IMAGE in self.ceph.images else set()


class OutWhenGivingBack(KillStore):
    """Does not answer the first time that a disk's key is deleted."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner, Killpoint())
        self.failed = False

    async def txn(self, txn: Txn, *, timeout: float = 2.0) -> TxnResult:
        if not self.failed and any(key.startswith(keys.DISKS) for key in txn.deletes):
            self.failed = True
            raise StoreUnavailable("out for a moment")
        return await super().txn(txn, timeout=timeout)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
async def node(world: World) -> AsyncIterator[SimNode]:
    made = world.node()
    await made.start()
    await apply(made)
    await made.until(lambda: made.phase("web") == "Running")
    yield made
    await made.kill()


async def apply(node: SimNode, *disks: dict[str, Any], **fields: Any) -> None:
    await node.apply("web", {**SMALL, **fields, "disks": [ROOT, *disks]})


def claim(node: SimNode) -> Claim:
    found = node.views.claim("web")
    assert found is not None
    return found


def pinned(node: SimNode) -> Any:
    pin = node.views.record(keys.pin("web"), Pin)
    assert pin is not None
    return pin.spec


def shown(node: SimNode) -> VmNodeStatus:
    status = node.status("web")
    assert status is not None
    return status


def waiting(node: SimNode) -> str:
    """What RestartRequired lists."""
    found = [c.message for c in shown(node).conditions if c.type is ConditionType.RESTART_REQUIRED]
    return found[0] if found else ""


def said(node: SimNode) -> str:
    return shown(node).message


def held(node: SimNode, world: World) -> bool:
    return any(key.endswith(f"/{world.ceph.find(IMAGE).id}") for key in claim(node).disks)


async def test_amounts_and_cables_come_to_the_running_guest(world: World, node: SimNode) -> None:
    before = world.guest.incarnation
    await apply(
        node,
        cpu={"cores": 3, "maxCores": 4},
        memory="256Mi",
        interfaces=[{"name": "lan", "bridge": "br1", "state": "down"}],
    )
    await node.until(lambda: pinned(node)["interfaces"][0].get("state") == "down")
    assert (world.guest.vcpus, world.guest.memory, world.guest.nics["lan"]) == (3, 256 << 20, "br1 down")
    assert world.guest.incarnation == before
    assert (pinned(node)["cpu"]["cores"], pinned(node)["memory"]) == (3, "256Mi")
    await node.until(lambda: not waiting(node) and not said(node))


async def test_what_only_a_restart_brings_is_listed_and_the_rest_comes(world: World, node: SimNode) -> None:
    await apply(node, cpu={"cores": 2, "maxCores": 8}, memory="1Gi", maxMemory="2Gi")
    await node.until(lambda: waiting(node) == "spec.cpu.maxCores, spec.maxMemory, spec.memory")
    assert world.guest.vcpus == 2
    assert "spec.memory waits for a restart: it was started with room for 512 MiB" in said(node)
    await node.intend("web", Intent(restart="1"))
    await node.until(lambda: not waiting(node) and world.guest.memory == 1 << 30)


async def test_a_new_disk_is_made_claimed_and_attached(world: World, node: SimNode) -> None:
    before = world.guest.incarnation
    await apply(node, DATA)
    await node.until(lambda: len(pinned(node)["disks"]) == 2)
    assert world.guest.disks["data"] == IMAGE.path
    assert world.guest.incarnation == before
    assert held(node, world)
    assert world.watchers() <= set(claim(node).clients)
    assert world.watchers()
    assert claim(node).plugging is None
    assert not waiting(node)
    await node.until(lambda: [disk.name for disk in shown(node).disks] == ["root", "data"])
    assert node.views.exists(keys.volume("ceph", "web.data"))


async def test_a_disk_that_goes_is_nobodys_when_nobody_has_it_open(world: World, node: SimNode) -> None:
    await apply(node, DATA)
    await node.until(lambda: len(pinned(node)["disks"]) == 2)
    await apply(node)
    await node.until(lambda: len(pinned(node)["disks"]) == 1)
    assert world.watchers() == set()
    assert not held(node, world)
    assert "data" not in world.guest.disks
    assert IMAGE in world.ceph.images  # what the user stored stays
    await apply(node, DATA)
    await node.until(lambda: len(pinned(node)["disks"]) == 2 and bool(world.watchers()))


@pytest.mark.slow
async def test_a_guest_that_does_not_let_go_keeps_its_claim_on_the_image(world: World, node: SimNode) -> None:
    await apply(node, DATA)
    await node.until(lambda: len(pinned(node)["disks"]) == 2)
    world.dummy.hypervisor.faults = Faults(guests={"web": GuestFaults(holds_on=True)})
    await apply(node)
    await node.until(lambda: "spec.disks[data] has not come about" in said(node))
    found = claim(node).plugging
    assert found is not None
    assert (found.disk, found.away) == ("data", True)
    assert held(node, world)
    await apply(node, DATA)  # wanted again, and it may go at any moment
    await node.until(lambda: "was asked to let go" in said(node))
    await apply(node)
    world.dummy.hypervisor.faults = Faults()
    await node.until(lambda: claim(node).plugging is None)
    assert not held(node, world)


@pytest.mark.slow
async def test_an_image_that_a_stranger_holds_is_not_attached_and_not_claimed(
    world: World, node: SimNode
) -> None:
    await SimRbd(world.ceph, files=SimFiles()).create(
        "web.data", Blank(size=20 << 20), format=None, operation="by hand", progress=lambda share: None
    )
    stranger = world.ceph.client("10.77.0.66")
    stranger.open(IMAGE)
    await apply(node, DATA)
    await node.until(lambda: "is held by" in said(node))
    assert "data" not in world.guest.disks
    await node.until(lambda: claim(node).plugging is None)
    assert not held(node, world)
    assert node.phase("web") == "Running"
    assert shown(node).failures.count == 0
    stranger.close()
    await node.until(lambda: "data" in world.guest.disks)


async def test_the_claim_on_a_disk_that_cannot_come_is_given_back_also_when_the_store_fails_then(
    world: World,
) -> None:
    store = OutWhenGivingBack(world.store)
    node = SimNode(
        store,
        clock=SystemClock(),
        ids=SystemIds(),
        controllers={"dummy": world.guests},
        backends={"ceph": SimRbd(world.ceph, files=SimFiles())},
    )
    await node.start()
    await apply(node)
    await node.until(lambda: node.phase("web") == "Running")
    world.dummy.hypervisor.faults = Faults(guests={"web": GuestFaults(is_full=True)})
    await apply(node, DATA)
    await node.until(lambda: store.failed)
    await node.until(lambda: claim(node).plugging is None and "waits for a restart" in said(node))
    assert not held(node, world)
    assert waiting(node) == "spec.disks[data]"
    await node.kill()


@pytest.mark.slow
async def test_an_image_that_another_vm_claims_is_not_attached(world: World, node: SimNode) -> None:
    other = {**SMALL, "disks": [{**DATA, "image": "web.data"}]}
    await node.apply("other", other)
    await node.until(lambda: node.phase("other") == "Running")
    await apply(node, DATA)
    await node.until(lambda: "held by another VM" in said(node))
    assert claim(node).plugging is None
    assert not held(node, world)


async def test_a_guest_that_dies_while_a_disk_comes_has_the_disks_client_cut_off(
    world: World, node: SimNode
) -> None:
    point = Killpoint(at=10**6, after=True)
    await node.kill()
    first = world.node(point)
    await first.start()
    await apply(first, DATA)
    await first.until(lambda: bool(world.watchers()))  # attached, perhaps not yet recorded
    await first.kill()
    unrecorded = world.watchers()
    world.dummy.hypervisor.end("web", ExitReason.CRASHED)
    second = world.node()
    await second.start()
    await second.until(lambda: second.phase("web") == "Running" and len(world.watchers() - unrecorded) == 1)
    assert all(world.ceph.blocked(client) for client in unrecorded)
    await second.kill()


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("goes", [False, True])
async def test_a_daemon_that_dies_at_any_step_leaves_a_disk_that_comes_or_goes_whole(
    after: bool, goes: bool
) -> None:
    for step in range(1, MOST):
        world, point = World(), Killpoint(at=10**6, after=after)
        node = world.node(point)
        await node.start()
        await apply(node, *((DATA,) if goes else ()))
        await node.until(lambda node=node: node.phase("web") == "Running")
        point.at = point.count + step
        outside = SimNode(world.store, clock=SystemClock(), ids=SystemIds(), controllers={})
        outside.views, outside.cache = node.views, node.cache
        wanted = 1 if goes else 2
        await apply(outside, *(() if goes else (DATA,)))
        await node.until(
            lambda node=node, point=point, wanted=wanted: (
                point.reached.is_set() or len(pinned(node)["disks"]) == wanted
            )
        )
        killed = point.reached.is_set()
        await node.kill()
        second = world.node()
        await second.start()
        await second.until(
            lambda node=second, wanted=wanted: (
                len(pinned(node)["disks"]) == wanted and claim(node).plugging is None
            )
        )
        assert held(second, world) is not goes
        assert world.watchers() <= set(claim(second).clients)
        assert bool(world.watchers()) is not goes
        await second.kill()
        if not killed:
            return
    raise AssertionError("the change never came to its end")


@pytest.mark.slow
async def test_a_node_without_room_says_so_and_gives_none(world: World, node: SimNode) -> None:
    big = {**SMALL, "memory": "7936Mi", "maxMemory": None, "interfaces": []}
    big.pop("maxMemory")
    await node.apply("big", {**big, "disks": []})
    await node.until(lambda: node.phase("big") == "Running")
    await apply(node, memory="512Mi")
    await node.until(lambda: "node r1 has 8Gi for VMs, and they ask for" in said(node))
    assert world.guest.memory == 64 << 20
    await node.delete("big")
    await node.until(lambda: world.guest.memory == 512 << 20)


async def test_a_paused_guest_is_changed_when_it_runs_again(world: World, node: SimNode) -> None:
    await node.intend("web", Intent(paused=True))
    await node.until(lambda: node.phase("web") == "Paused")
    await apply(node, memory="128Mi")
    await node.until(lambda: waiting(node) == "" and world.guest.memory == 64 << 20)
    await node.intend("web", Intent())
    await node.until(lambda: world.guest.memory == 128 << 20)


async def test_what_is_held_for_a_disk_is_no_part_of_a_new_run(world: World, node: SimNode) -> None:
    world.dummy.hypervisor.faults = Faults(guests={"web": GuestFaults(holds_on=True)})
    await apply(node, DATA)
    await node.until(lambda: len(pinned(node)["disks"]) == 2)
    await apply(node)
    await node.until(lambda: claim(node).plugging is not None)
    await node.intend("web", Intent(restart="1"))
    await node.until(lambda: claim(node).restart == "1" and node.phase("web") == "Running")
    assert claim(node).plugging is None
    assert replace(claim(node), clients=()).disks
    assert not held(node, world)
