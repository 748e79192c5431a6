"""Whose bytes count for a path, as a table; and what a node remembers before it changes anything."""

from __future__ import annotations

import pytest

from reconciler.planning.manifest_apply import conflict_name, counts, keeps_conflict, stored_problem
from reconciler.planning.manifest_merge import Difference, Side, Step, agreed, differ, forget, merge
from reconciler.planning.manifest_values import StoredFile
from reconciler.resources import keys
from reconciler.resources.scans import Base, ManifestFile, Scan

D = Difference


@pytest.mark.parametrize(
    ("here", "stored", "given", "taken", "expected"),
    [
        # neither or only one side changed since both were "a"
        ("a", "a", ("a",), ("a",), D.SAME),
        ("b", "a", ("a",), ("a",), D.PUSH),
        ("a", "b", ("a",), ("a",), D.PULL),
        ("b", "b", ("a",), ("a",), D.SAME),
        ("b", "c", ("a",), ("a",), D.CONFLICT),
        # removed on one side or both
        (None, "a", ("a",), ("a",), D.DELETED),
        (None, "b", ("a",), ("a",), D.PULL),
        ("a", None, ("a",), ("a",), D.REMOVE),
        ("b", None, ("a",), ("a",), D.PUSH),
        # nothing remembered: a new node, or one that forgot
        (None, "a", (), (), D.PULL),
        ("a", None, (), (), D.PUSH),
        ("a", "a", (), (), D.SAME),
        ("b", "a", (), (), D.CONFLICT),
        # "b" was about to be given to the store
        ("b", "a", ("a", "b"), ("a",), D.PUSH),
        ("b", "b", ("a", "b"), ("a",), D.SAME),
        ("b", "c", ("a", "b"), ("a",), D.CONFLICT),
        ("c", "b", ("a", "b"), ("a",), D.PUSH),
        ("a", "b", ("a", "b"), ("a",), D.PUSH),
        (None, "b", ("a", "b"), ("a",), D.DELETED),
        ("b", None, ("b",), (), D.PUSH),
        # "b" was about to be written into the directory
        ("a", "b", ("a",), ("a", "b"), D.PULL),
        ("b", "c", ("a",), ("a", "b"), D.PULL),
        ("b", "a", ("a",), ("a", "b"), D.PULL),
        ("c", "b", ("a",), ("a", "b"), D.CONFLICT),
        (None, "b", (), ("b",), D.PULL),
        ("b", None, (), ("b",), D.REMOVE),
        # an upgrade: only what was given is remembered
        ("b", "a", ("a",), (), D.PUSH),
        ("a", "b", ("a",), (), D.CONFLICT),
        ("a", None, ("a",), (), D.PUSH),
    ],
)
def test_a_path_is_judged_by_both_sides_and_the_memory(
    here: str | None, stored: str | None, given: tuple[str, ...], taken: tuple[str, ...], expected: Difference
) -> None:
    assert differ(here, stored, given, taken) is expected


def scan(**digests: str) -> Scan:
    files = tuple(ManifestFile(path=path, data=d.encode(), digest=d) for path, d in sorted(digests.items()))
    return Scan(files=files, complete=True, marker="m")


def stored(**digests: str) -> dict[str, StoredFile]:
    return {path: StoredFile(digest=d, revision=1) for path, d in digests.items()}


KNOWN = Base(marker="m", files={"x": ("a",)}, taken={"x": ("a",)}, mine=("x",))


def test_what_is_to_be_written_is_remembered_as_the_stores_and_no_longer_as_ours() -> None:
    merged = merge(scan(x="a"), stored(x="b"), KNOWN, {})
    assert merged.steps == (Step(path="x", expect="a"),)
    assert merged.sides == {"x": Side.STORE}
    assert merged.base == Base(marker="m", files={"x": ("a",)}, taken={"x": ("a", "b")})


def test_what_is_to_be_removed_is_remembered_as_the_stores_only() -> None:
    merged = merge(scan(x="a"), {}, KNOWN, {})
    assert merged.steps == (Step(path="x", expect="a", remove=True),)
    assert merged.sides == {"x": Side.NEITHER}
    assert merged.base == Base(marker="m", taken={"x": ("a",)})


