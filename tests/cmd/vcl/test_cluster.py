"""vcl cluster status and placement: the text for people is made from values, and so tested on values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from vcl.cluster_placement import placement_text
from vcl.cluster_status import status_text
from vcl.refreshing import refresh

from reconciler.planning.cluster_view import ClusterView, Connection, NodeLine, QuorumLine
from reconciler.planning.node_capacity import Amount
from reconciler.planning.placement_view import Agreement, Held, NodeUse, PlacementView, VmLine
from reconciler.resources.codec import encode
from reconciler.resources.errors import StoreUnavailable

GOLDEN = Path(__file__).parent / "golden"
VMS = [{"status": {"phase": phase}} for phase in ("Running", "Running", "Stopped")]


def line(name: str, rank: int, standing: str = "Ready", **more: Any) -> NodeLine:
    address = f"10.0.0.{rank + 1}:7480"
    told = {"version": "0.2.0", "schemas": (1, 1), "load": 0.256, "disk_free": 80 * 2**30, **more}
    return NodeLine(name=name, rank=rank, address=address, standing=standing, **told)


def heard(name: str, rank: int, **more: Any) -> NodeLine:
    link = Connection(state="Connected", seconds=90.0)
    return line(name, rank, **{"link": link, "heartbeat_age": 0.3, "lease_age": 1.04, **more})


def status(cluster: ClusterView, **more: Any) -> dict[str, Any]:
    """A daemon's answer to /status."""
    return {
        "node": cluster.node,
        "session": 3,
        "frozen": "",
        "problems": [],
        "cluster": {"name": "home", **encode(cluster)},
        "store": {"type": "rados", "path": "vcl/vcl/state", "revision": 41, "healthy": True, "schema": 1},
        "agent": {"queued": 0},
        "manifests": {
            "directory": "/var/lib/vcl/manifests",
            "files": 3,
            "scanned": "2026-01-31T12:00:00Z",
            "invalid": [],
            "ignored": {},
            "unwritten": {},
        },
        "controllers": {"libvirt": "ok"},
        "pools": {},
        "heldDeletions": None,
        **more,
    }


ONE = ClusterView(
    node="r1",
    nodes=(line("r1", 0, master=True, here=True),),
    quorum=QuorumLine(nodes=1, needed=1, seen=("r1",), reached=True),
    master="r1",
    epoch=1,
    election="master with epoch 1",
)
THREE = ClusterView(
    node="r1",
    nodes=(
        line("r1", 0, here=True, reason="disk nearly full"),
        heard("r2", 1, master=True, version="0.3.0", schemas=(1, 2)),
        line(
            "r3",
            2,
            "Degraded",
            reason="its host refuses connections: it is up, and its daemon is not running",
            link=Connection(state="Refused", seconds=12.3, reason="nobody listens at 10.0.0.3"),
            heartbeat_age=14.2,
            lease_age=13.0,
        ),
    ),
    quorum=QuorumLine(nodes=3, needed=2, seen=("r1", "r2"), reached=True),
    master="r2",
    epoch=4,
    election="r2 is master",
)
ALONE_OF_TWO = ClusterView(
    node="r1",
    nodes=(
        line("r1", 0, here=True),
        line(
            "r2",
            1,
            "Unknown",
            version="",
            reason="never heard of since this daemon started",
            link=Connection(state="Unreachable", seconds=130.0, reason="no answer from 10.0.0.2"),
        ),
    ),
    quorum=QuorumLine(nodes=2, needed=2, seen=("r1",), reached=False),
    epoch=4,
    election="no majority: 1 of 2 nodes are seen, 2 are needed",
)
TROUBLE: dict[str, Any] = {
    "problems": ["the store does not answer", "controller libvirt: it hangs"],
    "store": {"type": "rados", "path": "vcl/vcl/state", "revision": 41, "healthy": False, "schema": 1},
    "agent": {"queued": 2},
    "manifests": {
        "directory": "/var/lib/vcl/manifests",
        "files": 3,
        "scanned": "2026-01-31T12:00:00Z",
        "problem": "the directory is read-only",
        "invalid": ["web.yaml"],
        "conflicts": ["db.conflict-r2.yaml"],
        "waiting": ["app.yaml"],
        "ignored": {"web.yaml~": "a backup"},
        "unwritten": {"new.yaml": "no room"},
    },
    "controllers": {"libvirt": "it hangs"},
    "pools": {"fast": "no such directory"},
    "heldDeletions": {
        "id": "3f9c",
        "reason": "12 of 14 manifests are gone",
        "objects": [{"kind": "VirtualMachine", "name": "web"}],
    },
}


