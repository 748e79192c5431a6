"""The rows of `vcl get`."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.planning.tables import COLUMNS, Surroundings, Usage, column_definitions, row, usage_by_node
from reconciler.resources.kinds import Kind


def cells(item: dict[str, Any], around: Surroundings | None = None) -> dict[str, Any]:
    names = [column.name for column in COLUMNS[Kind(item["kind"])]]
    return dict(zip(names, row(item, around or Surroundings())["cells"], strict=True))


def made(kind: Kind, spec: dict[str, Any], status: dict[str, Any] | None = None) -> dict[str, Any]:
    metadata = {"name": "x", "creationTimestamp": "2026-01-31T12:00:00Z"}
    return {"kind": kind.value, "metadata": metadata, "spec": spec, "status": status or {}}


def vm(node: str | None, **spec: Any) -> dict[str, Any]:
    spec = {"cpu": {"cores": 2}, "memory": "512Mi", **spec}
    return made(Kind.VIRTUAL_MACHINE, spec, {"phase": "Running", "ready": True, "node": node})


def test_a_vm_without_anything_has_words_in_every_cell() -> None:
    found = cells(made(Kind.VIRTUAL_MACHINE, {}))
    assert [found[name] for name in ("STATUS", "READY", "NODE", "IP", "CPU", "MEMORY")] == [
        *("<unknown>", "False"),
        *("<none>",) * 4,
    ]


def test_memory_is_shown_the_short_way() -> None:
    assert cells(vm("r1", memory=2147483648))["MEMORY"] == "2Gi"


def test_a_node_shows_what_is_used_of_what_vms_may_use() -> None:
    status = {
        "uid": "n",
        "ready": True,
        "roles": ["master"],
        "rank": 2,
        "capacity": {"cpu": 16, "memory": 65 * 2**30},
        "usable": {"cpu": 63.5, "memory": 64 * 2**30},
    }
    around = Surroundings(usage={"x": Usage(vms=3, cpu=6, memory=12 * 2**30)})
    found = cells(made(Kind.NODE, {}, status), around)
    assert (found["CPUS"], found["VCPU"], found["MEMORY"], found["VMS"]) == ("16", "6/63.5", "12Gi/64Gi", "3")
    assert (found["ROLES"], found["RANK"]) == ("master", "2")


def test_what_a_node_has_is_unknown_until_it_has_reported() -> None:
    found = cells(made(Kind.NODE, {}))
    assert (found["CPUS"], found["VCPU"], found["MEMORY"]) == ("<unknown>", "0/<unknown>", "0/<unknown>")


@pytest.mark.parametrize(
    ("status", "word"),
    [
        ({}, "Unknown"),
        ({"uid": "n", "ready": True}, "Ready"),
        ({"uid": "n", "ready": False}, "NotReady"),
        ({"uid": "n", "ready": True, "unschedulable": True}, "Ready,SchedulingDisabled"),
        (
            {"uid": "n", "ready": True, "unschedulable": True, "drain": {"phase": "Draining"}},
            "Ready,Draining,SchedulingDisabled",
        ),
        ({"uid": "n", "ready": True, "drain": {"phase": "Drained"}}, "Ready"),
        ({"uid": "n", "ready": False, "fencing": {"phase": "Fencing"}}, "NotReady,Fencing"),
        ({"uid": "n", "ready": True, "liveness": {"standing": "Ready"}}, "Ready"),
        ({"uid": "n", "ready": False, "liveness": {"standing": "Ready"}}, "NotReady"),
        ({"ready": False, "liveness": {"standing": "Ready"}}, "Unknown"),
        ({"uid": "n", "ready": False, "liveness": {"standing": "Degraded"}}, "Degraded"),
        ({"uid": "n", "liveness": {"standing": "Silent"}, "fencing": {"phase": "Fenced"}}, "Silent,Fenced"),
        ({"liveness": {"standing": "Stopped"}, "unschedulable": True}, "Stopped,SchedulingDisabled"),
    ],
)
def test_a_nodes_status_word(status: dict[str, Any], word: str) -> None:
    assert cells(made(Kind.NODE, {}, status))["STATUS"] == word


def test_a_pool_shows_its_room() -> None:
    pool = made(
        Kind.STORAGE_POOL, {"type": "rbd"}, {"uid": "p", "ready": True, "total": 2**40, "free": 2**39}
    )
    found = cells(pool)
    assert (found["TYPE"], found["STATUS"], found["FREE"], found["TOTAL"]) == ("rbd", "Ready", "512Gi", "1Ti")
    assert cells(made(Kind.STORAGE_POOL, {}))["FREE"] == "<unknown>"


def test_images_say_where_they_are() -> None:
    assert cells(made(Kind.IMAGE, {"pool": "fast", "image": "debian"}))["SOURCE"] == "fast/debian"
    assert cells(made(Kind.IMAGE, {"path": "/srv/debian.qcow2"}))["SOURCE"] == "/srv/debian.qcow2"


def test_constraints_say_whom_they_bind() -> None:
    spec = {
        "type": "AntiAffinity",
        "vms": {
            "names": ["a"],
            "matchLabels": {"app": "db"},
            "matchExpressions": [
                {"key": "tier", "operator": "In", "values": ["x", "y"]},
                {"key": "spare", "operator": "DoesNotExist"},
            ],
        },
    }
    found = cells(made(Kind.PLACEMENT_CONSTRAINT, spec))
    assert found["VMS"] == "a,app=db,tier in (x,y),!spare"
    assert (found["NODES"], found["ENFORCEMENT"]) == ("<none>", "Required")


def test_the_cluster_counts_its_nodes() -> None:
    found = cells(made(Kind.CLUSTER, {}, {"power": "On"}), Surroundings(nodes=3))
    assert (found["POWER"], found["NODES"]) == ("On", "3")


def test_usage_is_what_placed_vms_ask_for() -> None:
    found = usage_by_node([vm("r1"), vm("r1"), vm(None)])
    assert found == {"r1": Usage(vms=2, cpu=4, memory=2**30)}


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_has_a_name_first_an_age_as_a_time_and_as_many_cells_as_columns(kind: Kind) -> None:
    columns = column_definitions(kind)
    assert columns[0] == {"name": "NAME", "type": "string", "format": "", "priority": 0}
    assert [column["name"] for column in columns if column["format"] == "date"] == ["AGE"]
    assert cells(made(kind, {}))["AGE"] == "2026-01-31T12:00:00Z"
