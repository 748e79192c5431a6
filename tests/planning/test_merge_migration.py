"""A migration as people see it."""

from __future__ import annotations

from typing import Any

from reconciler.planning import tables
from reconciler.planning.merge import dependents, merged_object
from reconciler.planning.tables import Surroundings
from reconciler.resources import keys
from reconciler.resources.kinds import Kind
from reconciler.resources.migrations import MigrationPhase, MigrationRecord, MigrationSide, Progress
from reconciler.resources.records import dump
from reconciler.resources.transactions import KeyValue


class Snapshot(dict[str, bytes]):
    """A store at one revision."""

    def get(self, key: str) -> KeyValue | None:  # type: ignore[override]
        return KeyValue(key=key, value=self[key], revision=7) if key in self else None

    def prefix(self, prefix: str) -> list[KeyValue]:
        return [item for key in sorted(self) if key.startswith(prefix) and (item := self.get(key))]


def shown(phase: MigrationPhase, message: str = "") -> dict[str, Any]:
    record = MigrationRecord(
        id="web-1",
        vm="web",
        uid="u",
        source="r1",
        target="r2",
        phase=phase,
        reason="r1 is drained",
        message=message,
        requested="2026-01-31T12:00:00Z",
    )
    side = MigrationSide(
        id="web-1",
        node="r1",
        session=1,
        boot_id="b",
        phase=phase,
        progress=Progress(total=1000, left=250, rate=100),
    )
    store = Snapshot()
    store[keys.migration("web-1")], store[keys.migrating("web-1", "r1")] = dump(record), dump(side)
    found = merged_object(store, Kind.MIGRATION, "web-1")
    assert found is not None
    return found


def test_one_under_way_tells_how_far_it_is() -> None:
    found = shown(MigrationPhase.RUNNING)
    assert found["spec"] == {"vm": "web", "to": "r2"}
    assert found["status"]["message"] == "its memory is being copied"
    assert found["status"]["progress"] == {
        "percent": 75,
        "total": 1000,
        "left": 250,
        "rate": 100,
        "secondsLeft": 2.5,
    }
    cells = tables.row(found, Surroundings())["cells"]
    assert cells[:6] == ["web-1", "web", "r1", "r2", "Running", "75%"]


def test_one_that_waits_says_for_what_and_one_that_ended_how() -> None:
    waits = shown(MigrationPhase.PENDING, "it waits for its turn")
    assert waits["status"]["message"] == "it waits for its turn"
    ended = shown(MigrationPhase.FAILED, "it took longer than 60 s")
    assert "progress" not in ended["status"]
    assert ended["status"]["message"] == "it took longer than 60 s"


def test_a_record_that_cannot_be_read_is_named() -> None:
    store = Snapshot()
    store[keys.migration("web-1")] = b"no json"
    found = merged_object(store, Kind.MIGRATION, "web-1")
    assert found is not None
    assert "migration/web-1 cannot be read" in found["status"]["message"]
    assert merged_object(store, Kind.MIGRATION, "web-2") is None


def test_both_records_of_a_migration_change_it() -> None:
    for key in (keys.migration("web-1"), keys.migrating("web-1", "r1")):
        assert dependents(key) == ((Kind.MIGRATION, "web-1"),)
