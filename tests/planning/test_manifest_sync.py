"""The plans behind the manifest directory, as functions of their arguments."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.planning.admission import admit, settle_intent, terminate
from reconciler.planning.manifest_apply import counts, default_path, path_problem
from reconciler.planning.manifest_marker import Adopt, Create, Known, Refuse, judge_marker
from reconciler.planning.manifest_parsed import file_view
from reconciler.planning.manifest_sync import plan_sync
from reconciler.planning.manifest_values import (
    Absences,
    Asked,
    FileView,
    Manifest,
    Moment,
    ObjectKey,
    StoredFile,
    StoredObject,
    StoreView,
    SyncView,
)
from reconciler.resources import keys
from reconciler.resources.kinds import Kind
from reconciler.resources.records import Intent, SpecRecord, load
from reconciler.resources.scans import Base, ManifestFile, Scan
from reconciler.testing.manifest_directory_contract import digest
from reconciler.testing.manifests import parse, together, vm

SEED = "00000000-0000-4000-8000-000000000000"
NOW = Moment(monotonic=100.0, wall="2026-01-31T12:00:00Z", seed=SEED)
LATER = replace(NOW, monotonic=200.0, wall="2026-01-31T12:01:40Z")
WEB = ObjectKey(Kind.VIRTUAL_MACHINE, "web")


def file(path: str, data: bytes, age: float = 10.0) -> FileView:
    return replace(file_view(parse(path, data), digest=digest(data), data=data), age=age)


def view(files: dict[str, bytes], store: StoreView | None = None, **changes: object) -> SyncView:
    made = SyncView(
        scan=Scan(complete=True, marker="m"),
        files=tuple(file(path, data) for path, data in sorted(files.items())),
        store=store or StoreView(),
        base=Base(marker="m"),
        absences=Absences(),
        moment=NOW,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def applied(before: SyncView) -> SyncView:
    """The view after the plan was committed and saved."""
    plan = plan_sync(before)
    files, objects = dict(before.store.files), dict(before.store.objects)
    revision = 1 + max((f.revision for f in files.values()), default=0)
    for write in plan.writes:
        for key, value in write.puts.items():
            if key.startswith(keys.MANIFESTS):
                files[keys.manifest_path(key)] = StoredFile(digest=digest(value), revision=revision)
            found = keys.split_object(key, keys.SPECS)
            if found is not None:
                objects[ObjectKey(*found)] = StoredObject(record=load(SpecRecord, value), revision=revision)
        for key in write.deletes:
            files.pop(keys.manifest_path(key), None)
            found = keys.split_object(key, keys.SPECS)
            if found is not None:
                objects.pop(ObjectKey(*found), None)
    return replace(
        before, store=StoreView(files=files, objects=objects), base=plan.base, absences=plan.absences
    )


def test_the_same_view_gives_the_same_plan() -> None:
    seen = view({"a.yaml": together(vm("web"), vm("db")), "b.yaml": b"kind: [\n"})
    assert plan_sync(seen) == plan_sync(seen)


def test_every_write_compares_all_that_it_was_decided_on() -> None:
    write = plan_sync(view({"a.yaml": together(vm("web"), vm("db"))})).writes[0]
    assert write.compares == {"manifest/a.yaml": 0, "spec/VirtualMachine/db": 0, "spec/VirtualMachine/web": 0}
    after = applied(view({"a.yaml": vm("web")}))
    changed = replace(after, files=(file("a.yaml", vm("web", memory="1Gi")),))
    assert plan_sync(changed).writes[0].compares == {"manifest/a.yaml": 1, "spec/VirtualMachine/web": 1}


def test_a_plan_that_was_carried_out_has_no_successor() -> None:
    after = applied(view({"a.yaml": together(vm("web"), vm("db")), "c.yaml": vm("c")}))
    plan = plan_sync(after)
    assert plan.writes == ()
    assert plan.statuses == ()
    assert plan.again is None


def test_batches_are_bounded_and_never_split_a_file() -> None:
    files = {f"{number:03}.yaml": together(vm(f"a{number}"), vm(f"b{number}")) for number in range(120)}
    plan = plan_sync(view(files))
    assert [sum(key.startswith("manifest/") for key in write.puts) for write in plan.writes] == [50, 50, 20]
    for write in plan.writes:
        assert len(write.puts) == 3 * sum(key.startswith("manifest/") for key in write.puts)


def test_the_base_names_bytes_before_they_are_written() -> None:
    after = applied(view({"a.yaml": vm("web")}))
    changed = replace(after, files=(file("a.yaml", vm("web", memory="1Gi")),))
    plan = plan_sync(changed)
    assert plan.base.files["a.yaml"] == (digest(vm("web")), digest(vm("web", memory="1Gi")))
    settled = replace(applied(changed), files=changed.files)
    assert plan_sync(settled).base.files["a.yaml"] == (digest(vm("web", memory="1Gi")),)


names = st.sampled_from(["web", "db", "mail"])
contents = st.one_of(
    st.builds(lambda n, m: vm(n, memory=m), names, st.sampled_from(["64Mi", "1Gi", "8Gb"])),
    st.builds(lambda a, b: together(vm(a), vm(b)), names, names),
    st.sampled_from([b"", b"# empty\n", b"kind: [\n"]),
)
directories = st.dictionaries(st.sampled_from(["a.yaml", "b.yaml", "c.yaml"]), contents)


@settings(max_examples=200, deadline=None)
@given(st.lists(directories, min_size=1, max_size=5))
def test_no_sequence_of_edits_deletes_what_a_file_defines_or_may_define(
    history: list[dict[str, bytes]],
) -> None:
    state = view({})
    moment = 100.0
    for files in history:
        current = tuple(file(path, data) for path, data in sorted(files.items()))
        broken = {each.path for each in current if not each.valid}
        for _ in range(3):
            moment += 1.1
            before = {key: each for key, each in state.store.objects.items() if not each.terminating}
            state = applied(replace(state, files=current, moment=replace(NOW, monotonic=moment)))
            for key, stored in before.items():
                defined = any(manifest.key == key for each in current for manifest in each.manifests)
                if defined or stored.record.source.path in broken:
                    assert key in state.store.objects
                    assert not state.store.objects[key].terminating
    for stored in state.store.objects.values():
        assert stored.record.spec["memory"] in ("64Mi", "1Gi")


@settings(max_examples=100, deadline=None)
@given(directories, st.sampled_from(["problem", "marker", "git"]))
def test_without_trust_nothing_is_ever_deleted(files: dict[str, bytes], why: str) -> None:
    before = applied(view({"a.yaml": vm("web"), "b.yaml": vm("db"), "c.yaml": vm("mail")}))
    scan = {
        "problem": Scan(complete=False, marker="m", problem="unreadable"),
        "marker": Scan(complete=True, marker="other"),
        "git": Scan(complete=True, marker="m", git_busy=True),
    }[why]
    current = tuple(file(path, data) for path, data in sorted(files.items()))
    state = replace(before, scan=scan, files=current)
    for step in range(4):
        state = applied(replace(state, moment=replace(NOW, monotonic=200.0 + 10 * step)))
        assert len(state.store.objects) == 3
        assert not any(stored.terminating for stored in state.store.objects.values())


def test_what_was_asked_for_is_deleted_even_when_the_scan_is_not_complete() -> None:
    before = applied(view({"a.yaml": vm("web"), "b.yaml": vm("db")}))
    asked = replace(
        before,
        scan=Scan(complete=False, marker="m", problem="unreadable"),
        files=(file("b.yaml", vm("db")),),
        asked=Asked(deletions={WEB: True}),
    )
    after = applied(asked)
    assert after.store.objects[WEB].terminating
    assert after.store.objects[WEB].record.purge
    assert "a.yaml" not in after.store.files


def test_a_record_of_another_version_is_left_alone() -> None:
    store = StoreView(unreadable=frozenset({WEB}), files={"a.yaml": StoredFile(digest="x", revision=1)})
    plan = plan_sync(view({"a.yaml": vm("web")}, store))
    assert plan.writes == ()
    assert "another version" in plan.verdicts[0].waiting


# admission


def manifest(**spec: object) -> Manifest:
    return Manifest(key=WEB, spec=dict(spec), line=3)


def test_a_new_object_gets_an_identity_of_its_seed() -> None:
    one = admit(manifest(memory="1Gi"), "a.yaml", None, NOW)
    other = admit(manifest(memory="1Gi"), "a.yaml", None, replace(NOW, seed=SEED.replace("8", "9")))
    assert one == admit(manifest(memory="1Gi"), "a.yaml", None, NOW)
    assert one.metadata.uid != other.metadata.uid


@pytest.mark.parametrize(
    ("before", "after", "generation"),
    [
        ({"a": 1, "b": [1, 2]}, {"b": [1, 2], "a": 1}, 1),
        ({"a": 1}, {"a": 2}, 2),
        ({"a": 1}, {"a": True}, 2),
        ({"a": [1, 2]}, {"a": [2, 1]}, 2),
        ({"a": "1"}, {"a": 1}, 2),
        ({}, {}, 1),
    ],
)
def test_generation_counts_changes_of_meaning(
    before: dict[str, object], after: dict[str, object], generation: int
) -> None:
    first = admit(manifest(**before), "a.yaml", None, NOW)
    second = admit(manifest(**after), "b.yaml", first, LATER)
    assert second.metadata.generation == generation
    assert second.metadata.creation_timestamp == NOW.wall
    assert second.source.path == "b.yaml"


def test_a_purge_is_never_taken_back() -> None:
    record = terminate(admit(manifest(), "a.yaml", None, NOW), purge=True, moment=NOW)
    assert terminate(record, purge=False, moment=LATER).purge


def test_a_new_object_starts_without_the_intents_of_a_former_one() -> None:
    after = admit(manifest(), "a.yaml", None, NOW)
    assert settle_intent(Intent(run="Stop"), None, after) is None


# markers


def scan(marker: str = "", *paths: str, complete: bool = True) -> Scan:
    files = tuple(ManifestFile(path=path, data=b"", digest="d") for path in paths)
    return Scan(files=files, marker=marker, complete=complete, problem="" if complete else "gone")


STORED = {"a.yaml": StoredFile(digest="d", revision=1)}
CHANGED = {"a.yaml": StoredFile(digest="e", revision=2)}


@pytest.mark.parametrize(
    ("found", "base", "stored", "decision"),
    [
        (scan("m"), Base(marker="m"), STORED, Known),
        (scan("m"), Base(), STORED, Adopt),
        (scan("other"), Base(marker="m"), STORED, Refuse),
        (scan(""), Base(), {}, Create),
        (scan("", "a.yaml"), Base(), STORED, Create),
        (scan(""), Base(), STORED, Create),
        (scan("", "b.yaml"), Base(), STORED, Create),
        (scan("", "a.yaml"), Base(marker="m"), STORED, Create),
        (scan("", "a.yaml"), Base(marker="m", taken={"a.yaml": ("d",)}), CHANGED, Create),
        (scan("", "a.yaml"), Base(marker="m"), CHANGED, Refuse),
        (scan(""), Base(marker="m"), STORED, Refuse),
        (scan(""), Base(marker="m"), {}, Refuse),
        (scan("", complete=False), Base(), {}, Refuse),
    ],
)
def test_a_directory_is_marked_at_first_sight_or_when_nothing_is_missing(
    found: Scan, base: Base, stored: dict[str, StoredFile], decision: type
) -> None:
    assert isinstance(judge_marker(found, base, stored), decision)


def test_a_lost_marker_is_made_again_as_it_was() -> None:
    assert judge_marker(scan("", "a.yaml"), Base(marker="m"), STORED) == Create(marker="m")


# names


@pytest.mark.parametrize("name", ["web.yaml", "web.yml", "web.json", "a.b.yaml", "ü.yaml", "conflict.yaml"])
def test_manifests_count(name: str) -> None:
    assert counts(name)
    assert path_problem(name) == ""


@pytest.mark.parametrize(
    "name",
    [
        "web.yaml~",
        ".web.yaml",
        "web.yaml.swp",
        "web.YAML",
        "web.conflict-r1.yaml",
        ".yaml",
        "yaml",
        "web.txt",
    ],
)
def test_other_files_do_not_count(name: str) -> None:
    assert not counts(name)
    assert path_problem(name)


def test_a_file_is_called_after_its_object() -> None:
    key = ObjectKey(Kind.STORAGE_POOL, "Fast.1")
    assert default_path(key, "-") == "storagepool-fast.1.yaml"
    assert default_path(key, "x.json", lower=False) == "storagepool-Fast.1.json"
