"""Three nodes, one store: what is saved on one is on all, and what cannot be on both is lost on neither."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from reconciler.ports.manifests import ApplyInput
from reconciler.resources import keys
from reconciler.resources.errors import ConflictError
from reconciler.resources.kinds import Kind
from reconciler.resources.records import ClusterRecord, dump
from reconciler.sim.clock import VirtualClock
from reconciler.sim.manifest_directory import MemoryBaseStore
from reconciler.sim.store import MemoryCluster, MemoryStore
from reconciler.testing.manifests import CutStore, ManifestWorld, pool, together, vm


@dataclass(slots=True)
class Cluster:
    """Nodes r1, r2, r3 by name; r1 is the master."""

    store: MemoryCluster
    clock: VirtualClock
    nodes: dict[str, ManifestWorld]
    ways: dict[str, CutStore]
    seed: int = 0

    def __getitem__(self, node: str) -> ManifestWorld:
        return self.nodes[node]

    async def start(self, node: str, *, forgets: bool = False) -> ManifestWorld:
        before = self.nodes.get(node)
        self.seed += 1
        self.ways[node] = CutStore(MemoryStore(self.store))
        made = ManifestWorld(
            self.ways[node],
            node=node,
            directory=before.memory if before else None,
            bases=before.bases if before and not forgets else None,
            clock=self.clock,
            seed=self.seed,
        )
        made.master = node == "r1"
        await made.start()
        self.nodes[node] = made
        return made

    async def look(self, *nodes: str, after: float = 0.0) -> None:
        """One step of these nodes (all), one after the other, each with all that the store has."""
        self.clock.advance(after)
        for name in nodes or tuple(self.nodes):
            world = self.nodes[name]
            if not self.ways[name].cut:
                await self.caught_up(world)
            await world.sync.step()

    async def caught_up(self, world: ManifestWorld) -> None:
        async with asyncio.timeout(5):
            while not world.cache.healthy:
                await asyncio.sleep(0.001)
            await world.cache.wait_for(self.store.revision)

    async def settle(self, *nodes: str) -> None:
        for _ in range(5):
            await self.look(*nodes, after=1.1)

    def files(self, node: str) -> dict[str, bytes]:
        return dict(sorted(self.nodes[node].files.items()))

    def save(self, path: str, data: bytes) -> None:
        """Everywhere the same, as after an earlier sync."""
        self.nodes["r1"].files[path] = data


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    made = Cluster(store=MemoryCluster(), clock=VirtualClock(), nodes={}, ways={})
    for node in ("r1", "r2", "r3"):
        await made.start(node)
    made.save("web.yaml", vm("web"))
    made.save("db.yaml", vm("db"))
    made.save("mail.yaml", vm("mail"))
    await made.settle()
    yield made
    for world in made.nodes.values():
        await world.stop()


WEB = vm("web", comment="as saved")
OTHER = vm("web", memory="1Gi", comment="the other's")


# One change.


async def test_a_file_saved_on_one_node_is_on_every_node_byte_for_byte(cluster: Cluster) -> None:
    data = vm("new", comment="  kept   as it is").replace(b"\n", b"\r\n") + b"\r\n\r\n# and the end"
    cluster["r2"].files["deep/er/new.yaml"] = data
    await cluster.look("r2", "r3", "r1")
    assert cluster["r1"].files["deep/er/new.yaml"] == data
    assert cluster["r3"].files["deep/er/new.yaml"] == data
    assert cluster["r1"].living() == ["db", "mail", "new", "web"]


async def test_another_node_has_a_save_at_once_and_without_polling(cluster: Cluster) -> None:
    loops = [asyncio.create_task(world.sync.run()) for world in cluster.nodes.values()]
    await asyncio.sleep(0.05)
    began = time.monotonic()
    cluster["r1"].files["web.yaml"] = WEB
    cluster["r1"].memory.hint()
    async with asyncio.timeout(5):
        while cluster["r3"].files.get("web.yaml") != WEB:
            await asyncio.sleep(0.002)
    took = time.monotonic() - began
    for loop in loops:
        loop.cancel()
    await asyncio.gather(*loops, return_exceptions=True)
    assert took < 1.5


async def test_a_removal_goes_to_every_node_and_deletes_the_object_once(cluster: Cluster) -> None:
    del cluster["r3"].files["web.yaml"]
    await cluster.settle()
    assert all("web.yaml" not in world.files for world in cluster.nodes.values())
    record = cluster["r1"].record("web")
    assert record is not None
    assert record.metadata.deletion_timestamp is not None


async def test_a_renamed_file_is_renamed_everywhere_and_stays_the_same_object(cluster: Cluster) -> None:
    before = cluster["r1"].record("web")
    cluster["r2"].files["server.yaml"] = cluster["r2"].files.pop("web.yaml")
    await cluster.settle()
    for node in cluster.nodes:
        assert sorted(cluster.files(node)) == ["db.yaml", "mail.yaml", "server.yaml"]
    after = cluster["r1"].record("web")
    assert before is not None
    assert after is not None
    assert after.metadata == before.metadata


async def test_a_broken_file_is_shared_after_a_moment_and_the_last_good_spec_stays(cluster: Cluster) -> None:
    cluster["r2"].files["web.yaml"] = b"kind: [\n"
    await cluster.look("r2", "r3")
    assert cluster["r3"].files["web.yaml"] == vm("web")
    await cluster.settle()
    assert cluster["r3"].files["web.yaml"] == b"kind: [\n"
    record, condition = cluster["r3"].record("web"), cluster["r3"].condition("web")
    assert record is not None
    assert record.spec["memory"] == "64Mi"
    assert condition is not None
    assert not condition.valid
    cluster["r3"].files["web.yaml"] = OTHER
    await cluster.settle()
    record = cluster["r2"].record("web")
    assert record is not None
    assert record.spec["memory"] == "1Gi"
    assert cluster["r2"].files["web.yaml"] == OTHER
    assert cluster["r2"].condition("web") is None


async def test_a_document_cut_out_deletes_only_where_the_user_cut_it(cluster: Cluster) -> None:
    cluster["r1"].files["all.yaml"] = together(vm("one"), vm("two"))
    await cluster.settle()
    cluster["r2"].files["all.yaml"] = vm("one")
    await cluster.look()
    await cluster.settle("r1", "r3")
    assert "two" in cluster["r1"].living()
    condition = cluster["r1"].condition("two")
    assert condition is not None
    assert "the node on which it was taken out deletes it" in condition.message
    await cluster.settle()
    assert "two" not in cluster["r1"].living()


# Two changes at once.


async def test_of_two_edits_at_once_one_counts_and_the_other_is_kept_beside_it(cluster: Cluster) -> None:
    cluster["r1"].files["web.yaml"] = WEB
    cluster["r2"].files["web.yaml"] = OTHER
    await cluster.look("r1", "r2", "r3")
    await cluster.settle()
    assert cluster.files("r1") == cluster.files("r3")
    assert cluster["r1"].files["web.yaml"] == cluster["r2"].files["web.yaml"] == WEB
    assert cluster["r2"].files["web.conflict-r2.yaml"] == OTHER
    assert cluster["r2"].sync.status().conflicts == ("web.conflict-r2.yaml",)
    told = [event for event in cluster["r2"].events if event[2] == "ManifestConflict"]
    assert [event[:2] for event in told] == [(Kind.VIRTUAL_MACHINE, "web")]
    assert "web.conflict-r2.yaml" in told[0][3]
    record = cluster["r1"].record("web")
    assert record is not None
    assert record.spec["memory"] == "64Mi"


async def test_a_second_conflict_gets_another_name(cluster: Cluster) -> None:
    for number in (1, 2):
        cluster["r1"].files["web.yaml"] = vm("web", comment=f"one {number}")
        cluster["r2"].files["web.yaml"] = vm("web", comment=f"two {number}")
        await cluster.look("r1")
        await cluster.settle()
    assert cluster["r2"].files["web.conflict-r2.yaml"] == vm("web", comment="two 1")
    assert cluster["r2"].files["web.conflict-r2-2.yaml"] == vm("web", comment="two 2")


async def test_the_same_edit_on_two_nodes_is_no_conflict(cluster: Cluster) -> None:
    cluster["r1"].files["web.yaml"] = cluster["r2"].files["web.yaml"] = WEB
    await cluster.settle()
    assert cluster.files("r1") == cluster.files("r2") == cluster.files("r3")
    assert cluster["r2"].events == []


async def test_a_file_removed_on_one_node_and_edited_on_another_survives(cluster: Cluster) -> None:
    del cluster["r1"].files["web.yaml"]
    await cluster.look("r1")
    cluster["r2"].files["web.yaml"] = OTHER
    await cluster.look("r2")
    await cluster.settle()
    for node in cluster.nodes:
        assert cluster.files(node)["web.yaml"] == OTHER
    assert "web" in cluster["r1"].living()


async def test_an_edit_of_a_file_whose_removal_has_been_taken_makes_it_anew(cluster: Cluster) -> None:
    del cluster["r1"].files["web.yaml"]
    await cluster.settle("r1")
    cluster["r2"].files["web.yaml"] = OTHER
    await cluster.settle()
    assert all(world.files["web.yaml"] == OTHER for world in cluster.nodes.values())
    await cluster["r1"].finish_deletion("web")
    await cluster.settle()
    record = cluster["r3"].record("web")
    assert record is not None
    assert record.metadata.deletion_timestamp is None
    assert record.spec["memory"] == "1Gi"


async def test_two_new_files_for_one_object_are_named_on_every_node(cluster: Cluster) -> None:
    cluster["r1"].files["x.yaml"] = vm("new", comment="x")
    cluster["r2"].files["y.yaml"] = vm("new", memory="1Gi")
    await cluster.settle()
    for world in cluster.nodes.values():
        assert world.files["x.yaml"] == vm("new", comment="x")
        assert world.files["y.yaml"] == vm("new", memory="1Gi")
        reports = {report.path: report for report in await world.service.files()}
        assert "x.yaml and y.yaml" in reports["x.yaml"].problems[0]
        assert "x.yaml and y.yaml" in reports["y.yaml"].problems[0]
    del cluster["r3"].files["x.yaml"]
    await cluster.settle()
    record = cluster["r1"].record("new")
    assert record is not None
    assert (record.spec["memory"], record.source.path) == ("1Gi", "y.yaml")


async def test_a_half_written_file_is_not_replaced_under_its_writer(cluster: Cluster) -> None:
    cluster["r1"].files["web.yaml"] = WEB
    await cluster.look("r1")
    cluster["r2"].files["web.yaml"] = OTHER[:20]
    await cluster.look("r2")
    assert cluster["r2"].files["web.yaml"] == OTHER[:20]
    cluster["r2"].files["web.yaml"] = OTHER
    await cluster.settle()
    assert cluster["r2"].files["web.conflict-r2.yaml"] == OTHER


async def test_two_bursts_at_once_end_the_same_everywhere(cluster: Cluster) -> None:
    for number in range(120):
        cluster["r1"].files[f"vm-{number}.yaml"] = vm(f"vm-{number}", comment="one")
        if number % 2:
            cluster["r2"].files[f"vm-{number}.yaml"] = vm(f"vm-{number}", comment="two")
    await asyncio.gather(cluster["r1"].sync.step(), cluster["r2"].sync.step())
    await cluster.settle()
    common = [{p: d for p, d in cluster.files(n).items() if "conflict" not in p} for n in cluster.nodes]
    assert common[0] == common[1] == common[2]
    assert len(cluster["r1"].living()) == 123
    everything = {data for node in cluster.nodes for data in cluster.files(node).values()}
    assert all(vm(f"vm-{number}", comment="one") in everything for number in range(120))
    assert all(vm(f"vm-{number}", comment="two") in everything for number in range(1, 120, 2))


# Nodes that were away, new ones, forgetful ones.


async def test_a_node_that_was_off_catches_up_and_brings_nothing_back(cluster: Cluster) -> None:
    await cluster["r3"].stop()
    del cluster["r1"].files["web.yaml"]
    cluster["r1"].files["db.yaml"] = vm("db", memory="1Gi")
    cluster["r1"].files["new.yaml"] = vm("new")
    await cluster.settle("r1", "r2")
    cluster.store.compact(cluster.store.revision)
    await cluster.start("r3")
    await cluster.settle()
    assert cluster.files("r3") == cluster.files("r1")
    assert sorted(cluster.files("r3")) == ["db.yaml", "mail.yaml", "new.yaml"]
    assert "web" not in cluster["r1"].living()


async def test_what_was_saved_on_a_node_while_it_was_off_comes_with_it(cluster: Cluster) -> None:
    await cluster["r3"].stop()
    cluster["r3"].files["web.yaml"] = OTHER
    del cluster["r3"].files["db.yaml"]
    await cluster.start("r3")
    await cluster.settle()
    assert cluster["r1"].files["web.yaml"] == OTHER
    assert "db.yaml" not in cluster["r1"].files


async def test_a_new_node_is_filled_and_deletes_nothing(cluster: Cluster) -> None:
    await cluster.start("r4")
    await cluster.settle()
    assert cluster.files("r4") == cluster.files("r1")
    assert cluster["r1"].living() == ["db", "mail", "web"]


async def test_what_differs_on_a_new_node_is_kept_as_conflict_files(cluster: Cluster) -> None:
    world = await cluster.start("r4")
    world.files["web.yaml"] = OTHER
    world.files["own.yaml"] = vm("own")
    await cluster.settle()
    assert world.files["web.yaml"] == vm("web")
    assert world.files["web.conflict-r4.yaml"] == OTHER
    assert cluster["r1"].files["own.yaml"] == vm("own")
    assert cluster["r1"].living() == ["db", "mail", "own", "web"]


async def test_a_node_that_lost_its_memory_deletes_and_overwrites_nothing(cluster: Cluster) -> None:
    await cluster["r3"].stop()
    cluster["r3"].files["web.yaml"] = OTHER
    del cluster["r3"].files["db.yaml"]
    await cluster.start("r3", forgets=True)
    await cluster.settle()
    assert cluster["r1"].living() == ["db", "mail", "web"]
    assert cluster["r3"].files["db.yaml"] == vm("db")
    assert cluster["r3"].files["web.conflict-r3.yaml"] == OTHER


async def test_a_store_of_another_cluster_takes_nothing_out_of_the_directory(cluster: Cluster) -> None:
    await cluster["r1"].put(keys.CLUSTER, dump(ClusterRecord(uid="one", name="c", created="")))
    await cluster.settle()
    await cluster["r3"].stop()
    other = ManifestWorld(
        MemoryStore(),
        node="r3",
        directory=cluster["r3"].memory,
        bases=cluster["r3"].bases,
        clock=cluster.clock,
    )
    await other.store_cluster("two")
    await other.start()
    before = dict(other.files)
    await other.settle()
    assert other.files == before
    assert other.living() == ["db", "mail", "web"]
    await other.stop()


async def test_a_store_that_goes_back_in_time_stops_the_sync(cluster: Cluster) -> None:
    before = cluster.files("r2")
    cluster["r2"].cache.revision = 1
    await cluster["r2"].sync.step()
    assert "shows less than this node has seen" in cluster["r2"].sync.status().problem
    assert cluster.files("r2") == before
    assert isinstance(cluster["r2"].bases, MemoryBaseStore)
    assert cluster["r2"].bases.base.taken == {}


# A store that is away, and a directory that cannot be written.


async def test_while_the_store_is_away_nothing_comes_or_goes_and_saves_are_kept(cluster: Cluster) -> None:
    cluster["r1"].files["web.yaml"] = WEB
    await cluster.look("r1")
    await cluster.caught_up(cluster["r2"])
    cluster.ways["r2"].cut = True
    async with asyncio.timeout(5):
        while cluster["r2"].cache.healthy:
            await asyncio.sleep(0.002)
    cluster["r2"].files["new.yaml"] = vm("new")
    del cluster["r2"].files["db.yaml"]
    before = cluster.files("r2")
    for _ in range(3):
        await cluster.look("r2", after=1.1)
    assert cluster.files("r2") == before
    assert "cut" in cluster["r2"].sync.status().problem
    cluster.ways["r2"].cut = False
    await cluster.settle()
    assert cluster.files("r1") == cluster.files("r2") == cluster.files("r3")
    assert sorted(cluster.files("r1")) == ["mail.yaml", "new.yaml", "web.yaml"]
    assert cluster["r1"].living() == ["mail", "new", "web"]


async def test_a_file_that_cannot_be_written_is_told_and_the_others_go_on(cluster: Cluster) -> None:
    cluster["r3"].memory.faults.unwritable["web.yaml"] = "it is read-only"
    cluster["r1"].files["web.yaml"] = OTHER
    cluster["r1"].files["new.yaml"] = vm("new")
    await cluster.settle()
    assert cluster["r3"].files["web.yaml"] == vm("web")
    assert cluster["r3"].files["new.yaml"] == vm("new")
    assert "read-only" in cluster["r3"].sync.status().unwritten["web.yaml"]
    assert [event[2] for event in cluster["r3"].events] == ["ManifestNotWritten"]
    record = cluster["r1"].record("web")
    assert record is not None
    assert record.spec["memory"] == "1Gi"
    cluster["r3"].memory.faults.unwritable.clear()
    await cluster.settle()
    assert cluster["r3"].files["web.yaml"] == OTHER
    assert cluster["r3"].sync.status().unwritten == {}


async def test_a_directory_where_a_file_should_be_harms_nobody(cluster: Cluster) -> None:
    cluster["r3"].files["x.yaml/inner.yaml"] = vm("inner")
    cluster["r1"].files["x.yaml"] = vm("new")
    await cluster.settle()
    assert cluster["r2"].living() == ["db", "inner", "mail", "new", "web"]
    assert any("x.yaml" in path for path in cluster["r3"].sync.status().unwritten)


async def test_nothing_is_brought_in_while_git_works(cluster: Cluster) -> None:
    cluster["r2"].memory.faults.git_busy = True
    cluster["r1"].files["web.yaml"] = WEB
    await cluster.settle()
    assert cluster["r2"].files["web.yaml"] == vm("web")
    cluster["r2"].memory.faults.git_busy = False
    await cluster.settle()
    assert cluster["r2"].files["web.yaml"] == WEB


@pytest.mark.parametrize(
    "key", ["manifest/../etc/passwd.yaml", "manifest/.hidden.yaml", "manifest/a.txt", "manifest//x.yaml"]
)
async def test_names_that_no_directory_has_never_come_out_of_the_store(cluster: Cluster, key: str) -> None:
    await cluster["r1"].put(key, vm("evil"))
    before = cluster.files("r2")
    await cluster.settle()
    assert cluster.files("r2") == before
    assert cluster["r1"].living() == ["db", "mail", "web"]


# Who says what.


async def test_only_the_master_tells_objects_of_their_manifests(cluster: Cluster) -> None:
    cluster["r2"].files["web.yaml"] = b"kind: [\n"
    await cluster.settle("r2", "r3")
    assert cluster["r2"].condition("web") is None
    await cluster.settle("r1")
    assert cluster["r2"].condition("web") is not None
    revision = cluster.store.revision
    await cluster.settle()
    assert cluster.store.revision == revision


async def test_a_pool_or_node_of_any_member_may_be_referred_to(cluster: Cluster) -> None:
    await cluster["r1"].put(keys.member("r9"), b'{"address": "10.0.0.9"}')
    await cluster["r1"].put(keys.node_status(Kind.STORAGE_POOL, "fast"), b"{}")
    cluster["r1"].files["web.yaml"] = vm("web", extra="  disks:\n    - {name: root, size: 1Gi, pool: fast}\n")
    cluster["r1"].files["rule.yaml"] = (
        b"apiVersion: vcl/v1\nkind: PlacementConstraint\nmetadata: {name: rule}\n"
        b"spec:\n  type: NodeAffinity\n  vms: {names: [web]}\n  nodes: {names: [r9]}\n"
    )
    await cluster.settle()
    assert cluster["r1"].condition("web") is None
    assert cluster["r1"].condition("rule", Kind.PLACEMENT_CONSTRAINT) is None


async def test_held_deletions_are_an_event_of_the_node(cluster: Cluster) -> None:
    cluster["r2"].files.clear()
    await cluster.settle()
    assert cluster["r1"].living() == ["db", "mail", "web"]
    assert sorted(cluster.files("r1")) == ["db.yaml", "mail.yaml", "web.yaml"]
    assert [event[2] for event in cluster["r2"].events] == ["DeletionsHeld"]


# Through the API of any node.


async def test_apply_on_any_node_is_on_all(cluster: Cluster) -> None:
    report = await cluster["r3"].service.apply([ApplyInput(name="-", content=OTHER)], dry_run=False)
    assert [result.error for result in report.results] == [None]
    await cluster.look()
    assert cluster["r1"].files["web.yaml"] == OTHER


async def test_apply_begins_from_what_another_node_has_just_saved(cluster: Cluster) -> None:
    cluster["r1"].files["web.yaml"] = together(WEB, vm("extra"))
    await cluster.look("r1")
    await cluster.caught_up(cluster["r3"])
    report = await cluster["r3"].service.apply([ApplyInput(name="-", content=OTHER)], dry_run=False)
    assert "also defines VirtualMachine/extra" in str(report.results[0].error)
    assert cluster["r3"].files["web.yaml"] == together(WEB, vm("extra"))


async def test_an_apply_that_lost_says_so_and_is_kept(cluster: Cluster) -> None:
    def elsewhere() -> None:
        cluster["r3"].memory.before_write = None
        cluster["r1"].files["web.yaml"] = WEB

    cluster["r3"].memory.before_write = elsewhere
    holding = cluster["r3"].service.apply([ApplyInput(name="-", content=OTHER)], dry_run=False)
    task = asyncio.create_task(holding)
    while cluster["r1"].files["web.yaml"] != WEB:
        await asyncio.sleep(0)
    await cluster["r1"].sync.step()
    report = await task
    await cluster.settle()
    if report.results[0].error is None:
        assert cluster["r3"].files["web.yaml"] == OTHER
        assert cluster["r1"].files["web.conflict-r1.yaml"] == WEB
    else:
        assert "on another node" in report.results[0].error
        assert cluster["r3"].files["web.conflict-r3.yaml"] == OTHER


async def test_a_delete_that_meets_an_edit_is_refused(cluster: Cluster) -> None:
    cluster["r1"].files["web.yaml"] = OTHER
    await cluster.caught_up(cluster["r3"])

    async def edit() -> None:
        await cluster["r1"].sync.step()

    editing = asyncio.create_task(edit())
    deleting = asyncio.create_task(cluster["r3"].service.delete("VirtualMachine", "web", purge=False))
    outcome = await asyncio.gather(deleting, editing, return_exceptions=True)
    await cluster.settle()
    if outcome[0] is None:
        assert all(world.files.get("web.yaml") in (None, OTHER) for world in cluster.nodes.values())
    else:
        assert isinstance(outcome[0], ConflictError)
        assert cluster["r3"].files["web.yaml"] == OTHER


async def test_delete_on_any_node_removes_the_file_on_all(cluster: Cluster) -> None:
    cluster["r1"].files["fast.yaml"] = pool("fast")
    await cluster.look()
    await cluster["r3"].service.delete("StoragePool", "fast", purge=False)
    await cluster.look()
    assert all("fast.yaml" not in world.files for world in cluster.nodes.values())
    assert cluster["r1"].record("fast", Kind.STORAGE_POOL) is None
