"""apply, delete and look, as the API offers them: byte for byte, atomic for each file, nothing by the way."""

from __future__ import annotations

from collections.abc import AsyncIterator
from hashlib import sha256

import pytest

from reconciler.ports.manifests import ApplyInput, ApplyOutcome, ApplyResult
from reconciler.resources.errors import ConflictError, ManifestDirectoryError, NotFound
from reconciler.resources.kinds import Kind
from reconciler.sim.store import MemoryStore
from reconciler.testing.manifests import ManifestWorld, pool, together, vm


@pytest.fixture
async def world() -> AsyncIterator[ManifestWorld]:
    made = ManifestWorld(MemoryStore())
    await made.start()
    await made.look()
    yield made
    await made.stop()


async def apply(
    world: ManifestWorld, *contents: bytes, path: str | None = None, dry_run: bool = False
) -> list[ApplyResult]:
    inputs = [
        ApplyInput(name=f"input-{number}.yaml", content=content, path=path)
        for number, content in enumerate(contents)
    ]
    return list((await world.service.apply(inputs, dry_run=dry_run)).results)


async def test_a_new_object_gets_a_file_of_its_own_byte_for_byte(world: ManifestWorld) -> None:
    content = vm("Web", comment="as I wrote it   ")
    (result,) = await apply(world, content)
    assert result.result is ApplyOutcome.CREATED
    assert (result.kind, result.name, result.path) == ("VirtualMachine", "Web", "virtualmachine-web.yaml")
    assert world.files["virtualmachine-web.yaml"] == content
    assert world.stored("virtualmachine-web.yaml") == content
    assert world.living() == ["Web"]


async def test_names_that_differ_in_case_only_get_different_files(world: ManifestWorld) -> None:
    results = await apply(world, vm("web"), vm("Web"))
    assert [result.error for result in results] == [None, None]
    assert sorted(world.files) == ["virtualmachine-Web.yaml", "virtualmachine-web.yaml"]


async def test_the_file_that_defines_the_object_is_replaced(world: ManifestWorld) -> None:
    world.files["servers/web.yml"] = vm("web")
    await world.look()
    (result,) = await apply(world, vm("web", memory="1Gi"))
    assert (result.result, result.path) == (ApplyOutcome.CONFIGURED, "servers/web.yml")
    assert world.files == {"servers/web.yml": vm("web", memory="1Gi")}


async def test_equal_bytes_are_unchanged_and_not_written(world: ManifestWorld) -> None:
    await apply(world, vm("web"))
    revision = world.cache.revision
    (result,) = await apply(world, vm("web"))
    assert result.result is ApplyOutcome.UNCHANGED
    assert world.cache.revision == revision


async def test_a_new_comment_is_written_although_the_object_is_unchanged(world: ManifestWorld) -> None:
    await apply(world, vm("web"))
    (result,) = await apply(world, vm("web", comment="why"))
    assert result.result is ApplyOutcome.UNCHANGED
    assert world.stored("virtualmachine-web.yaml") == vm("web", comment="why")


async def test_each_object_of_a_file_has_its_result(world: ManifestWorld) -> None:
    await apply(world, together(vm("web"), vm("db")))
    results = await apply(world, together(vm("web"), vm("db", memory="1Gi"), vm("mail")))
    assert [(result.name, result.result.value) for result in results] == [
        ("web", "unchanged"),
        ("db", "configured"),
        ("mail", "created"),
    ]


async def test_a_dry_run_tells_and_changes_nothing(world: ManifestWorld) -> None:
    await apply(world, vm("web"))
    results = await apply(world, vm("web", memory="1Gi"), vm("db"), dry_run=True)
    assert [result.result.value for result in results] == ["configured", "created"]
    assert world.files == {"virtualmachine-web.yaml": vm("web")}
    assert world.living() == ["web"]


async def test_objects_of_one_input_in_several_files_are_refused_by_name(world: ManifestWorld) -> None:
    world.files["a.yaml"], world.files["b.yaml"] = vm("web"), vm("db")
    await world.look()
    results = await apply(world, together(vm("web", memory="1Gi"), vm("db")))
    assert all(result.result is ApplyOutcome.FAILED for result in results)
    assert results[0].error is not None
    assert "db in b.yaml, web in a.yaml" in results[0].error
    assert world.files["a.yaml"] == vm("web")


