"""Verbs for nodes, against a daemon with canned answers."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.mark.parametrize(("verb", "body"), [("cordon", {}), ("uncordon", {"bringBack": False})])
def test_each_node_is_asked_and_a_missing_one_named(vcl: Any, api: Any, verb: str, body: Any) -> None:
    done = vcl(verb, "r9", "node/r1")
    assert (done.code, done.out) == (1, f"node/r1 {verb}ed\n")
    assert done.err.startswith("error: node 'r9' not found")
    assert api.requests("POST")[-1] == (f"nodes/r1/{verb}", {}, body)


def test_an_uncordon_may_ask_for_the_vms_back(vcl: Any, api: Any) -> None:
    assert vcl("uncordon", "r1", "--return").code == 0
    assert api.requests("POST")[-1][2] == {"bringBack": True}


def test_a_node_has_to_be_named(vcl: Any) -> None:
    assert vcl("cordon").err == "error: say which node to cordon; write 'vcl cordon NODE'\n"


PLAN = {
    "moves": [
        {"vm": "web", "source": "r1", "target": "r2", "way": "Restart", "reason": "r1 is drained"},
        {"vm": "db", "source": "r1", "target": "r3", "way": "Migrate", "reason": "r1 is drained"},
    ],
    "stays": [{"vm": "old", "reason": "its evictionStrategy is None: it stays until it is stopped"}],
}
LISTED = """\
These cannot leave r1:
  old: its evictionStrategy is None: it stays until it is stopped
These leave r1:
  web: is shut down, and started on r2
  db: migrates to r3
"""


def draining(api: Any, *steps: dict[str, Any]) -> None:
    """The node's drain, one step further at each look after it was asked for."""
    left = list(steps)

    def begin(item: dict[str, Any], verb: str) -> None:
        item["status"]["intent"] = {"drain": "id1"}

    def look(kind: str, name: str) -> None:
        if kind == "nodes" and left:
            api.objects[kind, name]["status"]["drain"] = {"id": "id1", **left.pop(0)}

    api.objects["nodes", "r1"]["status"]["drain"] = {"id": "id0", "phase": "Drained"}
    api.on_verb, api.on_get = begin, look


def test_a_dry_run_says_first_what_cannot_leave_and_asks_for_nothing(vcl: Any, api: Any) -> None:
    api.drain_plan = PLAN
    done = vcl("drain", "r1", "--dry-run")
    assert (done.code, done.out) == (0, LISTED)
    assert api.requests("POST") == []


def test_a_drain_ends_when_the_node_is_empty(vcl: Any, api: Any) -> None:
    web = {"vm": "web", "reason": "it goes to r2", "going": True}
    draining(api, {"phase": "Draining", "waiting": [web]}, {"phase": "Drained", "waiting": []})
    done = vcl("drain", "node/r1")
    assert done.code == 0
    assert done.out.endswith("node/r1 draining\nvirtualmachine/web left r1\nnode/r1 drained\n")
    assert api.requests("POST") == [("nodes/r1/drain", {}, {})]


def test_a_drain_that_takes_too_long_goes_on_without_its_command(vcl: Any, api: Any) -> None:
    web = {"vm": "web", "reason": "it goes to r2", "going": True}
    draining(api, {"phase": "Draining", "waiting": [web]})
    done = vcl("drain", "r1", "--timeout=0.3s")
    assert done.code == 1
    assert "error: virtualmachine/web is still on r1: it goes to r2\n" in done.err
    assert "timed out draining r1; it goes on as soon as they can; 'vcl uncordon r1'" in done.err


def test_a_drain_that_is_cancelled_fails(vcl: Any, api: Any) -> None:
    draining(api, {"phase": "Cancelled", "waiting": []})
    assert "the drain of r1 was cancelled" in vcl("drain", "r1").err


def test_maintenance_begins_with_a_drain_and_ends_with_a_word(vcl: Any, api: Any) -> None:
    draining(api, {"phase": "Drained", "waiting": []})
    assert vcl("node", "maintenance", "r1", "on").out.endswith("node/r1 drained\n")
    done = vcl("node", "maintenance", "r1", "off", "--return")
    assert done.out == "node/r1 back in service\n"
    assert api.requests("POST") == [
        ("nodes/r1/maintenance-on", {}, {}),
        ("nodes/r1/maintenance-off", {}, {"bringBack": True}),
    ]


def test_maintenance_is_on_or_off(vcl: Any) -> None:
    assert vcl("node", "maintenance", "r1", "maybe").err.startswith("error: 'maybe' is neither on nor off")
    assert vcl("node", "maintenance", "r1", "on", "--return").code == 1


def test_a_node_that_goes_down_is_followed_until_it_has_no_vm(vcl: Any, api: Any) -> None:
    for name in [name for kind, name in api.objects if kind == "virtualmachines"]:
        api.objects["virtualmachines", name]["status"]["claim"] = {}
    done = vcl("node", "shutdown", "r1", "--policy=Freeze", "--deadline=1m", "--yes")
    assert (done.code, done.err) == (0, "")
    assert "r1 has no VM any more" in done.out
    assert api.requests("POST")[-1] == (
        "nodes/r1/shutdown",
        {},
        {"policy": "Freeze", "timeoutSeconds": 60},
    )


def test_a_policy_that_does_not_exist_is_refused(vcl: Any, api: Any) -> None:
    assert "there is no policy 'Move'" in vcl("node", "shutdown", "r1", "--policy=Move", "--yes").err
    assert api.requests("POST") == []


def test_what_cannot_leave_a_node_that_goes_down_is_shut_down(vcl: Any, api: Any) -> None:
    """The VM web stays for the drain, and is gone when it was asked to stop."""
    for kind, name in api.objects:
        if kind == "virtualmachines":
            api.objects[kind, name]["status"]["claim"] = {"node": "r1"} if name == "web" else {}

    def begin(item: dict[str, Any], verb: str) -> None:
        policy = api.requests("POST")[-1][2].get("policy") or "Migrate"
        item["status"]["intent"] = {"shutdown": {"id": "id1", "policy": policy, "timeoutSeconds": 2}}
        item["status"]["drain"] = {"id": "id1", "waiting": [{"vm": "web", "reason": "it stays"}]}
        if policy == "Stop":
            api.objects["virtualmachines", "web"]["status"]["claim"] = {}

    api.on_verb = begin
    done = vcl("node", "shutdown", "r1", "--yes")
    assert (done.code, done.err) == (0, "")
    assert [body for path, _, body in api.requests("POST")] == [{}, {"policy": "Stop", "timeoutSeconds": 2}]
    assert "node/r1: what has not left is shut down\n" in done.out
    assert done.out.endswith("node/r1 has no VM any more; 'vcl uncordon r1' if its host stays on after all\n")
