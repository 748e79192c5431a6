"""What a person reads and says while a host is dead: confirm-down, describe node, describe failover."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from vcl.client import Client
from vcl.describing import Facts, describe
from vcl.durations import datetime
from vcl.verbs.complete import complete

from reconciler.planning.failover import VmFacts, begun, copied, observed
from reconciler.planning.fencing_record import Stamp, failed, finished, note, released
from reconciler.planning.merge import merged_object
from reconciler.resources import keys
from reconciler.resources.fencing import FenceCause, FenceRecord, Silence, StepName
from reconciler.resources.kinds import Kind
from reconciler.resources.records import dump
from reconciler.resources.transactions import KeyValue

GOLDEN = Path(__file__).parent / "golden"
NOW = datetime.fromisoformat("2026-01-31T12:03:04Z")


def stamp(after: float, seconds: float = 0.0, by: str = "r1") -> Stamp:
    at = f"2026-01-31T12:00:{int(after) + 1:02d}Z"
    return Stamp(at=at, epoch=4, seconds=seconds, after=after, by=by)


def record() -> FenceRecord:
    made = FenceRecord(
        id="id-1",
        node="r3",
        incident="r3-12",
        cause=FenceCause.SILENT,
        reason="silent on the mesh for 3.4 s (as r1, r2 report), its lease has not changed for 4.1 s",
        epoch=4,
        session=12,
        boot_id="7f0c2f6e-boot",
        machine_id="m",
        began="2026-01-31T12:00:04Z",
        silence=Silence(heard=3.41, lease=4.12, since=3.41),
    )
    return note(made, StepName.INTENT, stamp(3.41), made.reason)


def failover() -> dict[str, Any]:
    """One that is complete, by two masters."""
    found = note(record(), StepName.FENCE, stamp(4.3, 0.85), "by ceph-blocklist: f5: 10.77.0.3:0/0")
    found = note(found, StepName.SETTLE, stamp(4.4, 0.02), "f5")
    found = note(found, StepName.BREAK_LOCKS, stamp(4.6, 0.2), "no locks were left")
    found = released(found, ["db", "web"], stamp(4.62))
    story = copied(begun(record(), 1), found)
    at = {"bound": "r1", "owner": "r1"}
    facts = {"web": VmFacts(**at, started=True, running=True, guest=True), "db": VmFacts(note="no node fits")}
    story = observed(story, {"web": VmFacts(bound="r1")}, 4.7, "r1")
    story = observed(story, {"web": VmFacts(**at)}, 4.8, "r1")
    story = observed(copied(story, finished(found, stamp(4.65))), facts, 7.9, "r2, wall clock")
    return merged({keys.failover("r3-12"): story}, Kind.FAILOVER, "r3-12")


def merged(records: dict[str, Any], kind: Kind, name: str) -> dict[str, Any]:
    class Stored:
        def get(self, key: str) -> KeyValue | None:
            return KeyValue(key=key, value=dump(records[key]), revision=1) if key in records else None

    found = merged_object(Stored(), kind, name)
    assert found is not None
    return found


def fenced_node() -> dict[str, Any]:
    """r3 as r1 shows it, while a proof is missing."""
    from dataclasses import replace

    waits = replace(
        failed(record(), "agent", "fence_ipmilan: the BMC 10.9.0.3 does not answer", stamp(9.0)),
        missing=("db: waiting for a proof that r3 is cut off from the storage pool shared",),
    )
    item = merged({keys.fence("r3"): waits, keys.member("r3"): {"address": "r3"}}, Kind.NODE, "r3")
    item["status"]["liveness"] = {"standing": "Silent", "heartbeatAge": 180.2, "leaseAge": 181.0}
    return item


def owned(name: str, node: str) -> dict[str, Any]:
    meta = {"name": name, "uid": name, "creationTimestamp": "2026-01-31T12:00:00Z"}
    status = {"phase": "Fencing", "node": node, "claim": {"node": node}}
    spec = {"cpu": {"cores": 1}, "memory": "1Gi"}
    return {"kind": "VirtualMachine", "metadata": meta, "spec": spec, "status": status}


def test_a_failover_tells_its_story_with_seconds_and_whose_they_are() -> None:
    events = [
        {
            "type": "Warning",
            "reason": "FencingBegun",
            "node": "r1",
            "message": "r3-12: silent",
            "time": "2026-01-31T12:00:04Z",
            "count": 1,
        }
    ]
    text = describe(Facts(item=failover(), events=events, vms=[], at=NOW))
    assert text == (GOLDEN / "describe-failover.txt").read_text()


def test_a_node_that_is_being_fenced_says_what_is_missing_and_what_was_tried() -> None:
    text = describe(Facts(item=fenced_node(), events=[], vms=[], at=NOW))
    fencing = text[text.index("Fencing:") : text.index("Capacity:")]
    assert "Incident:         r3-12" in fencing
    assert "Missing:          db: waiting for a proof that r3 is cut off" in fencing
    assert "agent: failed once, last at 2026-01-31T12:00:10Z: fence_ipmilan: the BMC" in fencing
    assert "Intent" in fencing


def test_failovers_are_objects_like_others(vcl: Any, api: Any) -> None:
    api.add(failover())
    assert vcl("get", "failovers").code == 0
    assert "name: r3-12" in vcl("get", "failover/r3-12", "-o", "yaml").out
    assert "Status:    Starting" in vcl("describe", "failover", "r3-12").out
    assert "failovers\nfailover" not in vcl("get", "all").out
    assert complete(["describe", "failover", ""], Client(api.socket)) == ["r3-12"]
    assert complete(["node", "confirm-down", "r"], Client(api.socket)) == ["r1"]


@pytest.mark.parametrize("verb", ["schema", "explain"])
def test_nobody_writes_a_failover(vcl: Any, verb: str) -> None:
    assert "failovers are made by vcl and have no manifest" in vcl(verb, "failover").err


def test_a_script_must_name_the_incident(vcl: Any, api: Any) -> None:
    api.add(fenced_node())
    assert "--yes needs --incident" in vcl("node", "confirm-down", "r3", "--yes").err
    stale = vcl("node", "confirm-down", "r3", "--yes", "--incident", "r3-10")
    assert "the fencing under way is r3-12, not r3-10: nothing was confirmed" in stale.err
    assert not api.requests("POST")


def test_the_word_carries_the_incident_the_boot_and_who_said_it(vcl: Any, api: Any) -> None:
    api.add(fenced_node(), owned("db", "r3"), owned("web", "r1"))
    done = vcl("node", "confirm-down", "r3", "--yes", "--incident", "r3-12")
    assert done.out == "node/r3 confirmed down (r3-12); follow it with 'vcl describe failover r3-12'\n"
    assert "Would start elsewhere:  db\n" in done.err
    assert "WARNING: if r3 still runs, 1 VM will run twice and write to the same disks" in done.err
    assert "Mesh:   3m ago" in done.err
    ((path, _, body),) = api.requests("POST")
    assert path == "nodes/r3/confirm-down"
    assert (body["incident"], body["bootId"]) == ("r3-12", "7f0c2f6e-boot")
    assert "@" in body["by"]


def test_what_the_daemon_sees_beats_the_word(vcl: Any, api: Any) -> None:
    api.add(fenced_node())
    api.life = "its host refuses connections, so it is up"
    refused = vcl("node", "confirm-down", "r3", "--yes", "--incident", "r3-12")
    assert refused.code == 1
    assert "error: node 'r3' shows signs of life: its host refuses connections" in refused.err


def test_a_node_that_is_not_fenced_cannot_be_confirmed(vcl: Any) -> None:
    assert "no fencing of node 'r1' is under way" in vcl("node", "confirm-down", "r1").err


def test_without_a_terminal_nobody_is_asked(vcl: Any, api: Any) -> None:
    api.add(fenced_node())
    err = vcl("node", "confirm-down", "r3").err
    assert "this is no terminal; add --yes --incident r3-12, if the machine is surely off" in err


@pytest.mark.parametrize(("typed", "code"), [("r3", 0), ("yes", 1), ("r2", 1)])
def test_the_name_has_to_be_typed(api: Any, typed: str, code: int) -> None:
    api.add(fenced_node())
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "vcl.main", "node", "confirm-down", "r3", "--socket", api.socket]
    os.write(ours, f"{typed}\n".encode())
    try:
        done = subprocess.run(command, stdin=theirs, stdout=theirs, stderr=theirs, timeout=30, check=False)
    finally:
        os.close(theirs)
        os.close(ours)
    assert done.returncode == code
    assert len(api.requests("POST")) == (1 if code == 0 else 0)
