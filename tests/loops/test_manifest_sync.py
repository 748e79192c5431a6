"""From files to records: what the loop takes, what it keeps, and what it shows when something is wrong."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

from reconciler.planning.manifest_sync import plan_sync
from reconciler.ports.manifests import FileReport
from reconciler.resources import keys
from reconciler.resources.kinds import Kind
from reconciler.resources.records import Intent, dump
from reconciler.resources.scans import Base
from reconciler.sim.manifest_directory import MemoryBaseStore
from reconciler.sim.store import MemoryStore, TxnFault, touching
from reconciler.testing.manifests import ManifestWorld, pool, together, vm


@pytest.fixture
async def world() -> AsyncIterator[ManifestWorld]:
    made = ManifestWorld(MemoryStore())
    await made.start()
    yield made
    await made.stop()


async def report(world: ManifestWorld, path: str) -> FileReport:
    return next(file for file in await world.service.files() if file.path == path)


async def test_a_file_becomes_a_record_with_an_identity(world: ManifestWorld) -> None:
    world.files["web.yaml"] = vm("web", labels="tier: front", comment="mine")
    await world.look()
    record = world.record("web")
    assert record is not None
    assert record.metadata.generation == 1
    assert record.metadata.uid
    assert record.metadata.labels == {"tier": "front"}
    assert record.metadata.creation_timestamp == "2026-01-31T12:00:00Z"
    assert record.spec == {"cpu": {"cores": 1}, "memory": "64Mi"}
    assert (record.source.path, record.source.line) == ("web.yaml", 2)
    assert world.stored("web.yaml") == world.files["web.yaml"]
    assert world.condition("web") is None


async def test_bytes_and_records_change_in_one_transaction(world: ManifestWorld) -> None:
    world.files["web.yaml"] = vm("web")
    await world.look()
    file, spec = world.cache.get(keys.manifest("web.yaml")), world.cache.get("spec/VirtualMachine/web")
    assert file is not None
    assert spec is not None
    assert file.revision == spec.revision


async def test_a_change_of_the_spec_counts_a_generation_and_keeps_the_identity(world: ManifestWorld) -> None:
    world.files["web.yaml"] = vm("web")
    await world.look()
    before = world.record("web")
    world.files["web.yaml"] = vm("web", memory="128Mi")
    await world.look(60)
    after = world.record("web")
    assert before is not None
    assert after is not None
    assert after.metadata.generation == 2
    assert after.metadata.uid == before.metadata.uid
    assert after.metadata.creation_timestamp == before.metadata.creation_timestamp


@pytest.mark.parametrize(
    "edited",
    [
        vm("web", comment="a comment"),
        vm("web", labels="tier: front"),
        b'{"apiVersion": "vcl/v1", "kind": "VirtualMachine", "metadata": {"name": "web"},'
        b' "spec": {"memory": "64Mi", "cpu": {"cores": 1}}}',
    ],
    ids=["comment", "label", "order"],
)
async def test_what_does_not_change_the_spec_counts_no_generation(
    world: ManifestWorld, edited: bytes
) -> None:
    world.files["web.yaml"] = vm("web")
    await world.look()
    world.files["web.yaml"] = edited
    await world.look()
    record = world.record("web")
    assert record is not None
    assert record.metadata.generation == 1
    assert world.stored("web.yaml") == edited


async def test_a_look_without_changes_writes_nothing(world: ManifestWorld) -> None:
    world.files["all.yaml"] = together(vm("web"), pool("fast"))
    await world.look()
    revision = world.cache.revision
    again = await world.look(2)
    assert world.cache.revision == revision
    assert 25 < again < 35


async def test_a_broken_file_keeps_the_last_good_spec_and_says_where_it_is_wrong(
    world: ManifestWorld,
) -> None:
    world.files["all.yaml"] = together(vm("web"), vm("db"))
    await world.look()
    world.files["all.yaml"] = together(vm("web", memory="128Mi"), vm("db", memory="8Gb"))
    await world.settle()
    web = world.record("web")
    assert web is not None
    assert web.spec["memory"] == "64Mi"
    assert world.stored("all.yaml") == world.files["all.yaml"]
    for name in ("web", "db"):
        condition = world.condition(name)
        assert condition is not None
        assert not condition.valid
        assert condition.message.startswith("all.yaml:15:11: spec.memory")
        assert "8Gb" in condition.message
    assert not (await report(world, "all.yaml")).valid


async def test_the_condition_goes_when_the_file_is_repaired(world: ManifestWorld) -> None:
    world.files["web.yaml"] = vm("web")
    await world.look()
    world.files["web.yaml"] = b"kind: [\n"
    await world.settle()
    assert world.condition("web") is not None
    world.files["web.yaml"] = vm("web", memory="128Mi")
    await world.look()
    await world.look()
    assert world.condition("web") is None
    record = world.record("web")
    assert record is not None
    assert record.metadata.generation == 2


async def test_it_is_noted_since_when_a_manifest_is_valid_or_not(world: ManifestWorld) -> None:
    async def since(content: bytes) -> str:
        world.files["web.yaml"] = content
        await world.settle()
        noted = world.manifest_status("web")
        return noted.since if noted else "always"

    assert await since(vm("web")) == "always"
    broken = await since(b"kind: [\n")
    assert broken not in ("", "always")
    assert await since(b"kind: [[\n") == broken
    repaired = await since(vm("web"))
    assert repaired > broken
    assert await since(vm("web", memory="128Mi")) == repaired
    del world.files["web.yaml"]
    await world.settle()
    await world.finish_deletion("web")
    await world.settle()
    assert world.manifest_status("web") is None


async def test_nothing_of_a_new_file_that_is_partly_broken_is_taken(world: ManifestWorld) -> None:
    world.files["all.yaml"] = together(vm("web"), vm("db", memory="8Gb"))
    await world.settle()
    assert world.living() == []
    assert world.stored("all.yaml") == world.files["all.yaml"]
    assert (await report(world, "all.yaml")).objects == (("VirtualMachine", "db"), ("VirtualMachine", "web"))


async def test_a_half_written_file_is_not_reported_before_it_had_time(world: ManifestWorld) -> None:
    world.files["web.yaml"] = vm("web")
    await world.look()
    world.files["web.yaml"] = vm("web", memory="128Mi")[:70]
    again = await world.look()
    assert again <= 1.0
    assert world.condition("web") is None
    world.files["web.yaml"] = vm("web", memory="128Mi")
    await world.look(0.1)
    record = world.record("web")
    assert record is not None
    assert record.spec["memory"] == "128Mi"
    assert world.condition("web") is None


async def test_an_emptied_file_is_not_a_deletion_while_an_editor_writes_it(world: ManifestWorld) -> None:
    world.files["web.yaml"] = vm("web")
    await world.look()
    world.files["web.yaml"] = b""
    await world.look()
    world.files["web.yaml"] = vm("web")
    await world.settle()
    record = world.record("web")
    assert record is not None
    assert record.metadata.deletion_timestamp is None


async def test_a_copy_does_not_disturb_the_original_and_both_are_named(world: ManifestWorld) -> None:
    world.files["x.yaml"] = vm("web")
    await world.look()
    world.files["x2.yaml"] = vm("web", memory="1Gi")
    await world.settle()
    record = world.record("web")
    assert record is not None
    assert record.spec["memory"] == "64Mi"
    assert record.source.path == "x.yaml"
    condition = world.condition("web")
    assert condition is not None
    assert not condition.valid
    assert "x.yaml and x2.yaml" in condition.message
    for path in ("x.yaml", "x2.yaml"):
        problems = (await report(world, path)).problems
        assert "x.yaml and x2.yaml" in problems[0]


async def test_neither_of_two_files_is_taken_while_both_define_an_object(world: ManifestWorld) -> None:
    world.files["x.yaml"] = vm("web")
    await world.look()
    world.files["x2.yaml"] = together(vm("web", memory="1Gi"), vm("db"))
    world.files["x.yaml"] = vm("web", memory="2Gi")
    await world.settle()
    assert world.living() == ["web"]
    record = world.record("web")
    assert record is not None
    assert record.spec["memory"] == "64Mi"
    world.files["x2.yaml"] = vm("db")
    await world.settle()
    record = world.record("web")
    assert record is not None
    assert record.spec["memory"] == "2Gi"
    assert world.living() == ["db", "web"]
    assert world.condition("web") is None


async def test_an_object_twice_in_one_file_makes_the_file_invalid(world: ManifestWorld) -> None:
    world.files["web.yaml"] = together(vm("web"), vm("web", memory="1Gi"))
    await world.settle()
    assert world.living() == []
    assert "is defined on line 1 of this file already" in (await report(world, "web.yaml")).problems[0]


async def test_a_file_broken_and_renamed_at_once_still_protects_its_object(world: ManifestWorld) -> None:
    world.files["web.yaml"] = vm("web")
    world.files["db.yaml"] = vm("db")
    await world.look()
    merge = b"<<<<<<< HEAD\n" + world.files.pop("web.yaml") + b"=======\n>>>>>>> other\n"
    world.files["server.yaml"] = merge
    await world.settle()
    assert world.living() == ["db", "web"]
    condition = world.condition("web")
    assert condition is not None
    assert "server.yaml" in condition.message


async def test_a_renamed_file_keeps_the_object(world: ManifestWorld) -> None:
    world.files["web.yaml"] = vm("web")
    await world.look()
    before = world.record("web")
    world.files["server.yaml"] = world.files.pop("web.yaml")
    await world.settle()
    after = world.record("web")
    assert before is not None
    assert after is not None
    assert after.metadata == before.metadata
    assert after.source.path == "server.yaml"
    assert world.stored("web.yaml") is None
    assert world.stored("server.yaml") == vm("web")
    assert world.condition("web") is None


async def test_a_document_that_moves_to_another_file_keeps_the_object(world: ManifestWorld) -> None:
    world.files["a.yaml"] = together(vm("web"), vm("db"))
    world.files["b.yaml"] = vm("mail")
    await world.look()
    before = world.record("web")
    world.files["a.yaml"] = vm("db")
    world.files["b.yaml"] = together(vm("mail"), vm("web"))
    await world.settle()
    after = world.record("web")
    assert before is not None
    assert after is not None
    assert after.metadata == before.metadata
    assert after.source.path == "b.yaml"


async def test_a_change_of_run_strategy_clears_what_start_and_stop_asked_for(world: ManifestWorld) -> None:
    world.files["web.yaml"] = vm("web")
    world.files["db.yaml"] = vm("db")
    await world.look()
    for name in ("web", "db"):
        await world.put(
            keys.intent(Kind.VIRTUAL_MACHINE, name),
            dump(Intent(run="Stop", paused=name == "db", requested="x")),
        )
    world.files["web.yaml"] = vm("web", extra="  runStrategy: Halted\n")
    world.files["db.yaml"] = vm("db", extra="  runStrategy: Halted\n")
    await world.look()
    assert world.intent("web") is None
    assert world.intent("db") == Intent(run=None, paused=True, requested="x")


async def test_another_change_of_the_spec_leaves_intents_alone(world: ManifestWorld) -> None:
    world.files["web.yaml"] = vm("web")
    await world.look()
    asked = Intent(run="Stop", requested="x")
    await world.put(keys.intent(Kind.VIRTUAL_MACHINE, "web"), dump(asked))
    world.files["web.yaml"] = vm("web", memory="128Mi")
    await world.look()
    assert world.intent("web") == asked


async def test_a_reference_to_nothing_is_taken_and_remarked(world: ManifestWorld) -> None:
    world.files["web.yaml"] = vm("web", extra="  disks:\n    - {name: root, size: 1Gi, pool: fast}\n")
    await world.look()
    await world.look()
    assert world.living() == ["web"]
    condition = world.condition("web")
    assert condition is not None
    assert condition.valid
    assert "there is no StoragePool 'fast'" in condition.message
    world.files["fast.yaml"] = pool("fast")
    await world.look()
    await world.look()
    assert world.condition("web") is None


async def test_a_thousand_files_are_taken_in_few_transactions(world: ManifestWorld) -> None:
    for number in range(1000):
        world.files[f"vm-{number:04d}.yaml"] = vm(f"vm-{number:04d}")
    before = world.cache.revision
    await world.look()
    assert len(world.living()) == 1000
    assert world.cache.revision - before <= 20


async def test_a_store_that_refuses_is_tried_again(world: ManifestWorld) -> None:
    assert isinstance(world.store, MemoryStore)
    world.files["web.yaml"] = vm("web")
    world.store.arm(TxnFault.REFUSED, when=touching(keys.MANIFESTS))
    again = await world.look()
    assert again <= 1.0
    assert "refused" in world.sync.status().problem
    await world.look()
    assert world.living() == ["web"]
    assert world.sync.status().problem == ""


@pytest.mark.parametrize("fault", [TxnFault.APPLIED, TxnFault.LOST])
async def test_an_unknown_outcome_never_makes_the_object_twice(world: ManifestWorld, fault: TxnFault) -> None:
    assert isinstance(world.store, MemoryStore)
    world.files["web.yaml"] = vm("web")
    world.store.arm(fault, when=touching(keys.MANIFESTS))
    await world.look()
    await world.look()
    record = world.record("web")
    assert record is not None
    assert record.metadata.generation == 1
    assert world.stored("web.yaml") == vm("web")


async def test_a_record_changed_by_somebody_else_is_decided_about_again(world: ManifestWorld) -> None:
    world.files["web.yaml"] = vm("web")
    await world.look()
    record = world.record("web")
    assert record is not None
    world.files["web.yaml"] = vm("web", memory="128Mi")
    plan = plan_sync(await world.sync.look())
    await world.put(keys.spec(Kind.VIRTUAL_MACHINE, "web"), dump(record))
    write = plan.writes[0]
    result = await world.writer.commit(compares=write.compares, puts=write.puts, deletes=())
    assert getattr(result, "keys", None) == ("spec/VirtualMachine/web",)
    await world.look()
    after = world.record("web")
    assert after is not None
    assert after.spec["memory"] == "128Mi"


async def test_nothing_happens_before_the_store_is_ready() -> None:
    world = ManifestWorld(MemoryStore())
    await world.cache.step(0.0)
    world.files["web.yaml"] = vm("web")
    again = await world.look()
    assert again <= 1.0
    assert world.sync.status().problem == "the store is not ready yet"


async def test_a_restart_changes_nothing(world: ManifestWorld) -> None:
    world.files["web.yaml"] = vm("web")
    await world.look()
    revision = world.cache.revision
    again = ManifestWorld(world.store, directory=world.directory, bases=world.bases, seed=1)
    await again.start()
    await again.settle()
    await again.stop()
    assert again.cache.revision == revision


async def test_a_crash_between_file_and_store_is_caught_up_with(world: ManifestWorld) -> None:
    assert isinstance(world.store, MemoryStore)
    await world.look()
    world.store.arm(TxnFault.REFUSED, when=touching(keys.MANIFESTS))
    world.files["web.yaml"] = vm("web")
    await world.look()
    await world.stop()
    again = ManifestWorld(world.store, directory=world.directory, bases=world.bases, seed=1)
    await again.start()
    await again.look()
    assert again.living() == ["web"]
    del world.files["web.yaml"]
    await again.settle()
    assert again.living() == []
    await again.stop()


async def test_a_full_state_directory_keeps_nothing_from_being_taken(world: ManifestWorld) -> None:
    assert isinstance(world.bases, MemoryBaseStore)
    await world.look()
    saved = world.bases.base
    world.bases.full = True
    world.files["web.yaml"] = vm("web")
    await world.look()
    assert world.living() == ["web"]
    assert world.bases.base == saved
    world.bases.full = False
    await world.look()
    assert set(world.bases.base.files) == {"web.yaml"}


async def test_the_loop_follows_hints_and_says_each_transition_once(
    world: ManifestWorld, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    running = asyncio.create_task(world.sync.run())
    async with asyncio.timeout(5):
        while world.sync.last is None:
            await asyncio.sleep(0.01)
        world.files["web.yaml"] = vm("web")
        world.memory.hint()
        while world.record("web") is None:
            await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    lines = [line for line in caplog.messages if "VirtualMachine/web" in line]
    assert lines == ["manifests: VirtualMachine/web: created from web.yaml"]


async def test_status_tells_what_is_ignored_and_invalid(world: ManifestWorld) -> None:
    world.memory.faults.ignored["pipe.yaml"] = "is a FIFO, not a regular file"
    world.files["bad.yaml"] = b"kind: [\n"
    await world.settle()
    status = world.sync.status()
    assert status.invalid == ("bad.yaml",)
    assert status.ignored == {"pipe.yaml": "is a FIFO, not a regular file"}
    assert (await report(world, "pipe.yaml")).problems == ("pipe.yaml is a FIFO, not a regular file",)


async def test_the_first_look_marks_the_directory(world: ManifestWorld) -> None:
    assert isinstance(world.bases, MemoryBaseStore)
    await world.look()
    assert world.bases.base.marker == world.memory.marker != ""
    assert world.bases.base == Base(marker=world.memory.marker)