def test_a_conflict_waits_until_the_user_has_stopped_writing() -> None:
    young = merge(scan(x="b"), stored(x="c"), KNOWN, {"x": 0.3})
    assert young.steps == ()
    assert young.again == pytest.approx(0.7)
    assert young.base == KNOWN
    old = merge(scan(x="b"), stored(x="c"), KNOWN, {"x": 1.0})
    assert old.steps == (Step(path="x", expect="b", aside=True),)
    assert old.sides == {"x": Side.STORE}


def test_at_a_bad_time_nothing_is_done_and_nothing_is_remembered() -> None:
    merged = merge(scan(x="a"), stored(x="b"), KNOWN, {}, wait=True)
    assert (merged.steps, merged.base, merged.waiting) == ((), KNOWN, True)
    assert not merge(scan(x="a"), stored(x="a"), KNOWN, {}, wait=True).waiting


def test_a_file_that_cannot_be_read_is_neither_absent_nor_replaced() -> None:
    unread = Scan(files=(ManifestFile(path="x", data=None, error="denied"),), complete=False, marker="m")
    merged = merge(unread, stored(x="b"), KNOWN, {})
    assert (merged.steps, merged.sides) == ((), {"x": Side.DIRECTORY})


def test_something_else_under_the_files_name_is_no_deletion_and_is_told() -> None:
    fifo = Scan(complete=True, marker="m", ignored={"x": "is a FIFO"})
    merged = merge(fifo, stored(x="a"), KNOWN, {})
    assert (merged.steps, merged.sides) == ((), {"x": Side.STORE})
    assert "is a FIFO" in merged.blocked["x"]


def test_what_both_sides_have_may_be_replaced_and_deleted_from_then_on() -> None:
    base = agreed(Base(marker="m"), {"x": "a"})
    assert base == KNOWN
    assert forget(base, {"x"}) == Base(marker="m")


@pytest.mark.parametrize(
    ("name", "number", "expected"),
    [
        ("web.yaml", 1, "web.conflict-r1.yaml"),
        ("web.yaml", 2, "web.conflict-r1-2.yaml"),
        ("a.b.json", 1, "a.b.conflict-r1.json"),
        ("x" * 250 + ".yaml", 1, "x" * 238 + ".conflict-r1.yaml"),
        ("ü" * 125 + ".yaml", 3, "ü" * 118 + ".conflict-r1-3.yaml"),
    ],
)
def test_a_conflict_file_is_called_after_its_file_and_node(name: str, number: int, expected: str) -> None:
    made = conflict_name(name, "r1", number)
    assert made == expected
    assert len(made.encode()) <= 255
    assert keeps_conflict(made)
    assert not counts(made)


@pytest.mark.parametrize(
    "path", ["web.yaml", "deep/er/web.json", "ü ö.yml", "1/2/3/4/5/6/7/8/9/0/a/b/c/d/e/f/x.yaml"]
)
def test_what_a_directory_can_hold_is_taken_from_the_store(path: str) -> None:
    assert stored_problem(keys.manifest(path), 100) == ""


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("manifest/../x.yaml", "not a path inside"),
        ("manifest//etc/x.yaml", "not a path inside"),
        ("manifest/a//x.yaml", "not a path inside"),
        ("manifest/%2Fetc/x.yaml", "not a path inside"),
        ("manifest/x%2Fy.yaml", "not how vcl writes"),
        ("manifest/.git/x.yaml", "start with a dot"),
        ("manifest/x.conflict-r1.yaml", "no *.conflict-* files"),
        ("manifest/" + "d/" * 17 + "x.yaml", "nested deeper"),
        ("manifest/" + "x" * 251 + ".yaml", "255 bytes"),
    ],
)
def test_what_no_directory_can_hold_is_not(key: str, why: str) -> None:
    assert why in stored_problem(key, 100)


def test_nor_what_is_larger_than_a_manifest() -> None:
    assert "larger" in stored_problem("manifest/x.yaml", 2**20 + 1)