async def test_an_input_never_drops_another_object_of_the_file(world: ManifestWorld) -> None:
    world.files["all.yaml"] = together(vm("web"), vm("db"))
    await world.look()
    (result,) = await apply(world, vm("web", memory="1Gi"))
    assert result.error is not None
    assert "also defines VirtualMachine/db" in result.error
    assert world.files["all.yaml"] == together(vm("web"), vm("db"))


async def test_invalid_inputs_write_nothing_and_the_others_go_on(world: ManifestWorld) -> None:
    inputs = [
        ApplyInput(name="bad.yaml", content=together(vm("ok"), vm("bad", memory="8Gb"))),
        ApplyInput(name="syntax.yaml", content=b"kind: [\n"),
        ApplyInput(name="none.yaml", content=b"# nothing\n"),
        ApplyInput(name="good.yaml", content=vm("good")),
    ]
    report = await world.service.apply(inputs, dry_run=False)
    failed = [(result.source, result.name) for result in report.results if result.error]
    assert failed == [("bad.yaml", "bad"), ("bad.yaml", "ok"), ("syntax.yaml", ""), ("none.yaml", "")]
    assert any(problem.startswith("bad.yaml:15:11: spec.memory: must be") for problem in report.problems)
    assert world.living() == ["good"]
    assert list(world.files) == ["virtualmachine-good.yaml"]


async def test_one_object_in_two_inputs_is_refused(world: ManifestWorld) -> None:
    results = await apply(world, vm("web"), vm("web", memory="1Gi"))
    assert all(result.result is ApplyOutcome.FAILED for result in results)
    assert world.files == {}


async def test_two_vms_on_one_image_are_refused(world: ManifestWorld) -> None:
    shared = "  disks:\n    - {name: root, image: shared, size: 1Gi}\n"
    await apply(world, vm("web", extra=shared))
    (result,) = await apply(world, vm("db", extra=shared))
    assert result.error is not None
    assert "image 'shared'" in result.error
    assert world.living() == ["web"]


async def test_a_reference_to_nothing_is_a_warning(world: ManifestWorld) -> None:
    (result,) = await apply(world, vm("web", extra="  disks:\n    - {name: root, size: 1Gi, pool: fast}\n"))
    assert result.result is ApplyOutcome.CREATED
    assert "there is no StoragePool 'fast'" in result.warnings[0]


async def test_edit_replaces_the_file_that_it_was_given(world: ManifestWorld) -> None:
    world.files["all.yaml"] = together(vm("web"), vm("db"), vm("mail"))
    await world.look()
    results = await apply(world, together(vm("web", memory="1Gi"), vm("mail")), path="all.yaml")
    assert [result.result.value for result in results] == ["configured", "unchanged"]
    await world.settle()
    assert world.living() == ["mail", "web"]


@pytest.mark.parametrize(
    "path", ["../web.yaml", "/etc/web.yaml", ".hidden.yaml", "web.txt", "web.conflict-r1.yaml", "a//b.yaml"]
)
async def test_a_path_that_would_not_be_followed_is_refused(world: ManifestWorld, path: str) -> None:
    (result,) = await apply(world, vm("web"), path=path)
    assert result.error is not None
    assert path in result.error
    assert world.files == {}


async def test_a_broken_file_is_repaired_by_applying_its_object(world: ManifestWorld) -> None:
    world.files["servers.yaml"] = vm("web")
    await world.look()
    world.files["servers.yaml"] = vm("web", memory="8Gb")
    await world.settle()
    (result,) = await apply(world, vm("web", memory="8Gi"))
    assert (result.result, result.path) == (ApplyOutcome.CONFIGURED, "servers.yaml")


async def test_a_file_that_cannot_be_understood_is_not_overwritten(world: ManifestWorld) -> None:
    world.files["virtualmachine-web.yaml"] = b"]]] notes of mine\n"
    await world.settle()
    (result,) = await apply(world, vm("web"))
    assert result.error is not None
    assert "cannot be understood" in result.error
    assert world.files["virtualmachine-web.yaml"] == b"]]] notes of mine\n"


