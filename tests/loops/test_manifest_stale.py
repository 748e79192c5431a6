"""A copy of the store that is older than what this node itself has written is no ground for a merge."""

from __future__ import annotations

from reconciler.sim.store import MemoryStore
from reconciler.sim.world import World
from reconciler.testing.manifests import ManifestWorld, vm
from reconciler.testing.virtual import on_virtual_time


@on_virtual_time
class TestACopyThatIsBehind:
    """The store takes the write, and the watch that would show it is late."""

    world: World

    async def test_brings_no_older_file_back(self) -> None:
        node = ManifestWorld(MemoryStore())
        await node.start()
        before, after = vm("web"), vm("web", memory="2Gi")
        node.files["web.yaml"] = before
        await node.settle()
        await node.stop()
        node.files["web.yaml"] = after
        await node.settle()
        assert node.files == {"web.yaml": after}
        assert node.stored("web.yaml") == before
        assert "last write" in node.sync.status().problem
        await node.start()
        await node.settle()
        assert node.files == {"web.yaml": after}
        assert node.stored("web.yaml") == after
        await node.stop()
