"""Fencing as people see it: what a waiting VM says, and what a fenced node waits for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from reconciler.planning.merge import dependents, merged_object
from reconciler.planning.tables import COLUMNS, Surroundings, row
from reconciler.resources import keys
from reconciler.resources.fencing import Attempt, ReturnRecord
from reconciler.resources.kinds import Kind
from reconciler.resources.membership import Member
from reconciler.resources.records import Session, dump
from reconciler.resources.transactions import KeyValue
from reconciler.sim.desk import running, vm_record
from reconciler.testing.fence_records import SILENT_R3 as RECORD

WAITS = replace(
    RECORD,
    missing=("web: waiting for a proof that r3 is cut off from the storage pool shared",),
    attempts=(
        Attempt(fencer="agent", failures=3, error="the BMC does not answer " + "x" * 300),
        Attempt(fencer="manual", failures=9, error="nobody has confirmed that r3 is down"),
    ),
)


class Records:
    def __init__(self, records: dict[str, Any]) -> None:
        self._records = records

    def get(self, key: str) -> KeyValue | None:
        if key not in self._records:
            return None
        return KeyValue(key=key, value=dump(self._records[key]), revision=1)

    def prefix(self, prefix: str) -> list[KeyValue]:
        found = (self.get(key) for key in sorted(self._records) if key.startswith(prefix))
        return [item for item in found if item is not None]


def vm(**more: Any) -> dict[str, Any]:
    records = {keys.spec(Kind.VIRTUAL_MACHINE, "web"): vm_record("web"), **running("web", node="r3"), **more}
    found = merged_object(Records(records), Kind.VIRTUAL_MACHINE, "web")
    assert found is not None
    return found


def node(*records: tuple[str, Any]) -> dict[str, Any]:
    found = merged_object(
        Records({keys.member("r3"): Member(address="r3"), **dict(records)}), Kind.NODE, "r3"
    )
    assert found is not None
    return found


def test_a_vm_on_a_fenced_node_says_exactly_what_is_missing() -> None:
    item = vm(**{keys.fence("r3"): WAITS})
    cells = dict(
        zip(
            [column.name for column in COLUMNS[Kind.VIRTUAL_MACHINE]],
            row(item, Surroundings())["cells"],
            strict=True,
        )
    )
    assert cells["STATUS"] == "Fencing"
    message = cells["MESSAGE"]
    assert message.startswith(
        "node r3 is being fenced (r3-12): waiting for a proof that r3 is cut off from "
        "the storage pool shared; agent failed 3 times: the BMC does not answer"
    )
    assert message.endswith("...; if r3 is surely off: vcl node confirm-down r3")
    assert "nobody has confirmed" not in message


def test_while_the_fencing_is_under_way_there_is_nothing_to_do_for_anybody() -> None:
    assert vm(**{keys.fence("r3"): RECORD})["status"]["message"] == "node r3 is being fenced (r3-12)"


def test_what_another_vm_lacks_is_not_this_one_s() -> None:
    other = replace(WAITS, missing=("web2: waiting for a proof of something",), attempts=())
    assert vm(**{keys.fence("r3"): other})["status"]["message"] == "node r3 is being fenced (r3-12)"


@pytest.mark.parametrize(
    ("session", "back", "words"),
    [
        (12, None, "it has not come back"),
        (13, None, "it is back, and has not shown yet that nothing is left running on it"),
        (13, 13, "it is back and empty; its return is being settled"),
        (13, 11, "it is back, and has not shown yet that nothing is left running on it"),
    ],
)
def test_a_fenced_node_says_what_its_return_waits_for(session: int, back: int | None, words: str) -> None:
    done = replace(RECORD, released="2026-01-31T12:00:09Z", vms=("web",))
    records: list[tuple[str, Any]] = [
        (keys.fence("r3"), done),
        (keys.session("r3"), Session(session=session, boot_id="b", machine_id="m", started="")),
    ]
    if back is not None:
        records.append((keys.returned("r3"), ReturnRecord(session=back, boot_id="b", machine_id="m")))
    fencing = node(*records)["status"]["fencing"]
    assert (fencing["phase"], fencing["waitsFor"]) == ("Fenced", words)
    assert fencing["message"] == f"fenced (r3-12): {words}"


def test_a_record_that_cannot_be_read_is_still_a_fencing() -> None:
    fencing = node((keys.fence("r3"), {"id": 1}))["status"]["fencing"]
    assert fencing["phase"] == "Fencing"
    assert "cannot be read" in fencing["message"]


def test_who_is_told_when_a_fencing_or_a_failover_changes() -> None:
    assert (Kind.FAILOVER, "r3-12") in dependents(keys.failover("r3-12"))
    assert (Kind.NODE, "r3") in dependents(keys.returned("r3"))
    assert (Kind.NODE, "r3") in dependents(keys.session("r3"))
    assert {(Kind.NODE, "r3"), (Kind.VIRTUAL_MACHINE, None)} <= set(dependents(keys.fence("r3")))


def test_a_failover_that_cannot_be_read_says_so() -> None:
    found = merged_object(Records({keys.failover("r3-12"): {"id": 1}}), Kind.FAILOVER, "r3-12")
    assert found is not None
    assert "cannot be read" in found["status"]["message"]
    assert row(found, Surroundings())["cells"][0] == "r3-12"