async def test_an_edit_between_look_and_write_wins(world: ManifestWorld) -> None:
    await apply(world, vm("web"))

    def edit() -> None:
        world.files["virtualmachine-web.yaml"] = vm("web", comment="mine")

    world.memory.before_write = edit
    (result,) = await apply(world, vm("web", memory="1Gi"))
    assert result.error is not None
    assert "changed by somebody else" in result.error
    assert world.files["virtualmachine-web.yaml"] == vm("web", comment="mine")


async def test_a_change_that_began_from_older_bytes_is_refused(world: ManifestWorld) -> None:
    world.files["web.yaml"] = vm("web")
    await world.look()
    began = sha256(vm("web")).hexdigest()

    async def change(content: bytes) -> str | None:
        one = ApplyInput(name="draft", content=content, path="web.yaml", expect=began)
        (result,) = (await world.service.apply([one], dry_run=False)).results
        return result.error

    assert await change(vm("web", memory="1Gi")) is None
    error = await change(vm("web", memory="3Gi"))
    assert error == ("web.yaml was changed by somebody else meanwhile; look at it, and make the change again")
    assert world.files["web.yaml"] == vm("web", memory="1Gi")
    del world.files["web.yaml"]
    assert "web.yaml was removed by somebody else" in str(await change(vm("web", memory="3Gi")))
    assert world.files == {}


async def test_a_full_disk_is_a_failed_result(world: ManifestWorld) -> None:
    world.memory.faults.full = True
    (result,) = await apply(world, vm("web"))
    assert result.result is ApplyOutcome.FAILED
    assert result.error is not None
    assert "as it was" in result.error


async def test_nothing_is_written_into_the_wrong_directory(world: ManifestWorld) -> None:
    await apply(world, vm("web"))
    world.memory.marker = ""
    world.files.clear()
    with pytest.raises(ManifestDirectoryError, match="mounted"):
        await apply(world, vm("db"))
    assert world.files == {}


async def test_a_store_that_is_down_leaves_the_file_and_says_so(world: ManifestWorld) -> None:
    assert isinstance(world.store, MemoryStore)
    world.store.down = True
    (result,) = await apply(world, vm("web"))
    assert result.error is not None
    assert "the store does not have it yet" in result.error
    world.store.down = False
    await world.look()
    assert world.living() == ["web"]


async def test_an_object_that_is_being_deleted_is_not_applied(world: ManifestWorld) -> None:
    await apply(world, vm("web"))
    await world.service.delete("vm", "web", purge=False)
    (result,) = await apply(world, vm("web"))
    assert result.error is not None
    assert "vcl wait --for=delete virtualmachine/web" in result.error
    assert world.files == {}


async def test_json_is_kept_as_json(world: ManifestWorld) -> None:
    content = b'{"apiVersion": "vcl/v1", "kind": "StoragePool", "metadata": {"name": "fast"},\n' + (
        b'\t"spec": {"type": "directory", "directory": {"path": "/srv"}}}\n'
    )
    report = await world.service.apply([ApplyInput(name="fast.json", content=content)], dry_run=False)
    assert report.results[0].path == "storagepool-fast.json"
    assert world.stored("storagepool-fast.json") == content


async def test_a_thousand_inputs_are_applied_together(world: ManifestWorld) -> None:
    results = await apply(world, *(vm(f"vm-{number}") for number in range(300)))
    assert {result.result for result in results} == {ApplyOutcome.CREATED}
    assert len(world.living()) == 300


# delete


async def test_delete_removes_the_file_and_begins_the_deletion_at_once(world: ManifestWorld) -> None:
    await apply(world, vm("web"))
    await world.service.delete("vm", "web", purge=False)
    assert world.files == {}
    assert world.stored("virtualmachine-web.yaml") is None
    record = world.record("web")
    assert record is not None
    assert record.metadata.deletion_timestamp is not None
    assert not record.purge


async def test_delete_is_not_held_by_the_mass_delete_guard(world: ManifestWorld) -> None:
    await apply(world, vm("web"), vm("db"))
    await world.service.delete("VirtualMachine", "web", purge=False)
    await world.service.delete("VirtualMachine", "db", purge=False)
    assert world.living() == []


