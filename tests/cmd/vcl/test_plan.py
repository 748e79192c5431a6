"""vcl plan, capacity and simulate: what they ask, what they show, narrow and wide, and how they end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from vcl.client import Client
from vcl.heatmap import heat_map
from vcl.prospects import capacity_text, plan_text, simulation_text
from vcl.verbs.complete import complete

GIB = 2**30


def node(
    name: str, cpu: tuple[int, int], memory: tuple[int, int], vms: tuple[int, int], note: str = ""
) -> Any:
    loads = [
        {"used": {"cpu": c, "memory": m * GIB}, "vms": v} for c, m, v in zip(cpu, memory, vms, strict=True)
    ]
    usable = {"cpu": 32, "memory": 32 * GIB}
    return {"name": name, "usable": usable, "before": loads[0], "after": loads[1], "note": note}


PLAN: dict[str, Any] = {
    "index": "4f2a91c03b1e",
    "differs": True,
    "changes": [
        {"vm": "db", "action": "Start", "target": "r2", "reason": "most free memory of 2 nodes that fit"},
        {"vm": "web", "action": "Restart", "source": "r1", "target": "r2", "reason": "it fits"},
    ],
    "waiting": [
        {
            "vm": "big",
            "node": "r1",
            "lost": True,
            "nodes": [
                {"node": "r1", "reason": "is supposed to be down"},
                {"node": "r2", "reason": "apart from web2 (web-apart)"},
                {"node": "r3", "reason": "in maintenance"},
                {"node": "r4", "reason": "in maintenance"},
            ],
        }
    ],
    "nodes": [
        node("r1", (8, 0), (16, 0), (2, 0), "is supposed to be down"),
        node("r2", (8, 16), (8, 16), (1, 3)),
        node("r3", (0, 0), (0, 0), (0, 0), "in maintenance"),
    ],
}


def test_a_plan_on_a_wide_terminal() -> None:
    assert (
        plan_text(PLAN, 110)
        == """\
2 changes: 1 to start, 1 to restart. 1 VM would lose its place.

ACTION    VM    FROM   TO   REASON
Start     db    -      r2   most free memory of 2 nodes that fit
Restart   web   r1     r2   it fits

Without a place:
  big (was on r1)
    r1: is supposed to be down
    r2: apart from web2 (web-apart)
    r3, r4: in maintenance

