"""POST virtualmachines/NAME/migrate: the request goes to the store, a refusal comes back with its reason."""

from __future__ import annotations

from typing import Any

from reconciler.loops.migration_requests import MigrationRequests
from reconciler.resources import keys
from reconciler.resources.kinds import Kind
from reconciler.resources.migrations import CancelRecord, MigrationRecord
from reconciler.resources.records import load
from reconciler.resources.status import NodeStatus
from reconciler.sim.clock import SeededIds
from reconciler.sim.desk import Desk


async def ready(desk: Desk, api: Any, *, migrates: bool = True) -> None:
    """web runs on r1, and there is r2."""
    able = ("dummy", "libvirt") if migrates else ()
    for name in ("r1", "r2"):
        status = NodeStatus(
            uid=name,
            ready=True,
            cpu=8,
            memory=2**34,
            controllers={"dummy": "Ready", "libvirt": "Ready"},
            migrates=able,
        )
        await desk.put({keys.node_status(Kind.NODE, name): status})
    await desk.vm("web")
    await desk.run("web")
    api.migrations = MigrationRequests(desk.views, desk.writer, desk.clock, SeededIds(), lambda node: "")
    await api.start()


async def test_a_request_and_its_cancelling_go_to_the_store(desk: Desk, idle_api: Any) -> None:
    await ready(desk, idle_api)
    status, answer = await idle_api.call("POST", "virtualmachines/web/migrate", json={"to": "r2"})
    assert status == 200, answer
    assert (answer["kind"], answer["status"]["phase"], answer["spec"]["to"]) == ("Migration", "Pending", "r2")
    name = answer["metadata"]["name"]
    found = (await desk.cache.read([keys.migration(name)]))[keys.migration(name)]
    assert load(MigrationRecord, found.value).vm == "web"
    again = await idle_api.call("POST", "virtualmachines/web/migrate", json={})
    assert again[0] == 409
    assert "is being migrated to r2 already" in again[1]["message"]
    assert (await idle_api.call("POST", "virtualmachines/web/migrate-cancel", json={}))[0] == 200
    asked = (await desk.cache.read([keys.cancel(name)]))[keys.cancel(name)]
    assert "vcl migrate --cancel" in load(CancelRecord, asked.value).reason
    listed = (await idle_api.get("migrations"))[1]
    assert [item["metadata"]["name"] for item in listed["items"]] == [name]


async def test_what_cannot_be_says_why(desk: Desk, idle_api: Any) -> None:
    await ready(desk, idle_api, migrates=False)
    for body, vm, code, words in (
        ({}, "web", 409, "on node r1 cannot migrate"),
        ({}, "db", 404, "virtualmachine 'db' not found"),
        ({"to": 3}, "web", 400, "to: must be a text"),
        ({"now": True}, "web", 400, "unknown field"),
    ):
        status, answer = await idle_api.call("POST", f"virtualmachines/{vm}/migrate", json=body)
        assert (status, words in answer["message"]) == (code, True), answer
    status, answer = await idle_api.call("POST", "virtualmachines/web/migrate-cancel", json={})
    assert (status, "no migration of virtualmachine 'web'" in answer["message"]) == (409, True)


async def test_a_daemon_that_places_nothing_migrates_nothing(api: Any) -> None:
    status, answer = await api.call("POST", "virtualmachines/web/migrate", json={})
    assert (status, answer["message"]) == (409, "this daemon migrates nothing")
