"""The power over the API: what is asked is passed on as asked, and a frozen node takes a shutdown too."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.adapters.http_api import serve
from reconciler.adapters.http_api.waiting import waiting_app
from reconciler.loops.power_requests import ShutdownRequest
from reconciler.resources.errors import ConflictError
from reconciler.resources.shutdowns import PowerStart, ShutdownOrder


class Desk:
    """A PowerDesk that remembers."""

    def __init__(self) -> None:
        self.asked: list[ShutdownRequest] = []
        self.started: list[int] = []

    async def shut_down(self, request: ShutdownRequest) -> ShutdownOrder:
        self.asked.append(request)
        return ShutdownOrder(id="id1", deadline=request.deadline)

    async def start(self, parallel: int = 10) -> PowerStart:
        if not self.asked:
            raise ConflictError("the cluster is not shut down, so there is nothing to start")
        self.started.append(parallel)
        return PowerStart(id="id2", parallel=parallel)

    def view(self) -> dict[str, Any]:
        return {"node": "r1", "power": "Off" if self.asked else "On"}


@pytest.fixture
async def power(idle_api: Any) -> Desk:
    idle_api.power = Desk()
    await idle_api.start()
    return idle_api.power


async def test_a_shutdown_is_passed_on_as_it_was_asked_for(idle_api: Any, power: Desk) -> None:
    assert (await idle_api.get("power"))[1] == {"node": "r1", "power": "On"}
    body = {"deadline": 60, "reason": "battery", "powerOffHosts": True, "cephFlags": True}
    status, answer = await idle_api.call("POST", "power/shutdown", json=body)
    assert (status, answer["id"], answer["deadline"]) == (200, "id1", 60.0)
    assert (await idle_api.call("POST", "power/shutdown", json={}))[0] == 200
    full = ShutdownRequest(deadline=60.0, reason="battery", power_off=True, ceph_flags=True)
    assert power.asked == [full, ShutdownRequest()]
    assert (await idle_api.get("power"))[1]["power"] == "Off"


@pytest.mark.parametrize("body", [{"deadline": "soon"}, {"deadline": True}, {"now": 1}, {"reason": 3}])
async def test_what_is_not_understood_shuts_nothing_down(idle_api: Any, power: Desk, body: Any) -> None:
    assert (await idle_api.call("POST", "power/shutdown", json=body))[0] == 400
    assert power.asked == []


async def test_a_start_is_refused_with_its_reason(idle_api: Any, power: Desk) -> None:
    status, answer = await idle_api.call("POST", "power/start", json={})
    assert (status, "is not shut down" in answer["message"]) == (409, True)
    assert (await idle_api.call("POST", "power/start", json={"parallel": "all"}))[0] == 400
    await idle_api.call("POST", "power/shutdown", json={})
    assert (await idle_api.call("POST", "power/start", json={"parallel": 2}))[1]["parallel"] == 2
    assert power.started == [2]


async def test_a_frozen_node_is_shut_down_and_starts_nothing(idle_api: Any, power: Desk) -> None:
    idle_api.read_only = "the store is older than what this node has seen"
    assert (await idle_api.call("POST", "power/shutdown", json={}))[0] == 200
    assert (await idle_api.call("POST", "power/start", json={}))[0] == 503
    assert power.started == []


async def test_a_daemon_that_waits_for_its_store_is_shut_down_too(idle_api: Any, power: Desk) -> None:
    await idle_api.stop_serving()
    waiting = Desk()
    runner = await serve(waiting_app(lambda: "no monitor answers", waiting), idle_api.path)
    try:
        assert (await idle_api.get("status"))[0] == 503
        assert (await idle_api.call("POST", "power/shutdown", json={"deadline": 5}))[0] == 200
        assert (await idle_api.get("power"))[1]["power"] == "Off"
    finally:
        await runner.cleanup()
    assert waiting.asked == [ShutdownRequest(deadline=5.0)]