@pytest.mark.parametrize(
    ("golden", "text"),
    [
        ("cluster-status-one.txt", status_text(status(ONE), VMS)),
        ("cluster-status-three.txt", status_text(status(THREE), VMS)),
        ("cluster-status-trouble.txt", status_text(status(ALONE_OF_TWO, **TROUBLE), [])),
    ],
)
def test_the_status_answers_what_people_ask(golden: str, text: str) -> None:
    assert text == (GOLDEN / golden).read_text()


def test_two_nodes_are_told_that_they_need_each_other() -> None:
    quorum = QuorumLine(nodes=2, needed=2, seen=("r1", "r2"), reached=True)
    nodes = (line("r1", 0, master=True, here=True), heard("r2", 1))
    view = ClusterView(node="r1", nodes=nodes, quorum=quorum, master="r1", epoch=1)
    assert "2 of 2 nodes seen, 2 needed; two nodes: no automatic failover" in status_text(status(view), VMS)


def test_a_frozen_node_says_so_instead_of_who_is_master() -> None:
    cluster = ClusterView(
        node="r1",
        nodes=(line("r1", 0, here=True),),
        quorum=QuorumLine(nodes=1, needed=1, seen=("r1",), reached=True),
        election="not decided yet",
    )
    text = status_text(status(cluster, frozen="the store is older than the one known"), VMS)
    assert "Master:            none: the store is older than the one known\n" in text


PLACEMENT = PlacementView(
    node="r1",
    vms=(
        VmLine(
            name="db",
            desired="r2",
            claimed=Held(node="r1", phase="Running"),
            reported=Held(node="r1", phase="Stopping"),
            local="Running",
            state=Agreement.MISMATCH,
            note="r1 still owns it; r2 starts it once it has been let go",
        ),
        VmLine(name="huge", state=Agreement.UNPLACED, note="r1: memory 1Gi short"),
        VmLine(
            name="web",
            desired="r1",
            claimed=Held(node="r1", phase="Running"),
            reported=Held(node="r1", phase="Running"),
            local="Running",
        ),
    ),
    nodes=(
        NodeUse(
            name="r1",
            standing="Ready",
            used=Amount(cpu=6.0, memory=3 * 2**30),
            usable=Amount(cpu=28.0, memory=14 * 2**30),
            total=Amount(cpu=8.0, memory=16 * 2**30),
            vms=2,
        ),
        NodeUse(name="r2", standing="Unknown", used=Amount(), note="never heard of"),
    ),
)


def test_the_placement_shows_first_what_does_not_agree() -> None:
    assert placement_text(encode(PLACEMENT)) == (GOLDEN / "cluster-placement.txt").read_text()


def test_a_placement_without_trouble_says_so_in_one_line() -> None:
    calm = {"node": "r1", "vms": [{"name": "web", "state": "OK"}] * 2, "nodes": []}
    assert placement_text(calm).startswith("2 virtual machines, all as wanted.\n")
    assert placement_text({"node": "r1"}).startswith("There are no virtual machines.\n")


def test_a_name_cannot_drive_the_terminal() -> None:
    nasty = {"node": "r1", "vms": [{"name": "web", "state": "OK", "note": "\x1b[2J\nboo"}], "nodes": []}
    assert "\x1b" not in placement_text(nasty)
    assert "\\x1b[2J\\nboo" in placement_text(nasty)


def test_the_verbs_ask_the_daemon(vcl: Any, api: Any) -> None:
    api.status = status(THREE)
    api.placement = encode(PLACEMENT)
    assert "Master:            r2, epoch 4\n" in vcl("cluster", "status").out
    assert json.loads(vcl("cluster", "status", "-o", "json").out)["cluster"]["master"] == "r2"
    assert "db     r2 " in vcl("cluster", "placement").out
    assert json.loads(vcl("cluster", "placement", "-o", "json").out)["vms"][0]["state"] == "Mismatch"
    assert "state: Mismatch" in vcl("cluster", "placement", "-o", "yaml").out
    refused = vcl("cluster", "status", "-w", "-o", "json")
    assert (refused.code, "leave out -o, or -w" in refused.err) == (1, True)
    assert "placement" in vcl("cluster").out


def test_a_watch_goes_on_past_what_cannot_be_had(capsys: pytest.CaptureFixture[str]) -> None:
    answers = iter(["one\n", StoreUnavailable("away"), "two\n"])

    def text() -> str:
        answer = next(answers, KeyboardInterrupt())
        if isinstance(answer, BaseException):
            raise answer
        return answer

    with pytest.raises(KeyboardInterrupt):
        refresh(text, every=0.0)
    assert capsys.readouterr().out == "one\n\nerror: away\n\ntwo\n"


def test_a_watch_ends_at_once_when_there_is_nothing_to_watch() -> None:
    def text() -> str:
        raise StoreUnavailable("away")

    with pytest.raises(StoreUnavailable):
        refresh(text, every=0.0)
