"""A VM's disks from the agent's side: made once, grown when it is off, never shrunk, never shared, never made
again; and a daemon that dies at any step of making them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from reconciler.adapters.clock import SystemClock, SystemIds
from reconciler.ports.disks import DiskBackend, NetworkImages, Progress
from reconciler.resources import keys
from reconciler.resources.images import Content, Holder, ImageInfo, PoolCapacity
from reconciler.resources.kinds import Kind
from reconciler.resources.records import ClaimPhase, Intent, VolumeRecord
from reconciler.resources.status import VmNodeStatus
from reconciler.resources.virtualmachine import DiskFormat
from reconciler.sim.controller import DummyController
from reconciler.sim.disks import SimDisks, SimFiles
from reconciler.sim.killpoints import KillController, Killpoint, KillStore
from reconciler.sim.node import SimNode
from reconciler.sim.store import MemoryStore

SMALL = {"cpu": {"cores": 1}, "memory": "64Mi", "controller": "dummy", "terminationGracePeriodSeconds": 1}
MIB = 1 << 20
MOST = 60
"""More steps than a start with disks has; the test fails if they are not all reached."""


class KillDisks:
    """Counts the calls that change something, see Killpoint."""

    def __init__(self, inner: DiskBackend, point: Killpoint) -> None:
        self._inner = inner
        self._point = point

    @property
    def network(self) -> NetworkImages | None:
        return self._inner.network

    async def inspect(self, image: str, *, timeout: float) -> ImageInfo | None:
        return await self._inner.inspect(image, timeout=timeout)

    async def create(
        self, image: str, content: Content, *, format: DiskFormat | None, operation: str, progress: Progress
    ) -> ImageInfo:
        return await self._point.pass_through(
            f"create {image}",
            lambda: self._inner.create(image, content, format=format, operation=operation, progress=progress),
        )

    async def grow(self, image: str, size: int, *, timeout: float) -> ImageInfo:
        return await self._point.pass_through(
            f"grow {image}", lambda: self._inner.grow(image, size, timeout=timeout)
        )

    async def trash(self, image: str, *, timeout: float) -> None:
        await self._point.pass_through(f"trash {image}", lambda: self._inner.trash(image, timeout=timeout))

    async def identify(self, path: str, *, timeout: float) -> str:
        return await self._inner.identify(path, timeout=timeout)

    async def holders(self, image: str, *, timeout: float) -> tuple[Holder, ...]:
        return await self._inner.holders(image, timeout=timeout)

    async def capacity(self, *, timeout: float) -> PoolCapacity:
        return await self._inner.capacity(timeout=timeout)

    def close(self) -> None:
        self._inner.close()


class World:
    """Files, a hypervisor and a store that outlive the daemons on them."""

    def __init__(self) -> None:
        self.files = SimFiles()
        self.controller = DummyController()
        self.store = MemoryStore()

    def node(self, point: Killpoint | None = None) -> SimNode:
        point = point or Killpoint()
        return SimNode(
            KillStore(self.store, point),
            clock=SystemClock(),
            ids=SystemIds(),
            controllers={"dummy": KillController(self.controller, point)},
            backends={"default": KillDisks(SimDisks(self.files), point)},
        )

    @property
    def images(self) -> dict[str, int]:
        """Sizes in MiB of what is in the pool, without the trash."""
        found = {path.removeprefix("/pool/"): file.size // MIB for path, file in self.files.files.items()}
        return {name: size for name, size in sorted(found.items()) if "/" not in name}


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
async def node(world: World) -> AsyncIterator[SimNode]:
    made = world.node()
    await made.start()
    yield made
    await made.kill()


def with_disks(*disks: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**SMALL, "disks": list(disks), **changes}


def status(node: SimNode, name: str = "web") -> VmNodeStatus:
    found = node.status(name)
    assert found is not None
    return found


async def fails(node: SimNode, reason: str, name: str = "web") -> str:
    """Wait for that failure; its message."""
    await node.until(lambda: (found := node.status(name)) is not None and found.failures.reason == reason)
    return status(node, name).failures.message


async def stopped(node: SimNode) -> None:
    await node.intend("web", Intent(run="Stop"))
    await node.until(lambda: node.phase("web") == "Stopped")


def held(node: SimNode) -> set[str]:
    return {item.key.removeprefix(keys.DISKS) for item in node.cache.prefix(keys.DISKS)}


async def test_a_disk_is_made_recorded_and_claimed_by_its_identity(world: World, node: SimNode) -> None:
    await node.apply("web", with_disks({"name": "root", "size": "10Mi"}))
    await node.until(lambda: node.phase("web") == "Running")
    assert world.images == {"web.root.qcow2": 10}
    identity = f"{world.files.fsid}/{world.files.get('/pool/web.root.qcow2').inode}"
    record = node.views.record(keys.volume("default", "web.root"), VolumeRecord)
    assert record is not None
    assert (record.identity, record.node) == (identity, node.name)
    claim = node.views.claim("web")
    assert claim is not None
    assert identity in claim.disks
    assert {identity, "name/default/web.root"} == held(node)
    await stopped(node)
    assert held(node) == set()
    assert world.images == {"web.root.qcow2": 10}


@pytest.mark.slow
async def test_an_import_shows_how_far_it_is_and_can_be_given_up(world: World, node: SimNode) -> None:
    world.files.add("/src/golden.qcow2", size=8 * MIB, format=DiskFormat.QCOW2)
    world.files.copy_seconds = 30.0
    disk = {"name": "root", "size": "16Mi", "source": {"import": "/src/golden.qcow2"}}
    await node.apply("web", with_disks(disk))
    await node.until(lambda: status(node).progress == "50%" if node.status("web") else False)
    assert node.phase("web") == "Provisioning"
    await node.intend("web", Intent(run="Stop"))
    await node.until(lambda: node.phase("web") == "Stopped")
    assert world.images == {}
    assert held(node) == set()
    world.files.copy_seconds = 0.0
    await node.intend("web", Intent(run="Start", start="1"))
    await node.until(lambda: node.phase("web") == "Running")
    assert world.images == {"web.root.qcow2": 16}


async def test_a_disk_from_an_image_is_a_clone_and_the_template_is_never_written(
    world: World, node: SimNode
) -> None:
    world.files.add("/pool/golden.qcow2", size=8 * MIB, format=DiskFormat.QCOW2)
    await node.apply("golden", {"pool": "default"}, Kind.IMAGE)
    await node.apply("web", with_disks({"name": "root", "source": {"image": "golden"}}))
    await node.until(lambda: node.phase("web") == "Running")
    assert world.files.get("/pool/web.root.qcow2").backing == "/pool/golden.qcow2"
    await node.apply("thief", with_disks({"name": "root", "image": "golden"}))
    said = await fails(node, "ImageInUse", "thief")
    assert "template of Image 'golden'" in said
    # Under another name it is the same file.
    world.files.files["/pool/alias.qcow2"] = world.files.get("/pool/golden.qcow2")
    await node.apply("sly", with_disks({"name": "root", "image": "alias"}))
    assert "template of Image 'golden'" in await fails(node, "ImageInUse", "sly")
    await node.apply("reader", with_disks({"name": "root", "image": "golden", "readOnly": True}))
    await node.until(lambda: node.phase("reader") == "Running")


async def test_the_disk_of_another_vm_is_copied_only_while_that_vm_is_off(
    world: World, node: SimNode
) -> None:
    await node.apply("web", with_disks({"name": "root", "size": "8Mi"}))
    await node.until(lambda: node.phase("web") == "Running")
    copy = {"name": "root", "source": {"clone": {"image": "web.root"}}}
    await node.apply("copy", with_disks(copy))
    assert "by VM web" in await fails(node, "ImageInUse", "copy")
    assert world.images == {"web.root.qcow2": 8}
    await stopped(node)
    await node.until(lambda: node.phase("copy") == "Running")
    assert world.files.get("/pool/copy.root.qcow2").backing is None


async def test_a_larger_size_grows_the_image_at_a_start(world: World, node: SimNode) -> None:
    await node.apply("web", with_disks({"name": "root", "size": "8Mi"}))
    await node.until(lambda: node.phase("web") == "Running")
    await node.apply("web", with_disks({"name": "root", "size": "20Mi"}))
    # While the guest runs its hypervisor does it, which here has no files.
    await node.until(lambda: ("web", "Changed") in [event[:2] for event in node.events])
    assert world.images == {"web.root.qcow2": 8}
    await node.intend("web", Intent(restart="1"))
    await node.until(lambda: world.images == {"web.root.qcow2": 20})
    await node.until(lambda: node.phase("web") == "Running")


async def test_a_smaller_size_is_refused_with_a_note_and_the_vm_runs(world: World, node: SimNode) -> None:
    world.files.add("/pool/web.root.raw", size=8 * MIB)
    await node.apply("web", with_disks({"name": "root", "size": "4Mi"}))
    await node.until(lambda: node.phase("web") == "Running")
    assert "stays at 8Mi: an image is never shrunk to 4Mi" in status(node).message
    assert world.images == {"web.root.raw": 8}


@pytest.mark.slow
async def test_an_image_that_was_recorded_and_is_missing_is_never_made_again(
    world: World, node: SimNode
) -> None:
    await node.apply("web", with_disks({"name": "root", "size": "8Mi"}))
    await node.until(lambda: node.phase("web") == "Running")
    await stopped(node)
    lost = world.files.files.pop("/pool/web.root.qcow2")
    await node.intend("web", Intent(run="Start", start="1"))
    assert "is missing now" in await fails(node, "ImageMissing")
    await node.until(lambda: status(node).failures.count >= 2)
    assert world.images == {}
    world.files.files["/pool/web.root.qcow2"] = lost
    await node.until(lambda: node.phase("web") == "Running")
    assert world.files.get("/pool/web.root.qcow2") == lost


async def test_a_pool_that_does_not_answer_is_not_an_empty_one(world: World, node: SimNode) -> None:
    world.files.available = False
    await node.apply("web", with_disks({"name": "root", "size": "8Mi"}))
    await fails(node, "PoolUnavailable")
    assert node.views.claim("web") is None
    world.files.available = True
    await node.until(lambda: node.phase("web") == "Running")
    assert world.images == {"web.root.qcow2": 8}


async def test_one_image_by_two_names_has_one_owner(world: World, node: SimNode) -> None:
    world.files.add("/pool/shared.raw", size=8 * MIB)
    world.files.files["/pool/link.raw"] = world.files.get("/pool/shared.raw")
    await node.apply("web", with_disks({"name": "root", "image": "shared"}))
    await node.until(lambda: node.phase("web") == "Running")
    await node.apply("second", with_disks({"name": "root", "image": "link"}))
    assert "by VM web on r1" in await fails(node, "ImageInUse", "second")
    await node.apply("third", with_disks({"name": "root", "image": "shared"}))
    assert "by VM web on r1" in await fails(node, "ImageInUse", "third")
    names = [guest.name for guest in world.controller.hypervisor.alive()]
    assert names == ["web"]
    await node.delete("third")
    await stopped(node)
    await node.until(lambda: node.phase("second") == "Running")


async def test_two_vms_that_are_applied_together_do_not_both_make_one_image(
    world: World, node: SimNode
) -> None:
    disk = {"name": "root", "image": "common", "size": "8Mi"}
    await asyncio.gather(*(node.apply(name, with_disks(disk)) for name in ("a", "b")))
    await node.until(lambda: "Running" in (node.phase("a"), node.phase("b")))
    winner, loser = ("a", "b") if node.phase("a") == "Running" else ("b", "a")
    assert f"by VM {winner}" in await fails(node, "ImageInUse", loser)
    assert len(list(world.controller.hypervisor.alive())) == 1


async def test_a_deletion_keeps_the_images_and_a_purge_puts_them_aside(world: World, node: SimNode) -> None:
    spec = with_disks({"name": "root", "size": "8Mi"})
    await node.apply("web", spec)
    await node.until(lambda: node.phase("web") == "Running")
    await node.delete("web")
    await node.until(lambda: node.cache.get("tombstone/VirtualMachine/web"))
    assert world.images == {"web.root.qcow2": 8}
    await node.apply("web", spec)
    await node.until(lambda: node.phase("web") == "Running")
    await node.delete("web", purge=True)
    await node.until(lambda: not node.views.exists(keys.spec(Kind.VIRTUAL_MACHINE, "web")))
    assert world.images == {}
    assert len(world.files.trashed) == 1
    assert node.cache.prefix(keys.VOLUMES) == []
    assert held(node) == set()


async def test_a_purge_leaves_alone_what_somebody_still_uses(world: World, node: SimNode) -> None:
    await node.apply("web", with_disks({"name": "root", "size": "8Mi"}))
    await node.until(lambda: node.phase("web") == "Running")
    with world.files.held("/pool/web.root.qcow2", Holder(client="pid:1:1", description="a backup (pid 1)")):
        await node.delete("web", purge=True)
        await node.until(lambda: "a backup (pid 1)" in status(node).failures.message)
        assert world.images == {"web.root.qcow2": 8}
    await node.until(lambda: not node.views.exists(keys.spec(Kind.VIRTUAL_MACHINE, "web")))
    assert world.images == {}


def _prepared_world() -> World:
    """One template, one image that must grow."""
    world = World()
    world.files.add("/src/golden.raw", size=8 * MIB)
    world.files.add("/pool/web.data.raw", size=4 * MIB)
    return world


_BUSY = with_disks(
    {"name": "root", "source": {"import": "/src/golden.raw"}, "size": "16Mi"},
    {"name": "data", "size": "6Mi"},
    {"name": "swap", "size": "1Mi"},
)
_MADE = {"web.data.raw": 6, "web.root.qcow2": 16, "web.swap.qcow2": 1}


async def _outside(world: World, node: SimNode) -> SimNode:
    """Somebody who writes to the store without going through the killpoint."""
    outside = SimNode(world.store, clock=SystemClock(), ids=SystemIds(), controllers={})
    outside.views, outside.cache = node.views, node.cache
    return outside


def _check(world: World, node: SimNode) -> None:
    """What runs is owned, with its clients and its images in the claim."""
    guests = list(world.controller.hypervisor.alive())
    claim = node.views.claim("web")
    assert len(guests) == 1
    assert claim is not None
    assert (claim.node, claim.phase) == ("r1", ClaimPhase.RUNNING)
    identities = {f"{world.files.fsid}/{world.files.get(f'/pool/{image}').inode}" for image in _MADE}
    assert identities < set(claim.disks)
    assert set(claim.disks) == held(node)


async def _until_killed(node: SimNode, point: Killpoint, done: Any) -> bool:
    async with asyncio.timeout(20.0):
        while not point.reached.is_set() and not done():
            await asyncio.sleep(0.005)
    return point.reached.is_set()


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_killed_at_each_step_of_making_disks_and_starting(after: bool) -> None:
    reached: list[str] = []
    for step in range(1, MOST):
        world = _prepared_world()
        point = Killpoint(after=after)
        node = world.node(point)
        await node.start()
        await node.until(lambda node=node: node.views.exists(keys.node_status(Kind.NODE, "r1")))
        point.at = point.count + step
        await (await _outside(world, node)).apply("web", _BUSY)
        killed = await _until_killed(node, point, lambda node=node: node.phase("web") == "Running")
        await node.kill()
        reached.append(point.what)
        assert len(list(world.controller.hypervisor.alive())) <= 1
        if not killed:
            break
        second = world.node()
        await second.start()
        await second.until(lambda second=second: second.phase("web") == "Running")
        assert world.images == _MADE, point.what
        _check(world, second)
        await second.kill()
    else:
        raise AssertionError("the start never came to its end")
    assert {"create web.root", "grow web.data", "create web.swap"} <= set(reached)


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_killed_at_each_step_of_a_purge(after: bool) -> None:
    reached: list[str] = []
    for step in range(1, MOST):
        world = _prepared_world()
        point = Killpoint(after=after)
        node = world.node(point)
        await node.start()
        outside = await _outside(world, node)
        await outside.apply("web", _BUSY)
        await node.until(lambda node=node: node.phase("web") == "Running")
        point.at = point.count + step
        await outside.delete("web", purge=True)
        gone = keys.tombstone(Kind.VIRTUAL_MACHINE, "web")
        killed = await _until_killed(node, point, lambda node=node, gone=gone: node.views.exists(gone))
        await node.kill()
        reached.append(point.what)
        if not killed:
            break
        second = world.node()
        await second.start()
        await second.until(lambda second=second, gone=gone: second.views.exists(gone))
        assert world.images == {}, point.what
        assert len(world.files.trashed) == 3
        assert held(second) == set()
        assert list(world.controller.hypervisor.alive()) == []
        await second.kill()
    else:
        raise AssertionError("the purge never came to its end")
    assert {"trash web.root", "trash web.data", "trash web.swap"} <= set(reached)
