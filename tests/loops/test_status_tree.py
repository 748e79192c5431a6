"""The status tree follows the store: everything once, then what changed, in portions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from reconciler.loops.status_tree import PORTION, StatusTreeLoop
from reconciler.sim.manifest_directory import MemoryStatusSink
from reconciler.sim.store import MemoryStore
from reconciler.testing.manifests import ManifestWorld, vm


@pytest.fixture
async def world() -> AsyncIterator[ManifestWorld]:
    made = ManifestWorld(MemoryStore())
    await made.start()
    yield made
    await made.stop()


def tree(world: ManifestWorld) -> tuple[StatusTreeLoop, MemoryStatusSink]:
    sink = MemoryStatusSink()
    loop = StatusTreeLoop(world.cache, sink, world.clock)
    world.cache.subscribe(loop.mark)
    return loop, sink


async def test_every_object_is_shown_merged(world: ManifestWorld) -> None:
    world.files["web.yaml"] = vm("web")
    await world.look()
    loop, sink = tree(world)
    await loop.step()
    shown = sink.shown["VirtualMachine", "web"]
    assert shown["spec"]["memory"] == "64Mi"
    assert shown["status"]["source"] == {"path": "web.yaml", "line": 1}


async def test_a_change_is_written_once_and_an_idle_loop_writes_nothing(world: ManifestWorld) -> None:
    loop, sink = tree(world)
    world.files["web.yaml"] = vm("web")
    await world.look()
    await loop.step()
    before = sink.writes
    for memory in ("128Mi", "256Mi"):
        world.files["web.yaml"] = vm("web", memory=memory)
        await world.look()
    assert await loop.step() is None
    assert sink.writes == before + 1
    assert sink.shown["VirtualMachine", "web"]["spec"]["memory"] == "256Mi"
    assert await loop.step() is None
    assert sink.writes == before + 1


async def test_what_is_gone_is_shown_no_more_also_after_a_restart(world: ManifestWorld) -> None:
    world.files["web.yaml"], world.files["db.yaml"] = vm("web"), vm("db")
    await world.look()
    loop, sink = tree(world)
    sink.shown["VirtualMachine", "long-gone"] = {}
    sink.shown["Strange", "thing"] = {}
    await loop.step()
    await world.finish_deletion("web")
    await loop.step()
    assert sorted(sink.shown) == [("Strange", "thing"), ("VirtualMachine", "db")]


async def test_a_thousand_objects_are_written_in_portions(world: ManifestWorld) -> None:
    for number in range(PORTION * 2 + 50):
        world.files[f"vm-{number}.yaml"] = vm(f"vm-{number}")
    await world.look()
    loop, sink = tree(world)
    steps = 0
    while await loop.step() is not None:
        steps += 1
        assert sink.writes <= PORTION * steps
    assert steps == 2
    assert len(sink.shown) == PORTION * 2 + 50


async def test_a_full_disk_is_tried_again_until_everything_is_shown(world: ManifestWorld) -> None:
    for name in ("web", "db"):
        world.files[f"{name}.yaml"] = vm(name)
    await world.look()
    loop, sink = tree(world)
    sink.full = True
    assert await loop.step() is not None
    assert sink.shown == {}
    sink.full = False
    await loop.step()
    assert sorted(name for _, name in sink.shown) == ["db", "web"]


async def test_it_waits_for_the_store(world: ManifestWorld) -> None:
    cold = ManifestWorld(world.store)
    loop, sink = tree(cold)
    sink.shown["VirtualMachine", "web"] = {}
    assert await loop.step() is not None
    assert list(sink.shown) == [("VirtualMachine", "web")]


async def test_running_it_follows_the_store(world: ManifestWorld) -> None:
    sink = MemoryStatusSink()
    running = asyncio.create_task(StatusTreeLoop(world.cache, sink, world.clock).run())
    await asyncio.sleep(0)
    world.files["web.yaml"] = vm("web")
    await world.look()
    async with asyncio.timeout(5):
        while ("VirtualMachine", "web") not in sink.shown:
            await asyncio.sleep(0.02)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
