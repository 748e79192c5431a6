"""One object out of many records: what a person sees of a VM, a node, a pool and the cluster."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.planning.merge import dependents, merged_object
from reconciler.resources import keys
from reconciler.resources.kinds import Kind
from reconciler.resources.records import (
    Claim,
    ClaimPhase,
    ClusterRecord,
    Epoch,
    Intent,
    ObjectMeta,
    Source,
    SpecRecord,
    dump,
)
from reconciler.resources.status import (
    Condition,
    ConditionStatus,
    ConditionType,
    ManifestStatus,
    MasterStatus,
    NodeStatus,
    Phase,
    PoolStatus,
)
from reconciler.resources.transactions import KeyValue
from reconciler.sim.desk import running, vm_record

VM = Kind.VIRTUAL_MACHINE
SPEC = keys.spec(VM, "web")
INTENT = keys.intent(VM, "web")
STATUS = keys.node_status(VM, "web")
REFUSED = MasterStatus(
    uid="uid-web",
    message="no node has 2Gi free",
    conditions=(Condition(type=ConditionType.PLACED, status=ConditionStatus.FALSE, reason="Unschedulable"),),
)


class Records:
    """A snapshot: each record was written at the revision of its place."""

    def __init__(self, records: dict[str, Any]) -> None:
        self._items = {
            key: KeyValue(
                key=key, value=value if isinstance(value, bytes) else dump(value), revision=index + 1
            )
            for index, (key, value) in enumerate(records.items())
        }

    def get(self, key: str) -> KeyValue | None:
        return self._items.get(key)

    def prefix(self, prefix: str) -> list[KeyValue]:
        return [self._items[key] for key in sorted(self._items) if key.startswith(prefix)]


def merged(records: dict[str, Any], kind: Kind = VM, name: str = "web") -> dict[str, Any]:
    found = merged_object(Records(records), kind, name)
    assert found is not None
    return found


def status(records: dict[str, Any], **spec: Any) -> dict[str, Any]:
    found: dict[str, Any] = merged({SPEC: vm_record("web", **spec), **records})["status"]
    return found


def test_a_vm_without_a_spec_is_not_there() -> None:
    assert merged_object(Records(running("web")), VM, "web") is None


def test_a_running_vm_shows_all_that_is_known() -> None:
    whole = merged({SPEC: vm_record("web", labels={"app": "shop"}), **running("web")})
    assert whole["metadata"] == {
        "name": "web",
        "uid": "uid-web",
        "generation": 1,
        "labels": {"app": "shop"},
        "creationTimestamp": "2026-01-31T12:00:00Z",
        "resourceVersion": "4",
    }
    shown = whole["status"]
    assert (shown["phase"], shown["ready"], shown["node"], shown["message"]) == ("Running", True, "r1", "")
    assert shown["source"] == {"path": "web.yaml", "line": 1}
    assert shown["binding"] == {"node": "r1", "bound": "2026-01-31T12:00:01Z", "reason": "fits"}
    assert shown["ipAddresses"] == ["192.0.2.7"]
    assert [c["type"] for c in shown["conditions"]] == ["ManifestValid", "Ready"]


def test_not_placed_yet_is_pending_and_refused_is_unschedulable() -> None:
    assert status({})["phase"] == "Pending"
    shown = status({keys.master_status(VM, "web"): REFUSED})
    assert (shown["phase"], shown["message"]) == ("Unschedulable", "no node has 2Gi free")


@pytest.mark.parametrize(
    ("phase", "shown"),
    [(ClaimPhase.PROVISIONING, "Provisioning"), (ClaimPhase.STARTING, "Starting")],
)
def test_before_the_node_has_reported_the_claim_tells(phase: ClaimPhase, shown: str) -> None:
    assert status({keys.claim("web"): Claim(node="r1", uid="uid-web", phase=phase)})["phase"] == shown


def test_what_is_not_to_run_and_does_not_is_stopped_and_says_how_to_start_it() -> None:
    shown = status({INTENT: Intent(run="Stop", requested="now")})
    assert shown["phase"] == "Stopped"
    assert shown["node"] is None
    assert shown["message"] == "stopped by `vcl stop`; `vcl start web` starts it again"
    assert shown["intent"] == {"run": "Stop", "requested": "now"}


def test_a_halted_vm_says_so() -> None:
    assert "runStrategy is Halted" in status({}, runStrategy="Halted")["message"]


def test_while_it_stops_the_node_tells() -> None:
    stopping = running("web", phase=Phase.STOPPING, message="waiting for the guest")
    shown = status({**stopping, INTENT: Intent(run="Stop")})
    assert (shown["phase"], shown["message"], shown["ready"]) == ("Stopping", "waiting for the guest", False)


def test_a_failure_shows_where_and_why() -> None:
    records = running("web", phase=Phase.FAILED, message="no such bridge; tried again at 12:01")
    del records[keys.claim("web")]
    shown = status(records)
    assert (shown["phase"], shown["node"]) == ("Failed", "r1")
    assert shown["message"] == "no such bridge; tried again at 12:01"


def test_what_a_node_said_of_an_earlier_vm_of_this_name_is_not_shown() -> None:
    shown = status(running("web", uid="earlier"))
    assert (shown["phase"], shown["ready"]) == ("Pending", False)
    assert shown["message"] == "an earlier VM of this name still has to end on node r1"
    assert "ipAddresses" not in shown
    assert "claim" not in shown


def test_what_the_dead_node_said_is_not_shown_after_the_vm_was_bound_elsewhere() -> None:
    records = running("web", node="r2")
    records[STATUS] = running("web", node="r1")[STATUS]
    del records[keys.claim("web")]
    shown = status(records)
    assert (shown["phase"], shown["node"], shown["ready"]) == ("Pending", "r2", False)


def test_a_report_of_running_without_a_claim_is_not_believed() -> None:
    records = running("web")
    records[keys.claim("web")] = Claim(uid="uid-web", exit="Crashed")
    shown = status(records)
    assert (shown["phase"], shown["ready"]) == ("Pending", False)
    assert next(c for c in shown["conditions"] if c["type"] == "Ready")["status"] == "False"


def test_a_deletion_is_terminating_until_it_is_gone() -> None:
    shown = status(running("web"), deleted="2026-01-31T13:00:00Z")
    assert shown["phase"] == "Terminating"
    assert "waiting for it to stop on node r1" in shown["message"]


def test_a_fenced_owner_shows_as_fencing() -> None:
    shown = status({**running("web"), keys.fence("r1"): {}})
    assert (shown["phase"], shown["message"]) == ("Fencing", "node r1 is being fenced")


def test_an_invalid_manifest_is_the_first_thing_said_and_the_vm_runs_on() -> None:
    broken = ManifestStatus(valid=False, problems=("web.yaml:6:3: spec.vcpu: unknown field\n   6 | x",))
    shown = status({**running("web", message="agent is away"), keys.manifest_status(VM, "web"): broken})
    assert shown["phase"] == "Running"
    assert shown["message"] == "web.yaml:6:3: spec.vcpu: unknown field"
    valid = next(c for c in shown["conditions"] if c["type"] == "ManifestValid")
    assert (valid["status"], valid["reason"]) == ("False", "Invalid")


def test_all_conditions_have_their_fields_in_one_order() -> None:
    records = {keys.master_status(VM, "web"): REFUSED}
    orders = [[key for key in c if key != "lastTransitionTime"] for c in status(records)["conditions"]]
    assert len(orders) == 3
    assert all(o == ["type", "status", "reason", "message", "observedGeneration"] for o in orders)


def test_the_manifests_condition_tells_since_when() -> None:
    def since(manifest: ManifestStatus | None) -> str | None:
        records = {} if manifest is None else {keys.manifest_status(VM, "web"): manifest}
        shown = status({**running("web"), **records})
        valid = next(c for c in shown["conditions"] if c["type"] == "ManifestValid")
        return valid.get("lastTransitionTime")

    assert since(None) == "2026-01-31T12:00:00Z"
    assert since(ManifestStatus(valid=True, message="a warning")) == "2026-01-31T12:00:00Z"
    assert since(ManifestStatus(valid=True, since="2026-02-01T00:00:00Z")) == "2026-02-01T00:00:00Z"
    assert since(ManifestStatus(valid=False, since="2026-02-01T00:00:00Z")) == "2026-02-01T00:00:00Z"
    assert since(ManifestStatus(valid=False)) is None


def test_power_off_stops_everything() -> None:
    assert status({keys.POWER_INTENT: {"power": "Off"}})["phase"] == "Stopped"
    off = SpecRecord(
        kind="Cluster",
        metadata=ObjectMeta(name="cluster", uid="c"),
        spec={"power": "Off"},
        source=Source(path="cluster.yaml"),
    )
    assert status({keys.spec(Kind.CLUSTER, "cluster"): off})["phase"] == "Stopped"


def test_a_restart_is_shown_until_it_was_honoured() -> None:
    asked = Intent(restart="r", requested="now")
    assert status({**running("web"), INTENT: asked})["intent"]["restart"] == "r"
    records = running("web")
    records[keys.claim("web")] = Claim(node="r1", uid="uid-web", restart="r")
    shown = status({**records, INTENT: asked})
    assert "intent" not in shown
    assert shown["claim"]["restart"] == "r"
    assert "start" not in shown["claim"]


@pytest.mark.parametrize("key", [INTENT, STATUS, keys.claim("web"), keys.binding("web"), SPEC])
@pytest.mark.parametrize("value", [b"{", b"[]", b'{"node": 3, "uid": {}}', b"\xff", b'{"run": []}'])
def test_a_record_that_cannot_be_read_hides_nothing_else(key: str, value: bytes) -> None:
    whole = merged({SPEC: vm_record("web"), **running("web"), key: value})
    assert whole["metadata"]["name"] == "web"
    assert whole["kind"] == "VirtualMachine"


def test_an_unreadable_record_is_named() -> None:
    assert INTENT in status({**running("web"), INTENT: b"{"})["message"]
    assert SPEC in merged({SPEC: b"{"})["status"]["message"]


def test_a_node_needs_no_manifest() -> None:
    records = {
        keys.CLUSTER: ClusterRecord(uid="c", name="home", created="2026-01-01T00:00:00Z"),
        keys.node_status(Kind.NODE, "r1"): NodeStatus(uid="n", ready=True, version="0.1.0"),
        keys.EPOCH: Epoch(epoch=1, holder="r1"),
    }
    node = merged(records, Kind.NODE, "r1")
    assert node["spec"] == {}
    assert node["metadata"]["creationTimestamp"] == "2026-01-01T00:00:00Z"
    assert (node["status"]["roles"], node["status"]["ready"]) == (["master"], True)
    assert node["status"]["conditions"][0]["type"] == "Ready"


def test_a_node_that_only_a_manifest_knows_is_not_ready_and_says_why() -> None:
    record = SpecRecord(
        kind="Node",
        metadata=ObjectMeta(name="r9", uid="u"),
        spec={"unschedulable": True},
        source=Source(path="n"),
    )
    node = merged({keys.spec(Kind.NODE, "r9"): record}, Kind.NODE, "r9")
    assert (node["status"]["ready"], node["status"]["unschedulable"]) == (False, True)
    assert node["status"]["message"] == "no node has reported on it yet"


def test_the_default_pool_needs_no_manifest() -> None:
    key = keys.node_status(Kind.STORAGE_POOL, "default")
    pool = merged({key: PoolStatus(uid="p", ready=True, total=10, free=4)}, Kind.STORAGE_POOL, "default")
    assert (pool["status"]["free"], pool["status"]["conditions"][0]["status"]) == (4, "True")


def test_the_cluster_is_there_from_its_record_on() -> None:
    record = ClusterRecord(uid="c", name="home", created="2026-01-01T00:00:00Z")
    cluster = merged({keys.CLUSTER: record}, Kind.CLUSTER, "cluster")
    assert (cluster["metadata"]["uid"], cluster["status"]["power"]) == ("c", "On")
    off = merged({keys.CLUSTER: record, keys.POWER_INTENT: {}}, Kind.CLUSTER, "cluster")
    assert off["status"]["power"] == "Off"
    assert "vcl cluster start" in off["status"]["message"]


ALL_RECORDS: dict[str, Any] = {
    SPEC: vm_record("web"),
    **running("web"),
    INTENT: Intent(run="Stop"),
    keys.master_status(VM, "web"): REFUSED,
    keys.manifest_status(VM, "web"): ManifestStatus(valid=False, message="broken"),
    keys.POWER_INTENT: {"x": 1},
    keys.fence("r1"): {},
    keys.CLUSTER: ClusterRecord(uid="c", name="home", created="t"),
    keys.EPOCH: Epoch(epoch=1, holder="r1"),
    keys.node_status(Kind.NODE, "r1"): NodeStatus(uid="n", ready=True),
    keys.node_status(Kind.STORAGE_POOL, "default"): PoolStatus(uid="p", ready=True),
    keys.tombstone(VM, "db"): {},
    keys.event("r1", 3): {},
    keys.session("r1"): {},
}
OBJECTS = (
    (VM, "web"),
    (Kind.NODE, "r1"),
    (Kind.STORAGE_POOL, "default"),
    (Kind.CLUSTER, "cluster"),
)


@given(st.sets(st.sampled_from(sorted(ALL_RECORDS))), st.sampled_from(sorted(ALL_RECORDS)))
def test_an_object_changes_only_with_keys_that_name_it_as_dependent(kept: set[str], key: str) -> None:
    without = Records({k: v for k, v in ALL_RECORDS.items() if k in kept and k != key})
    with_it = Records({k: v for k, v in ALL_RECORDS.items() if k in kept or k == key})
    told = dependents(key)
    for kind, name in OBJECTS:
        before, after = (merged_object(snapshot, kind, name) for snapshot in (without, with_it))
        for each in (before, after):
            if each:
                del each["metadata"]["resourceVersion"]
        if before != after:
            assert (kind, name) in told or (kind, None) in told
