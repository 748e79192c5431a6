"""Rebalancing over the API: a draft writes nothing, a run is recorded once, and cancelled."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from reconciler.planning.rebalancing import Draft
from reconciler.resources.errors import ConflictError
from reconciler.resources.rebalancing import RebalanceMove, RebalancePhase, RebalanceRecord, RebalanceScope

MOVE = RebalanceMove(vm="web", uid="u", source="r1", target="r2", turn=1, reason="evens out")


class Requests:
    """In place of RebalanceRequests."""

    def __init__(self) -> None:
        self.now: RebalanceRecord | None = None

    def record(self) -> RebalanceRecord | None:
        return self.now

    async def draft(self, scope: RebalanceScope) -> Draft:
        moves = (MOVE,) if scope is RebalanceScope.FULL else ()
        return Draft(moves=moves, kept={"gpu": "it has a host device"}, uneven=(0.5, 0.1))

    async def begin(self, scope: RebalanceScope, index: str = "") -> RebalanceRecord:
        if self.now is not None:
            raise ConflictError("a rebalancing goes on")
        self.now = RebalanceRecord(id="a", scope=scope, moves=(MOVE,))
        return self.now

    async def cancel(self) -> RebalanceRecord:
        assert self.now is not None
        self.now = replace(self.now, phase=RebalancePhase.CANCELLED)
        return self.now


@pytest.fixture
async def run(idle_api: Any) -> Requests:
    idle_api.rebalancing = Requests()
    await idle_api.start()
    return idle_api.rebalancing


async def test_a_run_from_draft_to_end(idle_api: Any, run: Requests) -> None:
    assert await idle_api.get("rebalance") == (200, {})
    _, shown = await idle_api.call("POST", "rebalance", json={"dryRun": True})
    assert (shown["moves"][0]["vm"], shown["kept"], shown["uneven"]) == (
        "web",
        {"gpu": "it has a host device"},
        [0.5, 0.1],
    )
    assert run.now is None
    none = await idle_api.call("POST", "rebalance", json={"dryRun": True, "scope": "Repair"})
    assert none[1]["moves"] == []
    assert (await idle_api.call("POST", "rebalance", json={}))[1]["phase"] == "Running"
    assert (await idle_api.call("POST", "rebalance", json={}))[0] == 409
    assert (await idle_api.call("POST", "rebalance/cancel", json={}))[1]["phase"] == "Cancelled"
    assert (await idle_api.get("rebalance"))[1]["phase"] == "Cancelled"


async def test_a_scope_that_there_is_not_moves_nothing(idle_api: Any, run: Requests) -> None:
    status, answer = await idle_api.call("POST", "rebalance", json={"scope": "All"})
    assert (status, "Repair, Partial, Full" in str(answer)) == (400, True)
    assert run.now is None


async def test_a_daemon_that_places_nothing_moves_nothing(api: Any) -> None:
    assert (await api.call("POST", "rebalance", json={}))[0] == 409
