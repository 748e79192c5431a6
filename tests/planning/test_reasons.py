"""One line of reasons becomes one reason for each node."""

from __future__ import annotations

from reconciler.planning.reasons import Rejection, by_node


def test_each_node_gets_its_own_words() -> None:
    assert by_node("r1: memory 3Gi short; r2.lan: in maintenance") == (
        Rejection(node="r1", reason="memory 3Gi short"),
        Rejection(node="r2.lan", reason="in maintenance"),
    )


def test_words_may_hold_what_separates_nodes() -> None:
    text = "r1: it failed 3 times; Refused: no such file; r2: cordoned"
    assert [(r.node, r.reason) for r in by_node(text, {"r1", "r2"})] == [
        ("r1", "it failed 3 times; Refused: no such file"),
        ("r2", "cordoned"),
    ]


def test_nodes_that_refuse_alike_are_told_as_one() -> None:
    assert by_node("r1 and 9 more: in maintenance; r5: cordoned") == (
        Rejection(node="r1 and 9 more", reason="in maintenance"),
        Rejection(node="r5", reason="cordoned"),
    )


def test_what_concerns_no_node_has_none() -> None:
    assert by_node("no node has reported yet") == (Rejection(node="", reason="no node has reported yet"),)
    assert by_node("") == ()
