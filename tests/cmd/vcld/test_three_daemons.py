"""Three real daemons on one machine form a cluster: one store, a mesh between them, the dummy controller.

They are asked as a person asks them, with `vcl` on any of the three.
"""

from __future__ import annotations

import signal
import sys
from typing import Any

import pytest

pytestmark = pytest.mark.slow
cluster = sys.modules["vcl_lab_cluster"]


def cluster_of(node: Any) -> dict[str, Any]:
    return (cluster.ask(node.socket, cluster.STATUS) or {}).get("cluster") or {}


def standings(node: Any) -> dict[str, str]:
    return {line["name"]: line["standing"] for line in cluster_of(node).get("nodes") or ()}


def agree(nodes: tuple[Any, ...], master: str) -> bool:
    return all(cluster_of(node).get("master") == master for node in nodes)


def formed(three: tuple[Any, ...]) -> None:
    for node in three:
        node.start(wait=False)
    for node in three:
        node.until(lambda node=node: set(standings(node).values()) == {"Ready"} and len(standings(node)) == 3)
    three[0].until(lambda: agree(three, "r1"), 40)


def placed(node: Any) -> dict[str, dict[str, Any]]:
    return {line["name"]: line for line in (node.told("cluster", "placement") or {}).get("vms") or ()}


def rows(node: Any, *arguments: str) -> list[list[str]]:
    return [line.split() for line in node.vcl(*arguments, "--no-headers").stdout.splitlines()]


def test_a_manifest_saved_on_one_runs_on_one_and_is_seen_by_all(three: tuple[Any, ...]) -> None:
    formed(three)
    _, second, third = three
    for node in three:
        assert [row[:4] for row in rows(node, "get", "nodes")] == [
            ["r1", "Ready", "master", "0"],
            ["r2", "Ready", "<none>", "1"],
            ["r3", "Ready", "<none>", "2"],
        ]
    saved = second.save("web").read_bytes()
    for node in three:
        node.until(lambda node=node: node.phase("web") == "Running")
        node.until(lambda node=node: (node.manifests / "web.yaml").exists())
        assert (node.manifests / "web.yaml").read_bytes() == saved
    having = [node.name for node in three if node.guests()]
    assert [node.vm("web")["status"]["node"] for node in three] == having * 3
    for node in three:
        node.until(lambda node=node: placed(node)["web"]["state"] == "OK")
        line = placed(node)["web"]
        assert [line["desired"], line["claimed"]["node"], line["reported"]["node"]] == having * 3
        assert line.get("local") == ("Running" if node.name in having else None)
        used = {use["name"]: use["vms"] for use in node.told("cluster", "placement")["nodes"]}
        assert used == {name: int(name in having) for name in ("r1", "r2", "r3")}
    text = third.vcl("cluster", "status").stdout
    assert "Master:            r1, epoch" in text
    assert "Quorum:            3 of 3 nodes seen, 2 needed" in text
    assert "Link:                   Connected" in third.vcl("describe", "node", "r1").stdout


def test_when_the_master_dies_the_next_in_rank_takes_over_and_work_goes_on(three: tuple[Any, ...]) -> None:
    formed(three)
    first, *rest = three
    others = tuple(rest)
    first.end(signal.SIGKILL)
    others[0].until(lambda: agree(others, "r2"))
    for node in others:
        node.until(lambda node=node: standings(node)["r1"] == "Degraded")
        assert rows(node, "get", "nodes")[0][:3] == ["r1", "Degraded", "<none>"]
        ready = node.told("get", "node", "r1")["status"]["conditions"][0]
        assert (ready["status"], ready["reason"]) == ("False", "Degraded")
    tree = others[1].root / "state" / "status"
    others[1].until(lambda: "standing: Degraded" in next(tree.rglob("*r1.yaml")).read_text())
    others[1].save("late")
    for node in others:
        node.until(lambda node=node: node.phase("late") == "Running")
    assert others[0].vm("late")["status"]["node"] in ("r2", "r3")
    first.start()
    first.until(lambda: agree(three, "r1"), 60)
    first.until(lambda: first.phase("late") == "Running")


def test_without_a_majority_nobody_is_master_and_everyone_is_told_why(three: tuple[Any, ...]) -> None:
    formed(three)
    first, second, third = three
    third.save("web")
    first.until(lambda: first.phase("web") == "Running")
    second.end(signal.SIGKILL)
    third.end(signal.SIGTERM)
    first.until(lambda: cluster_of(first).get("master") == "")
    first.until(lambda: standings(first) == {"r1": "Ready", "r2": "Degraded", "r3": "Stopped"})
    text = first.vcl("cluster", "status").stdout
    assert "Master:            none: no majority: 1 of 3 nodes are seen, 2 are needed" in text
    assert "Quorum:            not reached" in text
    assert first.phase("web") == "Running"
    assert [row[:2] for row in rows(first, "get", "nodes")][2] == ["r3", "Stopped"]


def test_a_node_that_was_stopped_for_good_is_taken_out_of_the_cluster(three: tuple[Any, ...]) -> None:
    formed(three)
    first, _, third = three
    refused = first.vcl("delete", "node", "r2")
    assert refused.returncode == 1
    assert "stop vcld on r2 for good" in refused.stderr
    third.end(signal.SIGTERM)
    first.until(lambda: standings(first)["r3"] == "Stopped")
    deleted = first.vcl("delete", "node", "r3", "--timeout", "30s")
    assert (deleted.returncode, deleted.stdout) == (0, 'node "r3" deleted\n'), deleted.stderr
    assert [row[0] for row in rows(first, "get", "nodes")] == ["r1", "r2"]
    assert cluster_of(first)["quorum"]["nodes"] == 2
    third.start(wait=False)
    first.until(lambda: len(standings(first)) == 3)
