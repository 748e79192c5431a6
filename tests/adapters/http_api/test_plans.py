"""POST plan, POST capacity, and applying with a plan's index, over the socket."""

from __future__ import annotations

from typing import Any

from reconciler.loops.manifest_reader import ManifestReader
from reconciler.loops.plans import Plans
from reconciler.resources import keys
from reconciler.resources.kinds import Kind
from reconciler.resources.status import NodeStatus
from reconciler.sim.desk import Desk
from reconciler.testing.manifests import parse

WEB = (
    "apiVersion: vcl/v1\nkind: VirtualMachine\nmetadata: {name: web}\nspec: {cpu: {cores: 1}, memory: 2Gi}\n"
)
FILE = {"name": "web.yaml", "content": WEB}


async def begin(desk: Desk, api: Any, **limits: float) -> None:
    status = NodeStatus(uid="", ready=True, cpu=8, memory=2**33, controllers={"libvirt": ""})
    await desk.put({keys.node_status(Kind.NODE, name): status for name in ("r1", "r2")})
    reader = ManifestReader(parse, desk.views)
    api.plans = Plans(desk.views, desk.clock, reader, api.manifests, lambda node: "")
    await api.start(**limits)


async def test_a_plan_has_its_lists_also_when_nothing_happens(desk: Desk, idle_api: Any) -> None:
    await begin(desk, idle_api)
    status, answer = await idle_api.call("POST", "plan", json={})
    assert status == 200
    assert (answer["changes"], answer["waiting"], answer["warnings"], answer["differs"]) == (
        [],
        [],
        [],
        False,
    )
    assert [node["name"] for node in answer["nodes"]] == ["r1", "r2"]


async def test_a_plan_after_an_edit_without_a_node(desk: Desk, idle_api: Any) -> None:
    await begin(desk, idle_api)
    asked = {"files": [FILE], "nodesDown": ["r1"]}
    status, answer = await idle_api.call("POST", "plan", json=asked)
    assert (status, answer["differs"]) == (200, True)
    (change,) = answer["changes"]
    assert (change["vm"], change["action"], change["target"]) == ("web", "Start", "r2")
    assert [dry for _, dry in idle_api.manifests.applied] == [True]


async def test_the_index_of_a_plan_lets_an_apply_pass_until_something_changes(
    desk: Desk, idle_api: Any
) -> None:
    await begin(desk, idle_api)
    index = (await idle_api.call("POST", "plan", json={"files": [FILE]}))[1]["index"]
    files = [{**FILE, "path": None}]
    status, _ = await idle_api.call("POST", "manifests", json={"files": files, "index": index})
    assert (status, idle_api.manifests.applied[-1][1]) == (200, False)
    status, answer = await idle_api.call("POST", "manifests", json={"files": files, "index": "0123456789ab"})
    assert (status, answer["reason"]) == (409, "Conflict")
    assert "vcl plan --apply" in answer["details"]["cure"]
    assert len(idle_api.manifests.applied) == 2


async def test_capacity_for_a_manifest(desk: Desk, idle_api: Any) -> None:
    await begin(desk, idle_api)
    status, answer = await idle_api.call("POST", "capacity", json={"file": FILE})
    assert (status, answer["vm"], answer["memory"]) == (200, "web", 2**31)
    assert (answer["headroom"]["fit"], answer["headroom"]["withReserve"]) == (8, 4)


async def test_requests_that_make_no_sense(desk: Desk, idle_api: Any) -> None:
    await begin(desk, idle_api)
    for path, body, code in (
        ("plan", {"files": {}}, 400),
        ("plan", {"files": [{"name": "x"}]}, 400),
        ("plan", {"drain": [1]}, 400),
        ("plan", {"nodesDown": ["r9"]}, 404),
        ("capacity", {}, 400),
        ("capacity", {"vm": "nobody"}, 404),
        ("capacity", {"file": {"name": "x", "content": "a: b"}}, 422),
    ):
        status, answer = await idle_api.call("POST", path, json=body)
        assert (path, body, status) == (path, body, code)
        assert answer["message"]


async def test_a_plan_that_takes_too_long_is_given_up(desk: Desk, idle_api: Any) -> None:
    await begin(desk, idle_api, apply=0.05)
    idle_api.manifests.delay = 5.0
    status, answer = await idle_api.call("POST", "plan", json={"files": [FILE]})
    assert (status, answer["reason"]) == (504, "Timeout")


async def test_a_daemon_that_plans_nothing_says_so(api: Any) -> None:
    assert (await api.call("POST", "plan", json={}))[0] == 409
