"""When a missing file deletes its object, and everything that must not be taken for a deletion."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from reconciler.resources import keys
from reconciler.resources.errors import NotFound
from reconciler.resources.kinds import Kind
from reconciler.resources.records import dump
from reconciler.resources.scans import Base
from reconciler.sim.manifest_directory import MemoryBaseStore
from reconciler.sim.store import MemoryStore
from reconciler.testing.manifests import ManifestWorld, pool, together, vm


@pytest.fixture
async def world() -> AsyncIterator[ManifestWorld]:
    made = ManifestWorld(MemoryStore())
    await made.start()
    yield made
    await made.stop()


async def many(world: ManifestWorld, count: int) -> None:
    for number in range(count):
        world.files[f"vm-{number}.yaml"] = vm(f"vm-{number}")
    await world.look()
    assert len(world.living()) == count


async def restarted(world: ManifestWorld, *, bases: MemoryBaseStore | None = None) -> ManifestWorld:
    await world.stop()
    again = ManifestWorld(world.store, directory=world.directory, bases=bases or world.bases, seed=1)
    await again.start()
    return again


async def test_a_removed_file_begins_the_deletion_of_its_vm(world: ManifestWorld) -> None:
    await many(world, 3)
    before = world.record("vm-1")
    del world.files["vm-1.yaml"]
    await world.settle()
    record = world.record("vm-1")
    assert before is not None
    assert record is not None
    assert record.metadata.deletion_timestamp is not None
    assert record.spec == before.spec
    assert not record.purge
    assert world.stored("vm-1.yaml") is None
    assert world.living() == ["vm-0", "vm-2"]


async def test_bytes_and_deletion_change_in_one_transaction(world: ManifestWorld) -> None:
    await many(world, 3)
    del world.files["vm-1.yaml"]
    await world.look()
    before = world.cache.revision
    await world.look(1.1)
    spec = world.cache.get(keys.spec(Kind.VIRTUAL_MACHINE, "vm-1"))
    assert spec is not None
    assert spec.revision == before + 1
    assert world.stored("vm-1.yaml") is None


async def test_one_scan_without_the_file_is_not_enough(world: ManifestWorld) -> None:
    await many(world, 3)
    gone = world.files.pop("vm-1.yaml")
    again = await world.look()
    assert again <= 1.0
    assert world.living() == ["vm-0", "vm-1", "vm-2"]
    world.files["vm-1.yaml"] = gone
    await world.settle()
    assert world.living() == ["vm-0", "vm-1", "vm-2"]


async def test_absence_has_to_last_without_interruption(world: ManifestWorld) -> None:
    await many(world, 3)
    gone = world.files.pop("vm-1.yaml")
    await world.look()
    world.files["vm-1.yaml"] = gone
    await world.look(0.6)
    del world.files["vm-1.yaml"]
    await world.look(0.6)
    assert "vm-1" in world.living()


async def test_a_pool_is_deleted_at_once(world: ManifestWorld) -> None:
    await many(world, 3)
    world.files["fast.yaml"] = pool("fast")
    await world.look()
    del world.files["fast.yaml"]
    await world.settle()
    assert world.record("fast", Kind.STORAGE_POOL) is None
    assert world.stored("fast.yaml") is None


async def test_a_document_taken_out_of_a_file_deletes_its_object(world: ManifestWorld) -> None:
    world.files["all.yaml"] = together(vm("web"), vm("db"), vm("mail"))
    await world.look()
    world.files["all.yaml"] = together(vm("web"), vm("mail"))
    await world.look()
    assert world.living() == ["db", "mail", "web"]
    await world.settle()
    assert world.living() == ["mail", "web"]
    assert world.stored("all.yaml") == world.files["all.yaml"]


async def test_a_file_of_comments_is_kept_and_forgotten_like_any_other(world: ManifestWorld) -> None:
    await many(world, 2)
    world.files["notes.yaml"] = b"# to do: more memory\n"
    await world.look()
    assert world.stored("notes.yaml") == b"# to do: more memory\n"
    del world.files["notes.yaml"]
    await world.settle()
    assert world.stored("notes.yaml") is None
    assert len(world.living()) == 2


async def test_a_file_removed_while_the_daemon_was_down_deletes_its_object(world: ManifestWorld) -> None:
    await many(world, 3)
    del world.files["vm-1.yaml"]
    again = await restarted(world)
    await again.settle()
    assert again.living() == ["vm-0", "vm-2"]
    await again.stop()


async def test_a_file_that_was_never_here_is_made_from_the_store(world: ManifestWorld) -> None:
    await many(world, 3)
    record = world.record("vm-0")
    assert record is not None
    await world.put(keys.manifest("other.yaml"), vm("other"))
    other = dump(
        type(record)(
            kind=record.kind,
            metadata=type(record.metadata)(name="other", uid="u"),
            spec=record.spec,
            source=type(record.source)(path="other.yaml"),
        )
    )
    await world.put(keys.spec(Kind.VIRTUAL_MACHINE, "other"), other)
    await world.settle()
    assert "other" in world.living()
    assert world.stored("other.yaml") == world.files["other.yaml"] == vm("other")
    assert world.condition("other") is None


async def test_a_node_that_forgot_what_it_had_deletes_nothing(world: ManifestWorld) -> None:
    await many(world, 4)
    del world.files["vm-1.yaml"]
    again = await restarted(world, bases=MemoryBaseStore())
    await again.settle()
    assert len(again.living()) == 4
    assert world.files["vm-1.yaml"] == vm("vm-1")
    del world.files["vm-2.yaml"]
    await again.settle()
    assert again.living() == ["vm-0", "vm-1", "vm-3"]
    await again.stop()


async def test_an_object_that_the_daemon_itself_registered_needs_no_file(world: ManifestWorld) -> None:
    await many(world, 2)
    record = world.record("vm-0")
    assert record is not None
    own = type(record)(
        kind="Node",
        metadata=type(record.metadata)(name="r1", uid="n"),
        spec={},
        source=type(record.source)(path=""),
    )
    await world.put(keys.spec(Kind.NODE, "r1"), dump(own))
    await world.settle()
    assert world.record("r1", Kind.NODE) == own
    assert world.condition("r1", Kind.NODE) is None


# What is not a deletion.


async def test_a_directory_that_vanishes_deletes_nothing_and_recovers_by_itself(
    world: ManifestWorld,
) -> None:
    await many(world, 3)
    world.memory.faults.gone = True
    await world.settle()
    assert len(world.living()) == 3
    assert "not there" in world.sync.status().problem
    world.memory.faults.gone = False
    world.files["vm-0.yaml"] = vm("vm-0", memory="1Gi")
    await world.settle()
    assert world.sync.status().problem == ""
    record = world.record("vm-0")
    assert record is not None
    assert record.spec["memory"] == "1Gi"


async def test_an_unmounted_directory_deletes_nothing_and_is_not_followed(world: ManifestWorld) -> None:
    await many(world, 1)
    marker, files = world.memory.marker, dict(world.files)
    world.memory.marker = ""
    world.files.clear()
    world.files["stray.yaml"] = vm("stray")
    await world.settle()
    assert world.living() == ["vm-0"]
    assert world.memory.marker == ""
    assert marker in world.sync.status().problem
    world.memory.marker = marker
    world.files.clear()
    world.files.update(files)
    await world.settle()
    assert world.sync.status().problem == ""
    assert world.living() == ["vm-0"]


async def test_another_directory_in_its_place_deletes_nothing_and_is_not_followed(
    world: ManifestWorld,
) -> None:
    await many(world, 3)
    world.memory.marker = "somebody-elses"
    world.files.clear()
    world.files["stray.yaml"] = vm("stray")
    await world.settle()
    assert len(world.living()) == 3
    assert "stray" not in world.living()
    assert "somebody-elses" in world.sync.status().problem


async def test_a_lost_marker_is_written_again_when_no_file_is_missing(world: ManifestWorld) -> None:
    await many(world, 3)
    marker, world.memory.marker = world.memory.marker, ""
    await world.look()
    assert world.memory.marker == marker
    assert world.sync.status().problem == ""


async def test_an_empty_store_adopts_a_directory_that_has_a_marker(world: ManifestWorld) -> None:
    world.memory.marker = "from-an-earlier-life"
    await many(world, 2)
    assert world.memory.marker == "from-an-earlier-life"


async def test_a_new_empty_directory_is_marked_and_filled_from_the_store(world: ManifestWorld) -> None:
    await many(world, 2)
    world.memory.marker = ""
    world.files.clear()
    again = await restarted(world, bases=MemoryBaseStore())
    await again.settle()
    assert len(again.living()) == 2
    assert world.memory.marker != ""
    assert world.files == {"vm-0.yaml": vm("vm-0"), "vm-1.yaml": vm("vm-1")}
    await again.stop()


async def test_an_incomplete_scan_deletes_nothing_but_takes_what_it_sees(world: ManifestWorld) -> None:
    await many(world, 4)
    del world.files["vm-1.yaml"]
    world.files["vm-2.yaml"] = vm("vm-2", memory="1Gi")
    world.memory.faults.unreadable["vm-3.yaml"] = "vm-3.yaml cannot be read: Permission denied"
    await world.settle()
    assert len(world.living()) == 4
    record = world.record("vm-2")
    assert record is not None
    assert record.spec["memory"] == "1Gi"
    assert "Permission denied" in world.sync.status().problem
    condition = world.condition("vm-3")
    assert condition is not None
    assert "Permission denied" in condition.message
    world.memory.faults.unreadable.clear()
    await world.settle()
    assert world.living() == ["vm-0", "vm-2", "vm-3"]


async def test_nothing_is_deleted_while_git_works(world: ManifestWorld) -> None:
    await many(world, 4)
    del world.files["vm-1.yaml"]
    world.memory.faults.git_busy = True
    await world.settle()
    assert len(world.living()) == 4
    assert "git" in world.sync.status().problem
    world.memory.faults.git_busy = False
    await world.settle()
    assert world.living() == ["vm-0", "vm-2", "vm-3"]


# The mass-delete guard.


async def test_the_last_objects_all_at_once_are_held_until_confirmed(world: ManifestWorld) -> None:
    await many(world, 2)
    world.files.clear()
    await world.settle()
    assert len(world.living()) == 2
    held = world.service.held()
    assert held is not None
    assert held.objects == (("VirtualMachine", "vm-0"), ("VirtualMachine", "vm-1"))
    assert f"vcl confirm {held.id}" in held.reason
    condition = world.condition("vm-0")
    assert condition is not None
    assert held.id in condition.message
    await world.service.confirm(held.id)
    assert world.living() == []
    assert world.service.held() is None


async def test_a_single_object_may_be_deleted_although_it_is_all(world: ManifestWorld) -> None:
    await many(world, 1)
    world.files.clear()
    await world.settle()
    assert world.living() == []


async def test_a_few_of_many_are_deleted_without_a_word(world: ManifestWorld) -> None:
    await many(world, 5)
    for number in range(3):
        del world.files[f"vm-{number}.yaml"]
    await world.settle()
    assert world.living() == ["vm-3", "vm-4"]


async def test_half_of_many_are_held(world: ManifestWorld) -> None:
    await many(world, 8)
    for number in range(4):
        del world.files[f"vm-{number}.yaml"]
    await world.settle()
    assert len(world.living()) == 8
    assert world.service.held() is not None


async def test_a_slow_removal_of_everything_is_held_as_a_whole(world: ManifestWorld) -> None:
    await many(world, 8)
    for number in range(8):
        del world.files[f"vm-{number}.yaml"]
        await world.look(0.5)
    await world.settle()
    assert len(world.living()) == 8
    held = world.service.held()
    assert held is not None
    assert len(held.objects) == 8


async def test_held_deletions_are_forgotten_when_the_files_come_back(world: ManifestWorld) -> None:
    await many(world, 2)
    files = dict(world.files)
    world.files.clear()
    await world.settle()
    held = world.service.held()
    assert held is not None
    world.files.update(files)
    await world.settle()
    assert world.service.held() is None
    assert world.condition("vm-0") is None
    with pytest.raises(NotFound, match="held"):
        await world.service.confirm(held.id)


async def test_a_confirmation_covers_only_what_was_shown(world: ManifestWorld) -> None:
    await many(world, 8)
    for number in range(4):
        del world.files[f"vm-{number}.yaml"]
    await world.settle()
    held = world.service.held()
    assert held is not None
    del world.files["vm-4.yaml"]
    await world.settle()
    with pytest.raises(NotFound):
        await world.service.confirm(held.id)
    assert len(world.living()) == 8


async def test_others_are_still_taken_while_deletions_are_held(world: ManifestWorld) -> None:
    await many(world, 8)
    world.files.clear()
    world.files["vm-0.yaml"] = vm("vm-0", memory="1Gi")
    world.files["new.yaml"] = vm("new")
    await world.settle()
    assert world.service.held() is not None
    assert len(world.living()) == 9
    record = world.record("vm-0")
    assert record is not None
    assert record.spec["memory"] == "1Gi"


# Coming back.


async def test_a_file_that_comes_back_during_the_deletion_waits_for_its_end(world: ManifestWorld) -> None:
    await many(world, 3)
    before = world.record("vm-1")
    gone = world.files.pop("vm-1.yaml")
    await world.settle()
    world.files["vm-1.yaml"] = gone
    await world.settle()
    record = world.record("vm-1")
    assert record is not None
    assert record.metadata.deletion_timestamp is not None
    waiting = next(file for file in await world.service.files() if file.path == "vm-1.yaml")
    assert waiting.valid
    assert "still being deleted" in waiting.problems[0]
    await world.finish_deletion("vm-1")
    await world.look()
    after = world.record("vm-1")
    assert before is not None
    assert after is not None
    assert after.metadata.uid != before.metadata.uid
    assert after.metadata.deletion_timestamp is None
    await world.look()
    assert world.condition("vm-1") is None


async def test_a_deleted_object_leaves_no_condition_behind(world: ManifestWorld) -> None:
    world.files["web.yaml"] = vm("web")
    await world.look()
    world.files["web.yaml"] = b"kind: [\n"
    await world.settle()
    assert world.condition("web") is not None
    del world.files["web.yaml"]
    await world.settle()
    await world.finish_deletion("web")
    await world.settle()
    assert world.condition("web") is None
    assert isinstance(world.bases, MemoryBaseStore)
    assert world.bases.base == Base(marker=world.memory.marker)
