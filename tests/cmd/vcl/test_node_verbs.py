"""Verbs for nodes, against a daemon with canned answers."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.mark.parametrize(("verb", "body"), [("cordon", {}), ("uncordon", {"bringBack": False})])
def test_each_node_is_asked_and_a_missing_one_named(vcl: Any, api: Any, verb: str, body: Any) -> None:
    done = vcl(verb, "r9", "node/r1")
    assert (done.code, done.out) == (1, f"node/r1 {verb}ed\n")
    assert done.err.startswith("error: node 'r9' not found")
    assert api.requests("POST")[-1] == (f"nodes/r1/{verb}", {}, body)


def test_an_uncordon_may_ask_for_the_vms_back(vcl: Any, api: Any) -> None:
    assert vcl("uncordon", "r1", "--return").code == 0
    assert api.requests("POST")[-1][2] == {"bringBack": True}


def test_a_node_has_to_be_named(vcl: Any) -> None:
    assert vcl("cordon").err == "error: say which node to cordon; write 'vcl cordon NODE'\n"
