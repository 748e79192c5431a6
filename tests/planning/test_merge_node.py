"""A Node as people see it: what it reports, what its manifest says, and whether it is alive."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.planning.cluster_view import Connection, NodeLine
from reconciler.planning.merge import dependents, merged_object
from reconciler.planning.merge_node import with_liveness
from reconciler.resources import keys
from reconciler.resources.infrastructure import ShutdownPolicy
from reconciler.resources.kinds import Kind
from reconciler.resources.membership import Member
from reconciler.resources.records import NodeIntent, NodeShutdown, ObjectMeta, Source, SpecRecord, dump
from reconciler.resources.status import (
    Condition,
    ConditionStatus,
    ConditionType,
    ForeignDomain,
    NodeStatus,
)
from reconciler.resources.transactions import KeyValue

MEMBER = Member(address="10.0.0.1", rank=3, version="0.1.0")
REPORT = NodeStatus(
    uid="r1",
    ready=True,
    version="0.1.0",
    cpu=8,
    memory=16 * 2**30,
    conditions=(
        Condition(
            type=ConditionType.READY,
            status=ConditionStatus.TRUE,
            reason="NodeReady",
            last_transition_time="2026-01-31T12:00:00Z",
        ),
    ),
)


class Records:
    """A snapshot of these records."""

    def __init__(self, records: dict[str, Any]) -> None:
        self._items = {
            key: KeyValue(key=key, value=dump(value), revision=n)
            for n, (key, value) in enumerate(records.items(), 1)
        }

    def get(self, key: str) -> KeyValue | None:
        return self._items.get(key)


def node(
    *,
    member: Member | None = MEMBER,
    report: NodeStatus | None = REPORT,
    intent: NodeIntent | None = None,
    **spec: Any,
) -> dict[str, Any]:
    records: dict[str, Any] = {keys.member("r1"): member} if member else {}
    if intent:
        records[keys.intent(Kind.NODE, "r1")] = intent
    if report:
        records[keys.node_status(Kind.NODE, "r1")] = report
    if spec:
        metadata, source = ObjectMeta(name="r1", uid="u"), Source(path="r1.yaml")
        records[keys.spec(Kind.NODE, "r1")] = SpecRecord(
            kind="Node", metadata=metadata, spec=spec, source=source
        )
    found = merged_object(Records(records), Kind.NODE, "r1")
    assert found is not None
    return found


def seen(standing: str, **more: Any) -> NodeLine:
    return NodeLine(name="r1", rank=3, address="10.0.0.1:7480", standing=standing, **more)


def ready(item: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(c for c in item["status"]["conditions"] if c["type"] == "Ready")
    return found


def test_a_member_is_there_before_it_has_reported() -> None:
    status = node(report=None)["status"]
    assert (status["rank"], status["address"], status["version"]) == (3, "10.0.0.1", "0.1.0")
    assert (status["ready"], status["message"]) == (False, "it has not reported yet")
    assert "capacity" not in status
    assert dependents(keys.member("r1")) == ((Kind.NODE, "r1"),)


def test_the_manifest_counts_before_the_configuration() -> None:
    status = node(rank=1, address="10.9.9.9", unschedulable=True)["status"]
    assert (status["rank"], status["address"], status["unschedulable"]) == (1, "10.9.9.9", True)


def test_what_vms_may_use_is_less_or_more_than_what_the_node_has() -> None:
    foreign = (ForeignDomain(name="handmade", phase="Running", vcpus=2, memory=2**30),)
    report = NodeStatus(uid="r1", ready=True, cpu=8, memory=16 * 2**30, foreign_domains=foreign)
    status = node(report=report, reserved={"cpu": 1, "memory": "1Gi"}, overcommit={"cpu": 2})["status"]
    assert status["capacity"] == {"cpu": 8, "memory": 16 * 2**30}
    assert status["usable"] == {"cpu": 12, "memory": 14 * 2**30}


def test_a_manifests_capacity_counts_before_the_report() -> None:
    status = node(capacity={"cpu": "1500m", "memory": "1Gi"})["status"]
    assert status["capacity"] == {"cpu": 1.5, "memory": 2**30}


def test_a_ready_node_that_is_heard_is_ready() -> None:
    status = with_liveness(node(), seen("Ready", master=True, heartbeat_age=0.2, lease_age=1.0))["status"]
    assert (status["ready"], status["roles"], status["master"]) == (True, ["master"], True)
    assert status["liveness"]["heartbeatAge"] == 0.2
    assert status["conditions"][0]["lastTransitionTime"] == "2026-01-31T12:00:00Z"


@pytest.mark.parametrize(
    ("standing", "holds"),
    [("Degraded", "False"), ("Stopped", "False"), ("Silent", "Unknown"), ("Unknown", "Unknown")],
)
def test_a_report_is_not_believed_longer_than_its_node_is_heard(standing: str, holds: str) -> None:
    line = seen(standing, reason="why", since="2026-02-01T00:00:00Z", link=Connection(state="X", seconds=1))
    item = with_liveness(node(), line)
    assert (item["status"]["ready"], item["status"]["message"]) == (False, "why")
    condition = ready(item)
    assert (condition["status"], condition["reason"], condition["message"]) == (holds, standing, "why")
    assert condition["lastTransitionTime"] == "2026-02-01T00:00:00Z"


def test_a_daemon_that_ended_with_its_host_says_nothing_of_guests() -> None:
    order = NodeShutdown(id="s", policy=ShutdownPolicy.FREEZE, boot_id="b", timeout_seconds=60)
    down = node(intent=NodeIntent(shutdown=order))
    item = with_liveness(down, seen("Stopped", reason="its daemon was stopped; its guests run on"))
    assert item["status"]["message"] == "its daemon was stopped, as its host goes down (Freeze)"
    assert ready(item)["message"] == item["status"]["message"]
    assert with_liveness(down, seen("Silent", reason="why"))["status"]["message"] == "why"


def test_who_comes_back_is_ready_since_then() -> None:
    item = with_liveness(node(), seen("Ready", since="2026-02-02T00:00:00Z"))
    assert ready(item)["lastTransitionTime"] == "2026-02-02T00:00:00Z"


def test_what_a_living_node_complains_of_is_its_message() -> None:
    item = with_liveness(node(), seen("Ready", reason="disk nearly full"))
    assert (item["status"]["ready"], item["status"]["message"]) == (True, "disk nearly full")
