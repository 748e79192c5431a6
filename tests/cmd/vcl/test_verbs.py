"""The verbs that ask, wait and tell: power, wait, delete, events, confirm, cluster, version, vnc."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from vcl.describing import Facts, describe
from vcl.durations import datetime
from vcl.registry import VERBS, load

from tests.cmd.vcl.conftest import vm

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_every_verb_has_an_example_and_the_help_that_the_list_says(verb: Any, vcl: Any) -> None:
    result = vcl(verb.name, "--help")
    assert result.code == 0
    assert "Example:" in result.out
    assert f"vcl {verb.name}" in result.out
    assert verb.help in result.out
    assert load(verb).name == verb.name


def test_an_unknown_verb_is_named_with_the_nearest_one(vcl: Any) -> None:
    assert vcl("gte").err == "error: unknown verb 'gte'; did you mean 'get'?; see 'vcl --help'\n"


@pytest.mark.parametrize(
    ("verb", "asked"),
    [
        ("start", "starting"),
        ("stop", "stopping"),
        ("restart", "restarting"),
        ("reset", "resetting"),
        ("pause", "pausing"),
        ("resume", "resuming"),
        ("retry", "retrying"),
    ],
)
def test_a_power_verb_records_what_is_asked_for_each_vm(vcl: Any, api: Any, verb: str, asked: str) -> None:
    result = vcl(verb, "web", "db")
    assert (result.code, result.err) == (0, "")
    assert result.out == f"virtualmachine/web {asked}\nvirtualmachine/db {asked}\n"
    assert [path for path, _, _ in api.requests("POST")] == [
        f"virtualmachines/web/{verb}",
        f"virtualmachines/db/{verb}",
    ]


def test_only_stop_and_restart_say_whether_to_be_rude(vcl: Any, api: Any) -> None:
    vcl("stop", "web", "--force")
    vcl("restart", "web")
    vcl("start", "web")
    assert [body for _, _, body in api.requests("POST")] == [{"force": True}, {"force": False}, {}]


def test_a_power_verb_goes_on_past_a_vm_that_does_not_exist(vcl: Any) -> None:
    result = vcl("stop", "nope", "web")
    assert result.code == 1
    assert result.out == "virtualmachine/web stopping\n"
    assert result.err.startswith("error: virtualmachine 'nope' not found")


def test_vms_are_chosen_by_label_or_all_of_them(vcl: Any) -> None:
    assert vcl("stop", "-l", "app=db").out == "virtualmachine/db stopping\n"
    assert len(vcl("stop", "--all").out.splitlines()) == 2
    assert vcl("stop").err.startswith("error: say which virtual machines to stop")
    assert vcl("stop", "web", "--all").err.startswith("error: names, -l and --all exclude each other")
    assert vcl("stop", "-l", "app=x").err == "No resources found\n"


def test_waiting_for_a_start_ends_when_the_vm_runs(vcl: Any, api: Any) -> None:
    looks = 0

    def look(kind: str, name: str) -> None:
        nonlocal looks
        looks += 1
        if looks == 3:
            api.objects[kind, name]["status"]["phase"] = "Running"

    api.on_get = look
    result = vcl("start", "db", "--wait")
    assert result.out == "virtualmachine/db starting\nvirtualmachine/db running\n"


def test_a_restart_is_done_only_when_the_vm_was_started_anew(vcl: Any, api: Any) -> None:
    result = vcl("restart", "web", "--wait", "--timeout=0.2s")
    assert result.code == 1
    assert "timed out waiting for the condition on virtualmachine/web: Running" in result.err
    honoured = {"claim": {"restart": "id-1"}}
    api.on_verb = lambda item, verb: item["status"].update(honoured, intent={"restart": "id-2"})
    assert vcl("restart", "web", "--wait", "--timeout=0.2s").code == 1
    api.on_verb = lambda item, verb: item["status"].update({"claim": {"restart": "id-2"}}, intent={})
    assert vcl("restart", "web", "--wait").code == 0


@pytest.mark.parametrize("verb", ["start", "stop"])
def test_the_important_are_started_first_and_stopped_last(vcl: Any, api: Any, verb: str) -> None:
    for name, priority in (("a", 0), ("b", 10), ("c", -5), ("d", 10)):
        api.add(vm(name, spec={"priority": priority}))
    vcl(verb, "a", "b", "c", "d")
    order = [path.split("/")[1] for path, _, _ in api.requests("POST")]
    assert order == {"start": ["b", "d", "a", "c"], "stop": ["c", "a", "b", "d"]}[verb]


def test_one_priority_is_done_before_the_next_is_asked(vcl: Any, api: Any) -> None:
    api.add(vm("first", "Stopped", spec={"priority": 1}), vm("then", "Stopped"))
    phases = []

    def begin(item: dict[str, Any], verb: str) -> None:
        phases.append(api.objects["virtualmachines", "first"]["status"]["phase"])
        item["status"]["phase"] = "Starting"

    def look(kind: str, name: str) -> None:
        api.objects[kind, name]["status"]["phase"] = "Running"

    api.on_verb, api.on_get = begin, look
    assert vcl("start", "then", "first", "--wait").out.splitlines() == [
        "virtualmachine/first starting",
        "virtualmachine/first running",
        "virtualmachine/then starting",
        "virtualmachine/then running",
    ]
    assert phases == ["Stopped", "Running"]


def test_many_are_waited_for_together(vcl: Any, api: Any) -> None:
    names = [f"vm{number}" for number in range(12)]
    api.add(*(vm(name, labels={"app": "many"}) for name in names))
    lines = vcl("start", "-l", "app=many", "--wait").out.splitlines()
    assert sorted(lines) == sorted(f"virtualmachine/{n} {w}" for n in names for w in ("starting", "running"))


@pytest.mark.parametrize(
    "goal",
    [
        "condition=Ready",
        "condition=ready=true",
        "jsonpath={.status.phase}=Running",
        "jsonpath={.status.startTime}",
        "jsonpath=.metadata.name",
        "create",
    ],
)
def test_wait_returns_when_the_goal_is_reached(vcl: Any, goal: str) -> None:
    result = vcl("wait", "vm/web", f"--for={goal}")
    assert (result.code, result.out) == (0, "virtualmachine/web condition met\n")


def test_wait_fails_when_time_is_up_and_says_how_it_stands(vcl: Any) -> None:
    result = vcl("wait", "vm", "--all", "--for=condition=Ready", "--timeout=0.2s")
    assert result.code == 1
    assert result.err.startswith(
        "error: timed out waiting for the condition on virtualmachine/db: Stopped, asked to stop; look at"
    )


def test_a_condition_of_an_older_generation_does_not_count(vcl: Any, api: Any) -> None:
    api.objects["virtualmachines", "web"]["metadata"]["generation"] = 2
    assert vcl("wait", "vm/web", "--for=condition=Ready", "--timeout=0").code == 1


def test_wait_for_delete_is_done_when_the_object_is_not_there(vcl: Any) -> None:
    assert vcl("wait", "vm/gone", "--for=delete").out == "virtualmachine/gone condition met\n"
    assert "not found" in vcl("wait", "vm/gone", "--for=condition=Ready").err


@pytest.mark.parametrize("goal", ["", "luck", "condition=", "jsonpath="])
def test_wait_refuses_what_it_cannot_wait_for(vcl: Any, goal: str) -> None:
    assert "write --for=condition=TYPE" in vcl("wait", "vm/web", f"--for={goal}").err


def test_delete_says_so_and_returns_when_the_objects_are_gone(vcl: Any, api: Any) -> None:
    result = vcl("delete", "vm", "web", "nope", "db")
    assert result.code == 1
    assert result.out == 'virtualmachine "web" deleted\nvirtualmachine "db" deleted\n'
    assert "virtualmachine 'nope' not found" in result.err
    assert ("virtualmachines", "web") not in api.objects


def test_delete_needs_names_or_an_explicit_all(vcl: Any, api: Any) -> None:
    assert "say which virtualmachines to delete" in vcl("delete", "vms").err
    assert vcl("delete", "vms", "--all").code == 0
    assert not [key for key in api.objects if key[0] == "virtualmachines"]


def test_purge_needs_a_yes(vcl: Any, api: Any) -> None:
    result = vcl("delete", "vm", "web", "--purge")
    assert (result.code, result.out) == (1, "")
    assert "add --yes if you mean it" in result.err
    assert not api.requests("DELETE")
    assert vcl("delete", "vm", "web", "--purge", "--yes").code == 0
    assert api.requests("DELETE") == [("virtualmachines/web", {"purge": "1"}, None)]


def test_delete_takes_the_objects_of_a_file(vcl: Any, tmp_path: Path) -> None:
    path = tmp_path / "web.yaml"
    path.write_text("apiVersion: vcl/v1\nkind: VirtualMachine\nmetadata: {name: web}\nspec: {}\n")
    assert vcl("delete", "-f", str(path)).out == 'virtualmachine "web" deleted\n'
    assert vcl("delete", "-f", str(path), "--ignore-not-found").code == 0


EVENTS = [
    {
        "time": "2026-01-31T12:00:00Z",
        "type": "Normal",
        "kind": "VirtualMachine",
        "name": "web",
        "reason": "Started",
        "message": "running on r1",
        "node": "r1",
        "count": 1,
    },
    {
        "time": "2026-01-31T12:04:00Z",
        "firstTime": "2026-01-31T12:01:00Z",
        "type": "Warning",
        "kind": "VirtualMachine",
        "name": "db",
        "reason": "StartFailed",
        "message": "no such image",
        "node": "r1",
        "count": 3,
    },
]


def test_events_are_a_table_of_what_happened(vcl: Any, api: Any) -> None:
    api.events = EVENTS
    lines = vcl("events", "--no-headers").out.splitlines()
    assert lines[0].split()[1:5] == ["Normal", "Started", "virtualmachine/web", "running"]
    assert "(x3 over" in lines[1]
    assert len(vcl("events", "vm/db", "--no-headers").out.splitlines()) == 1
    assert len(vcl("events", "--types=Warning", "--no-headers").out.splitlines()) == 1
    assert json.loads(vcl("events", "--for=vm/web", "-o", "json").out)["items"] == EVENTS[:1]
    followed = vcl("events", "-w")
    assert len(followed.out.splitlines()) == 3
    assert followed.code == 1


def test_no_events_is_not_an_error(vcl: Any) -> None:
    assert vcl("events") == type(vcl("events"))(0, "", "No events found\n")


HELD = {
    "id": "3f9c",
    "reason": "12 of 14 files vanished at once",
    "objects": [{"kind": "VirtualMachine", "name": "web"}, {"kind": "Image", "name": "debian"}],
}


def test_held_deletions_pass_only_with_a_yes(vcl: Any, api: Any) -> None:
    api.status["heldDeletions"] = HELD
    asked = vcl("confirm")
    assert asked.code == 1
    assert "virtualmachine/web\nimage/debian\n" in asked.out
    assert "add --yes" in asked.err
    assert "no deletions are held with the id 'other'" in vcl("confirm", "other", "--yes").err
    assert "confirmed: 2 deletions will go on" in vcl("confirm", "3f9c", "--yes").out
    assert api.requests("POST") == [("confirm", {}, {"id": "3f9c"})]
    assert vcl("confirm").err == "error: no deletions are held; see 'vcl cluster status'\n"


def test_the_cluster_tells_how_it_is(vcl: Any, api: Any) -> None:
    api.status["heldDeletions"] = HELD
    out = vcl("cluster", "status").out
    assert "Virtual machines:  2: 1 Running, 1 Stopped\n" in out
    assert "vcl confirm 3f9c" in out
    assert json.loads(vcl("cluster", "status", "-o", "json").out)["storeRevision"] == 7


def test_version_tells_both_sides(vcl: Any) -> None:
    assert "Daemon libvirt:" in vcl("version").out
    told = json.loads(vcl("version", "-o", "json").out)
    assert (told["client"]["apiVersion"], told["daemon"]["node"]) == ("vcl/v1", "r1")
    assert "daemon" not in yaml.safe_load(vcl("version", "--client", "-o", "yaml").out)


def test_vnc_prints_an_address_that_a_viewer_takes(vcl: Any) -> None:
    assert vcl("vnc", "web").out == "127.0.0.1:5901\n"
    assert json.loads(vcl("vnc", "vm/web", "-o", "json").out)["port"] == 5901
    assert vcl("vnc", "db").err == "error: virtualmachine 'web' is Stopped; vcl start web\n"
    assert "a node has no screen" in vcl("vnc", "node/r1").err


def test_a_description_tells_everything_once(vcl: Any, api: Any) -> None:
    item = yaml.safe_load((GOLDEN / "described-vm.yaml").read_text())
    at = datetime.fromisoformat("2026-01-31T12:10:00Z")
    text = describe(Facts(item=item, events=EVENTS[1:], vms=(), at=at))
    assert text == (GOLDEN / "describe-vm.txt").read_text()
    assert "secret" not in text


def test_a_node_is_described_with_what_runs_on_it() -> None:
    item, *vms = yaml.safe_load_all((GOLDEN / "described-node.yaml").read_text())
    at = datetime.fromisoformat("2026-01-31T12:10:00Z")
    text = describe(Facts(item=item, events=(), vms=vms, at=at))
    assert text == (GOLDEN / "describe-node.txt").read_text()


def test_other_kinds_are_described_in_the_users_words() -> None:
    at = datetime.fromisoformat("2026-01-31T12:10:00Z")
    rule = {"spec": {"vms": {"matchLabels": {"tier": "web", "example.com/Zone": "a"}}}}
    text = describe(Facts(item={"kind": "PlacementConstraint", **rule}, events=(), vms=(), at=at))
    assert "    Match labels:  example.com/Zone=a\n                   tier=web\n" in text
    pool = {"kind": "StoragePool", "spec": {}, "status": {"uid": "x", "free": 2**30, "ready": True}}
    text = describe(Facts(item=pool, events=(), vms=(), at=at))
    assert "Spec:         <none>\nStatus:\n  Free:   1Gi\n  Ready:  True\n" in text


def test_describe_asks_for_the_object_and_its_events(vcl: Any, api: Any) -> None:
    api.events = EVENTS
    result = vcl("describe", "vm", "web", "nope")
    assert result.code == 1
    assert result.out.startswith("Name:         web\n")
    assert "Started" in result.out
    assert "StartFailed" not in result.out
    assert "'nope' not found" in result.err
    assert "Name:         r1" in vcl("describe", "node/r1").out


@pytest.mark.parametrize(
    ("words", "candidates"),
    [
        (["des"], ["describe"]),
        (["get", "vm"], ["vm", "vms"]),
        (["get", "vms", ""], ["db", "web"]),
        (["get", "vm", "web", ""], ["db"]),
        (["describe", "vm/w"], ["vm/web"]),
        (["start", "d"], ["db"]),
        (["migrate", "d"], ["db"]),
        (["migrate", "db", "--to", ""], ["r1"]),
        (["get", "vms", "-o", "cu"], ["custom-columns="]),
        (["apply", "--dry-run=s"], ["--dry-run=server"]),
        (["apply", "--dry"], ["--dry-run"]),
        (["apply", "-f", ""], []),
        (["completion", ""], ["bash", "zsh", "fish"]),
        (["nonsense", "-"], []),
        (["get", "nonsense/"], []),
    ],
)
def test_completion_offers_what_fits(vcl: Any, words: list[str], candidates: list[str]) -> None:
    from vcl.client import Client
    from vcl.verbs.complete import complete

    assert vcl("__complete").code == 0
    socket = vcl.__closure__[0].cell_contents.socket
    assert complete(words, Client(socket)) == candidates


def test_completion_is_silent_without_a_daemon() -> None:
    from vcl.client import Client
    from vcl.verbs.complete import complete

    assert complete(["get", "vms", ""], Client("/nonexistent/socket")) == []
