"""What a node sees of the others is told once for each change."""

from __future__ import annotations

import logging

import pytest

from reconciler.loops.liveness import Liveness
from reconciler.planning.cluster_view import ClusterView, NodeLine, QuorumLine
from reconciler.resources import keys
from reconciler.resources.kinds import Kind
from reconciler.resources.status import NodeStatus
from reconciler.sim.clock import VirtualClock
from reconciler.sim.desk import Desk


class Cluster:
    """What is seen, as a test sets it; `looks` counts."""

    def __init__(self, **standings: str) -> None:
        self.standings = standings
        self.master = ""
        self.looks = 0

    def look(self) -> ClusterView:
        self.looks += 1
        nodes = tuple(
            NodeLine(name=name, rank=0, address="", standing=word, reason="why", master=name == self.master)
            for name, word in self.standings.items()
        )
        quorum = QuorumLine(nodes=len(nodes), needed=1, seen=(), reached=True)
        return ClusterView(node="r1", nodes=nodes, quorum=quorum, master=self.master)


def test_a_change_of_standing_is_logged_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    cluster = Cluster(r1="Ready", r2="Ready")
    clock = VirtualClock()
    liveness = Liveness(cluster.look, clock, 0.5)
    heard: list[frozenset[str]] = []
    liveness.subscribe(heard.append)
    assert liveness.step() == {"r1", "r2"}
    assert caplog.messages == []
    cluster.standings["r2"] = "Silent"
    assert liveness.step() == {"r2"}
    assert liveness.step() == frozenset()
    assert caplog.messages == ["node r2: Ready -> Silent: why"]
    line = liveness.line("r2")
    assert line is not None
    assert (line.standing, line.since) == ("Silent", clock.wall())
    assert heard == [{"r1", "r2"}, {"r2"}]


def test_a_new_master_and_a_lost_member_are_changes_too() -> None:
    cluster = Cluster(r1="Ready", r2="Ready")
    liveness = Liveness(cluster.look, VirtualClock(), 0.5)
    liveness.step()
    cluster.master = "r2"
    assert liveness.step() == {"r2"}
    del cluster.standings["r2"]
    assert liveness.step() == {"r2"}
    assert liveness.line("r2") is None


def test_those_who_ask_at_one_time_share_one_look() -> None:
    cluster = Cluster(r1="Ready")
    clock = VirtualClock()
    liveness = Liveness(cluster.look, clock, 0.5)
    assert liveness.line("r1") is liveness.view().nodes[0]
    assert liveness.line("r1") is liveness.line("r1")
    assert cluster.looks == 1
    clock.advance(1.0)
    liveness.view()
    assert cluster.looks == 2


async def test_a_node_in_the_status_tree_is_as_it_was_seen_at_the_change() -> None:
    desk = Desk()
    await desk.start()
    await desk.put({keys.node_status(Kind.NODE, "r2"): NodeStatus(uid="r2", ready=True)})
    await desk.vm("web")
    cluster = Cluster(r2="Silent")
    liveness = Liveness(cluster.look, VirtualClock(), 0.5)
    found = liveness.merged(desk.cache, Kind.NODE, "r2")
    assert found is not None
    assert found["status"]["ready"] is False
    assert found["status"]["liveness"]["standing"] == "Silent"
    assert "heartbeatAge" not in found["status"]["liveness"]
    assert liveness.merged(desk.cache, Kind.NODE, "r9") is None
    vm = liveness.merged(desk.cache, Kind.VIRTUAL_MACHINE, "web")
    assert vm is not None
    assert "liveness" not in vm["status"]
