"""A person has a holder shut out of an image: only whom the person saw, never a VM's or a daemon's client,
and under a key of the image that nobody can start on meanwhile (SAFETY rules 6, 8 and 10)."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from reconciler.adapters.clock import SystemClock, SystemIds
from reconciler.loops.disk_locks import HeldDisk
from reconciler.resources import keys
from reconciler.resources.errors import ConflictError, ImageInUse, InvalidInput, NotFound, PoolUnavailable
from reconciler.resources.images import Blank, RbdName
from reconciler.resources.records import DiskClaim, Intent, Session, dump
from reconciler.sim.ceph import SimCeph, SimClient
from reconciler.sim.controller import DummyController
from reconciler.sim.disks import SimDisks, SimFiles
from reconciler.sim.node import SimNode
from reconciler.sim.rbd import SimRbd
from reconciler.sim.rbd_guests import RbdGuests
from reconciler.sim.store import MemoryStore

SMALL = {"cpu": {"cores": 1}, "memory": "64Mi", "controller": "dummy", "terminationGracePeriodSeconds": 1}
DISK = {"name": "root", "size": "10Mi", "pool": "ceph", "image": "shared"}
SHARED = RbdName(pool="vms", image="shared")
ABOARD = "10.77.0.1"


class World:
    def __init__(self) -> None:
        self.ceph = SimCeph()
        self.guests = RbdGuests(DummyController(), self.ceph, ABOARD)
        self.rbd = SimRbd(self.ceph)
        self.node = SimNode(
            MemoryStore(),
            clock=SystemClock(),
            ids=SystemIds(),
            controllers={"dummy": self.guests},
            backends={"ceph": self.rbd, "default": SimDisks(SimFiles())},
        )

    async def shared(self) -> SimClient:
        """An image that somebody unknown writes to, and a VM that waits for it."""
        await self.rbd.create(
            "shared", Blank(size=1 << 20), format=None, operation="o", progress=lambda _: None
        )
        person = self.ceph.client("10.77.0.9")
        person.write(SHARED, "backup")
        await self.node.apply("web", {**SMALL, "disks": [DISK]})
        await self.node.until(self.in_use)
        return person

    def in_use(self) -> bool:
        status = self.node.status("web")
        return status is not None and status.failures.reason == "ImageInUse"

    async def held(self) -> HeldDisk:
        (disk,) = await self.node.locks.show("web")
        return disk

    def operations(self) -> list[str]:
        found = (self.node.views.record(i.key, DiskClaim) for i in self.node.cache.prefix(keys.DISKS))
        return [claim.operation for claim in found if claim is not None and claim.operation]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    await made.node.start()
    yield made
    await made.node.kill()


async def test_a_foreign_client_is_shown_shut_out_and_the_vm_starts(world: World) -> None:
    person = await world.shared()
    (holder,) = (await world.held()).holders
    assert (holder.client, holder.watching, holder.node, holder.vm) == (person.address, True, "", "")
    assert holder.lock
    (gone,) = await world.node.locks.unlock("web", "root", [person.address])
    assert gone == holder
    assert world.ceph.blocked(person.address)
    assert (await world.held()).holders == ()
    assert world.operations() == []
    assert any(event[1] == "DiskUnlocked" for event in world.node.events)
    await world.node.intend("web", Intent(reset_failures="1"))
    await world.node.until(lambda: world.node.phase("web") == "Running")


async def test_the_running_vms_own_client_is_never_shut_out(world: World) -> None:
    await world.node.apply("web", {**SMALL, "disks": [DISK]})
    await world.node.until(lambda: world.node.phase("web") == "Running")
    (holder,) = (await world.held()).holders
    assert (holder.vm, holder.node, holder.former) == ("web", "r1", False)
    with pytest.raises(ImageInUse, match="is VM web on node r1, which may be writing") as caught:
        await world.node.locks.unlock("web", "root", [holder.client])
    assert caught.value.cure == "vcl stop web"
    assert not world.ceph.blocked(holder.client)


async def test_a_daemons_client_is_never_shut_out(world: World) -> None:
    person = await world.shared()
    session = Session(session=1, boot_id="b", machine_id="m", started="", clients=(person.address,))
    await world.node.put(keys.session("r2"), dump(session))
    with pytest.raises(ImageInUse, match="is vcld on node r2"):
        await world.node.locks.unlock("web", "root", [person.address])
    assert not world.ceph.blocked(person.address)


async def test_nobody_is_shut_out_whom_the_person_did_not_see(world: World) -> None:
    person = await world.shared()
    other = world.ceph.client("10.77.0.8")
    other.open(SHARED)
    with pytest.raises(ImageInUse, match="not by those that were shown"):
        await world.node.locks.unlock("web", "root", [person.address])
    assert not world.ceph.blocked(person.address)


async def test_an_image_that_another_vm_has_claimed_is_left_alone(world: World) -> None:
    person = await world.shared()
    identity = (await world.held()).identity
    await world.node.put(keys.disk(identity), dump(DiskClaim(node="r2", vm="other", uid="u")))
    with pytest.raises(ImageInUse, match="claimed by VM other on node r2") as caught:
        await world.node.locks.unlock("web", "root", [person.address])
    assert "vcl stop other" in caught.value.cure
    assert not world.ceph.blocked(person.address)


async def test_an_interrupted_unlock_is_taken_over(world: World) -> None:
    person = await world.shared()
    identity = (await world.held()).identity
    left = DiskClaim(node="r2", vm="web", uid="", operation="unlock-1")
    await world.node.put(keys.disk(identity), dump(left))
    await world.node.locks.unlock("web", "root", [person.address])
    assert world.ceph.blocked(person.address)
    assert world.operations() == []


async def test_a_daemon_releases_what_its_earlier_run_left(world: World) -> None:
    left = DiskClaim(node="r1", vm="web", uid="", operation="unlock-1")
    foreign = DiskClaim(node="r2", vm="web", uid="", operation="unlock-2")
    await world.node.put(keys.disk("f/vms//1"), dump(left))
    await world.node.put(keys.disk("f/vms//2"), dump(foreign))
    await world.node.kill()
    await world.node.start()
    await world.node.until(lambda: world.operations() == ["unlock-2"])


async def test_a_node_that_is_being_fenced_shuts_nobody_out(world: World) -> None:
    person = await world.shared()
    await world.node.put(keys.fence("r1"), b"{}")
    with pytest.raises(ConflictError, match="this node may not do it now"):
        await world.node.locks.unlock("web", "root", [person.address])
    assert not world.ceph.blocked(person.address)


async def test_a_ceph_that_does_not_answer_leaves_no_key_behind(world: World) -> None:
    person = await world.shared()
    world.ceph.available = False
    assert "did not answer" in (await world.held()).problem
    with pytest.raises(PoolUnavailable):
        await world.node.locks.unlock("web", "root", [person.address])
    world.ceph.available = True
    assert world.operations() == []
    assert not world.ceph.blocked(person.address)


async def test_what_is_no_network_image_or_no_disk_is_refused(world: World) -> None:
    await world.node.apply("web", {**SMALL, "disks": [{"name": "root", "size": "1Mi", "pool": "default"}]})
    await world.node.until(lambda: world.node.phase("web") == "Running")
    with pytest.raises(InvalidInput, match="is a file"):
        await world.node.locks.unlock("web", "root", ["10.0.0.1:0/1"])
    with pytest.raises(NotFound, match="has no disk 'data'"):
        await world.node.locks.unlock("web", "data", ["10.0.0.1:0/1"])
    with pytest.raises(NotFound, match="'db' not found"):
        await world.node.locks.show("db")


OWN = """<domain type='qemu'><name>mine</name><memory unit='MiB'>64</memory><vcpu>1</vcpu>
<os><type arch='x86_64'>hvm</type></os><devices>
<disk type='network'><source protocol='rbd' name='vms/data'/><target dev='vdb'/></disk>
<disk type='network'><source protocol='rbd' name='other/data'/><target dev='vdc'/></disk>
</devices></domain>"""


async def test_uefi_variables_and_disks_of_the_users_own_xml_are_shown_and_unlocked_too(world: World) -> None:
    for image in ("web.nvram", "data"):
        await world.rbd.create(
            image, Blank(size=1 << 20), format=None, operation="o", progress=lambda _: None
        )
    person = world.ceph.client("10.77.0.9")
    person.write(RbdName(pool="vms", image="data"), "by hand")
    spec = {**SMALL, "firmware": "uefi", "domainXML": OWN, "disks": [DISK]}
    await world.node.apply("web", spec)
    await world.node.until(lambda: world.node.views.vm("web") is not None)
    held = {disk.name: disk for disk in await world.node.locks.show("web")}
    assert {name: disk.image for name, disk in held.items()} == {
        "root": "shared",
        "nvram": "web.nvram",
        "vdb": "data",
        "vdc": "other/data",
    }
    assert [holder.client for holder in held["vdb"].holders] == [person.address]
    assert held["vdc"].problem == "no StoragePool has other/data"
    (gone,) = await world.node.locks.unlock("web", "vdb", [person.address])
    assert gone.client == person.address
    with pytest.raises(PoolUnavailable, match="no StoragePool has other/data"):
        await world.node.locks.unlock("web", "vdc", [person.address])