NODE   VCPU                              MEMORY                                VMS      NOTE
r1     [-----................]   0/32    [----------...........]   0/32Gi      0 (-2)   is supposed to be down
r2     [#####+++++...........]   16/32   [#####+++++...........]   16Gi/32Gi   3 (+2)
r3     [.....................]   0/32    [.....................]   0/32Gi      0        in maintenance

Index: 4f2a91c03b1e
"""
    )


def test_a_plan_on_a_narrow_terminal_puts_reasons_below() -> None:
    text = plan_text(PLAN, 48)
    assert max(map(len, text.splitlines()[1:])) <= 48
    assert "Start     db    -      r2\n    most free memory of 2 nodes that fit\n" in text
    assert "r3: in maintenance\n" in text


def test_the_exit_code_is_diffs(vcl: Any, api: Any) -> None:
    nothing = vcl("plan")
    assert (nothing.code, nothing.out.splitlines()[0]) == (0, "Nothing would change.")
    api.plan = PLAN
    assert vcl("plan").code == 1
    unknown = vcl("plan", "--node-down", "r9")
    assert (unknown.code, unknown.err) == (2, "error: node 'r9' not found; there are r1, r2\n")
    assert vcl("plan", "--apply", "nowhere.yaml").code == 2


def test_what_is_supposed_is_sent(vcl: Any, api: Any, tmp_path: Path) -> None:
    (tmp_path / "web.yaml").write_text("# mine\n")
    vcl("plan", "--apply", str(tmp_path), "--node-down", "r2", "--node-down", "r1", "--drain", "r3")
    files = [{"name": f"{tmp_path}/web.yaml", "content": "# mine\n"}]
    ((path, _, body),) = api.requests("POST")
    assert (path, body["files"], body["nodesDown"], body["drain"]) == ("plan", files, ["r1", "r2"], ["r3"])
    assert (body["repair"], body["balance"]) == (False, False)
    vcl("plan", "--repair", "--balance")
    assert [api.requests("POST")[-1][2][key] for key in ("repair", "balance")] == [True, True]


def test_a_plan_for_programs_and_its_warnings(vcl: Any, api: Any) -> None:
    api.plan = {**PLAN, "warnings": ["x.yaml:1:1: warning: odd"]}
    result = vcl("plan", "-o", "json")
    assert json.loads(result.out)["waiting"][0]["nodes"][1]["reason"] == "apart from web2 (web-apart)"
    assert result.err == "x.yaml:1:1: warning: odd\n"


def test_an_index_that_does_not_hold_any_more_is_trouble(vcl: Any, api: Any) -> None:
    assert vcl("plan", "--check-index", "4f2a91c03b1e").code == 0
    other = vcl("plan", "--check-index", "0123456789ab")
    assert other.code == 2
    assert "the index is 4f2a91c03b1e now, not 0123456789ab" in other.err


def test_apply_sends_the_index_with_all_files_in_one_request(vcl: Any, api: Any, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("# a\n")
    (tmp_path / "b.yaml").write_text("# b\n")
    assert vcl("apply", "-f", str(tmp_path), "--check-index", "4f2a91c03b1e").code == 0
    ((path, _, body),) = api.requests("POST")
    assert (path, body["index"], len(body["files"])) == ("manifests", "4f2a91c03b1e", 2)
    assert "index" not in (vcl("apply", "-f", str(tmp_path)), api.requests("POST")[-1][2])[1]


def test_apply_with_an_index_does_nothing_when_a_file_cannot_be_read(
    vcl: Any, api: Any, tmp_path: Path
) -> None:
    (tmp_path / "a.yaml").write_text("# a\n")
    result = vcl("apply", "-f", f"{tmp_path}/a.yaml", "-f", f"{tmp_path}/b.yaml", "--check-index", "x")
    assert result.code == 1
    assert api.requests("POST") == []


ROOM: dict[str, Any] = {
    "vm": "web",
    "cpu": 2,
    "memory": 4 * GIB,
    "headroom": {
        "fit": 9,
        "withReserve": 5,
        "then": {"node": "r2", "vms": ["web~00001", "db", "web~00002"]},
        "next": [{"node": "r1", "reason": "memory 1Gi short (3Gi free)"}],
        "pinned": [{"node": "r3", "pinned": ["local"]}],
        "more": False,
    },
}


def test_how_many_more_fit() -> None:
    assert (
        capacity_text(ROOM, 100)
        == """\
5 more VMs like web (2 vCPU, 4Gi) fit, and any one node may still be lost.
  one more, and without r2 there is no place for db, web
9 fit when nothing is kept in reserve.
  one more finds no place:
    r1: memory 1Gi short (3Gi free)
not counted: without r3: local can run on no other node at all
"""
    )


def test_no_reserve_is_said_with_who_would_suffer() -> None:
    short = {"fit": 3, "withReserve": 0, "short": [{"node": "r1", "vms": ["db"]}]}
    text = capacity_text({**ROOM, "headroom": short}, 100)
    assert text.startswith(
        "No more VMs like web (2 vCPU, 4Gi) fit with a node in reserve: today's VMs would not survive the "
        "loss of one.\n  without r1: no place for db\n3 fit"
    )


def test_what_does_not_fit_at_all_says_why() -> None:
    full = {"fit": 0, "withReserve": 0, "next": [{"node": "r1", "reason": "apart from web (apart)"}]}
    assert capacity_text({**ROOM, "headroom": full}, 100) == (
        "No more VMs like web (2 vCPU, 4Gi) fit.\n  r1: apart from web (apart)\n"
    )


@pytest.mark.parametrize(
    ("argv", "body"),
    [
        (("web",), {"vm": "web"}),
        (("vm/web",), {"vm": "web"}),
        (
            ("--cpu", "2", "--memory", "4Gi"),
            {
                "file": {
                    "name": "stdin",
                    "content": "apiVersion: vcl/v1\nkind: VirtualMachine\nmetadata: {name: this-size}\n"
                    "spec: {cpu: {cores: 2}, memory: 4294967296}\n",
                }
            },
        ),
    ],
)
def test_capacity_asks_for_a_vm_or_a_size(vcl: Any, api: Any, argv: tuple[str, ...], body: Any) -> None:
    api.capacity = ROOM
    assert vcl("capacity", *argv).code == 0
    assert api.requests("POST") == [("capacity", {}, body)]


def test_capacity_needs_one_of_them(vcl: Any) -> None:
    assert vcl("capacity").err == (
        "error: say which VM; name one, or use -f FILE, or --cpu N --memory SIZE\n"
    )
    assert vcl("capacity", "web", "--memory", "4Gi").code == 1
    assert "--memory must be a quantity" in vcl("capacity", "--memory", "lots").err


def test_many_nodes_are_a_map_of_characters() -> None:
    nodes = [node(f"n{i:02}", (i, i), (32, 32), (1, 1), "cordoned" if i == 3 else "") for i in range(45)]
    assert heat_map(nodes, 40).splitlines()[1:] == [
        "VCPU  69% of all",
        "n00  _..x::::----====++++****%%%%@@",
        "n30  @@#############",
        "MEMORY  100% of all",
        "n00  ###x##########################",
        "n30  ###############",
    ]


def test_a_simulation_needs_no_daemon(vcl: Any, api: Any, tmp_path: Path) -> None:
    (tmp_path / "nodes.csv").write_text("name,cpu,memory\nr1,4,8Gi\nr2,4,8Gi\n")
    (tmp_path / "vms.csv").write_text("name,cpu,memory,labels,count\nweb,1,1Gi,app=web,3\n")
    (tmp_path / "apart.yaml").write_text(
        "apiVersion: vcl/v1\nkind: PlacementConstraint\nmetadata: {name: apart}\n"
        "spec: {type: AntiAffinity, vms: {matchLabels: {app: web}}}\n"
    )
    where = ("--nodes", f"{tmp_path}/nodes.csv", "--vms", f"{tmp_path}/vms.csv")
    fine = vcl("simulate", *where)
    assert (fine.code, fine.out.splitlines()[0], fine.err) == (0, "3 VMs of 3 placed on 2 nodes.", "")
    assert "N+1: any one node may be lost" in fine.out
    apart = vcl("simulate", *where, "--vms", f"{tmp_path}/apart.yaml", "-o", "json")
    assert apart.code == 1
    (waiting,) = json.loads(apart.out)["waiting"]
    assert all("apart from web-" in each["reason"] for each in waiting["nodes"])
    assert apart.err.startswith(
        f"warning: apart ({tmp_path}/apart.yaml:1) cannot be kept: web-1, web-2 and web-3 (3 VMs) must each "
        "have a node of their own, and only r1 and r2 can take them"
    )
    assert api.asked == []


def test_validate_finds_what_the_nodes_that_are_named_cannot_keep(vcl: Any, tmp_path: Path) -> None:
    (tmp_path / "nodes.csv").write_text("name,cpu,memory\nr1,4,8Gi\n")
    (tmp_path / "rule.yaml").write_text(
        "apiVersion: vcl/v1\nkind: PlacementConstraint\nmetadata: {name: on-nine}\n"
        "spec: {type: NodeAffinity, vms: {names: [a]}, nodes: {names: [r9]}}\n---\n"
        "apiVersion: vcl/v1\nkind: VirtualMachine\nmetadata: {name: a}\nspec: {cpu: {cores: 1}, memory: 1Gi}"
    )
    assert vcl("validate", f"{tmp_path}/rule.yaml").out.endswith("no problems\n")
    told = vcl("validate", f"{tmp_path}/rule.yaml", "--nodes", f"{tmp_path}/nodes.csv")
    assert told.code == 0
    assert "warning: spec.type: cannot be kept: there is no node 'r9' (nodes: r1)" in told.out
    assert "there is no Node 'r9' yet" in told.out
    assert vcl("validate", f"{tmp_path}/rule.yaml", "--nodes", f"{tmp_path}/rule.yaml").code == 1


def test_nodes_and_vms_may_stand_in_one_directory(vcl: Any, tmp_path: Path) -> None:
    (tmp_path / "all.yaml").write_text(
        "apiVersion: vcl/v1\nkind: Node\nmetadata: {name: r1}\nspec: {capacity: {cpu: 4, memory: 8Gi}}\n---\n"
        "apiVersion: vcl/v1\nkind: VirtualMachine\nmetadata: {name: a}\nspec: {cpu: {cores: 1}, memory: 1Gi}"
    )
    both = vcl("simulate", "--nodes", str(tmp_path), "--vms", str(tmp_path))
    assert (both.code, both.out.splitlines()[0]) == (0, "1 VM of 1 placed on 1 node.")
    assert vcl("simulate", "--vms", str(tmp_path)).out == both.out
    assert vcl("simulate", "--nodes", str(tmp_path)).err.startswith(
        "error: say which VMs; name them with --vms"
    )


def test_a_simulation_loses_nodes(vcl: Any, tmp_path: Path) -> None:
    (tmp_path / "nodes.csv").write_text("name,cpu,memory\nr1,4,8Gi\nr2,4,8Gi\n")
    (tmp_path / "vms.csv").write_text("name,cpu,memory,count\nweb,1,3Gi,4\n")
    where = ("--nodes", f"{tmp_path}/nodes.csv", "--vms", f"{tmp_path}/vms.csv")
    result = vcl("simulate", *where, "--node-down", "r1")
    assert result.code == 1
    assert "2 VMs of 4 placed on 2 nodes, 0 of them anew without r1." in result.out
    assert "(was on r1)" in result.out
    assert vcl("simulate", *where, "--node-down", "r3").err == (
        "error: there is no node 'r3'; name one of --nodes\n"
    )


@pytest.mark.parametrize(
    ("nodes", "vms", "message"),
    [
        ("name,cpu,memory\n", "name,cpu,memory\na,1,1Gi\n", "there are no nodes"),
        (
            "name,cpu,memory\nr1,1,1Gi\n",
            "name,cpu,memory\na,1,1Gi\na,1,1Gi\n",
            "VirtualMachine 'a' is there twice",
        ),
        ("name,cpu,memory\nr1,x,1Gi\n", "name,cpu,memory\n", "nodes.csv:2: cpu: must be a number of cores"),
    ],
)
def test_a_simulation_of_nonsense_says_what_is_wrong(
    vcl: Any, tmp_path: Path, nodes: str, vms: str, message: str
) -> None:
    (tmp_path / "nodes.csv").write_text(nodes)
    (tmp_path / "vms.csv").write_text(vms)
    result = vcl("simulate", "--nodes", f"{tmp_path}/nodes.csv", "--vms", f"{tmp_path}/vms.csv")
    assert result.code == 1
    assert message in result.err


def test_an_empty_simulation_says_so() -> None:
    assert simulation_text({"nodes": []}, 0, width=80).startswith("0 VMs of 0 placed on 0 nodes.\n")


def test_describe_tells_each_node_and_why_not(vcl: Any, api: Any) -> None:
    item = api.objects["virtualmachines", "db"]
    item["status"]["phase"] = "Unschedulable"
    item["status"]["conditions"].append(
        {
            "type": "Placed",
            "status": "False",
            "reason": "Unschedulable",
            "message": "r1: memory 3Gi short (1Gi free); r2: apart from web2 (web-apart); r3: in maintenance",
        }
    )
    out = vcl("describe", "vm", "db").out
    assert (
        "Why it has no place:\n  Node  Reason\n  ----  ------\n  r1    memory 3Gi short (1Gi free)\n" in out
    )
    assert "  r2    apart from web2 (web-apart)\n  r3    in maintenance\n" in out


def test_nodes_and_vms_are_completed(api: Any) -> None:
    client = Client(api.socket)
    assert complete(["plan", "--node-down", ""], client) == ["r1"]
    assert complete(["capacity", "w"], client) == ["web"]
    assert complete(["simulate", "--node-down", ""], client) == []
    assert complete(["plan", "--apply", ""], client) == []
