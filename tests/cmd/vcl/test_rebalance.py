"""`vcl cluster rebalance`, against a daemon with canned answers."""

from __future__ import annotations

from typing import Any

MOVES = [
    {"vm": "web", "source": "r1", "target": "r2", "turn": 1, "reason": "evens out the use of the nodes"},
    {"vm": "db", "source": "r1", "target": "r3", "turn": 2, "reason": "evens out the use of the nodes"},
]
DRAFT = {
    "index": "4f2a91c03b1e",
    "moves": MOVES,
    "kept": {"gpu": "it has a host device"},
    "uneven": [0.1102, 0.0004],
}
SHOWN = """\
TURN   VM    FROM   TO   REASON
1      web   r1     r2   evens out the use of the nodes
2      db    r1     r3   evens out the use of the nodes

2 moves. Unevenness (0 is even): 0.1102 before, 0.0004 after.
These are not moved, since they cannot be migrated live:
  gpu: it has a host device
"""


def record(*states: str, phase: str = "Running", message: str = "") -> dict[str, Any]:
    moves = [{**move, "state": state} for move, state in zip(MOVES, states, strict=True)]
    return {"id": "id1", "phase": phase, "message": message, "moves": moves, "by": "me"}


def test_a_dry_run_shows_what_would_be_moved_and_asks_for_nothing(vcl: Any, api: Any) -> None:
    api.rebalance_draft = DRAFT
    done = vcl("cluster", "rebalance", "--dry-run")
    assert (done.code, done.out) == (0, SHOWN)
    assert api.requests("POST") == [("rebalance", {}, {"scope": "Full", "dryRun": True})]
    assert '"index": "4f2a91c03b1e"' in vcl("cluster", "rebalance", "--dry-run", "-o", "json").out
    assert "add --dry-run" in vcl("cluster", "rebalance", "-o", "json").err


def test_a_run_is_followed_to_its_end(vcl: Any, api: Any) -> None:
    api.rebalance_draft = DRAFT
    api.rebalance = [
        record("Moving", "Waiting"),
        record("Done", "Waiting", message="it waits: node r3 is not ready"),
        record("Done", "Done", phase="Succeeded", message="2 moved"),
    ]
    done = vcl("cluster", "rebalance")
    assert done.code == 0
    assert done.out == (
        f"{SHOWN}cluster rebalancing\nvirtualmachine/web moved to r2\n"
        "virtualmachine/db moved to r3\ncluster rebalanced\n"
    )
    assert api.requests("POST")[-1] == ("rebalance", {}, {"scope": "Full", "index": "4f2a91c03b1e"})


def test_one_that_fails_says_why(vcl: Any, api: Any) -> None:
    api.rebalance_draft = DRAFT
    api.rebalance = [record("Done", "Waiting", phase="Failed", message="db does not run on r1 any more")]
    done = vcl("cluster", "rebalance", "--repair")
    assert done.code == 1
    assert "the rebalancing has ended (Failed): db does not run on r1 any more" in done.err
    assert api.requests("POST")[-1] == ("rebalance", {}, {"scope": "Repair", "index": "4f2a91c03b1e"})


def test_nothing_to_do_is_said_and_nothing_is_asked_for(vcl: Any, api: Any) -> None:
    done = vcl("cluster", "rebalance")
    assert (done.code, done.out) == (0, "Nothing is worth a move.\n")


def test_it_can_be_cancelled_and_is_seen_in_the_status(vcl: Any, api: Any) -> None:
    assert vcl("cluster", "rebalance", "--cancel").out.startswith("cluster rebalancing cancelled")
    assert api.requests("POST") == [("rebalance/cancel", {}, {})]
    api.status = {"node": "r1", "rebalance": record("Done", "Moving")}
    assert "1 of 2 moved; on their way: db to r3" in vcl("cluster", "status").out
    api.status = {"node": "r1", "rebalance": record("Done", "Done", phase="Succeeded")}
    assert "Rebalancing" not in vcl("cluster", "status").out