async def test_purge_is_remembered_and_can_be_added_later(world: ManifestWorld) -> None:
    await apply(world, vm("web"), vm("db"), vm("mail"))
    await world.service.delete("vms", "web", purge=True)
    await world.service.delete("vms", "db", purge=False)
    await world.service.delete("vms", "db", purge=True)
    for name in ("web", "db"):
        record = world.record(name)
        assert record is not None
        assert record.purge


async def test_a_document_is_cut_out_and_every_other_byte_stays(world: ManifestWorld) -> None:
    head = b"# yaml-language-server: $schema=x.json\n# all of ours\n\n"
    world.files["all.yaml"] = head + together(vm("web"), vm("db", comment="the database"), vm("mail"))
    await world.look()
    await world.service.delete("vm", "db", purge=False)
    assert world.files["all.yaml"] == head + together(vm("web"), vm("mail"))
    assert world.living() == ["mail", "web"]
    await world.service.delete("vm", "web", purge=False)
    assert world.files["all.yaml"] == head + b"---\n" + vm("mail")
    await world.service.delete("vm", "mail", purge=False)
    assert world.files == {}


async def test_deleting_what_is_not_there_is_not_found(world: ManifestWorld) -> None:
    with pytest.raises(NotFound, match="virtualmachine 'web' not found"):
        await world.service.delete("vm", "web", purge=False)
    with pytest.raises(NotFound, match="no kind"):
        await world.service.delete("pods", "web", purge=False)


async def test_deleting_twice_is_fine(world: ManifestWorld) -> None:
    await apply(world, vm("web"))
    await world.service.delete("vm", "web", purge=False)
    revision = world.cache.revision
    await world.service.delete("vm", "web", purge=False)
    assert world.cache.revision == revision


async def test_an_object_without_a_file_is_deleted_all_the_same(world: ManifestWorld) -> None:
    await apply(world, vm("web"), vm("db"))
    world.files.clear()
    await world.look()
    await world.service.delete("vm", "web", purge=False)
    record = world.record("web")
    assert record is not None
    assert record.metadata.deletion_timestamp is not None
    assert "db" in world.living()


async def test_a_pool_is_gone_after_delete(world: ManifestWorld) -> None:
    await apply(world, pool("fast"))
    await world.service.delete("pool", "fast", purge=False)
    assert world.record("fast", Kind.STORAGE_POOL) is None


async def test_a_broken_file_is_not_thrown_away_by_delete(world: ManifestWorld) -> None:
    world.files["web.yaml"] = vm("web")
    await world.look()
    world.files["web.yaml"] = vm("web", memory="8Gb")
    await world.settle()
    with pytest.raises(ConflictError, match="is not valid"):
        await world.service.delete("vm", "web", purge=False)
    assert world.living() == ["web"]
    assert "web.yaml" in world.files


async def test_an_object_of_two_files_is_not_deleted_by_guessing(world: ManifestWorld) -> None:
    world.files["x.yaml"] = vm("web")
    await world.look()
    world.files["y.yaml"] = vm("web")
    await world.settle()
    with pytest.raises(ConflictError, match=r"x\.yaml and y\.yaml"):
        await world.service.delete("vm", "web", purge=False)


async def test_a_delete_that_cannot_write_is_forgotten(world: ManifestWorld) -> None:
    await apply(world, vm("web"), vm("db"))
    world.memory.faults.full = True
    with pytest.raises(ManifestDirectoryError):
        await world.service.delete("vm", "web", purge=True)
    world.memory.faults.full = False
    await world.settle()
    assert world.living() == ["db", "web"]


# looking


async def test_files_and_their_bytes_can_be_read(world: ManifestWorld) -> None:
    await apply(world, together(vm("web"), pool("fast")))
    (file,) = await world.service.files()
    assert file.valid
    assert file.objects == (("StoragePool", "fast"), ("VirtualMachine", "web"))
    assert await world.service.read(file.path) == together(vm("web"), pool("fast"))
    with pytest.raises(NotFound, match=r"other\.yaml"):
        await world.service.read("other.yaml")
