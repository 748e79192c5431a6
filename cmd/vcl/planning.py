"""Asking the daemon what would happen, and how much room there is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vcl.applying import APPLY_SECONDS
from vcl.client import Client, Object
from vcl.inputs import Input


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is supposed: nodes that are down or drained, and whether what runs is moved."""

    down: Sequence[str] = ()
    drain: Sequence[str] = ()
    repair: bool = False
    balance: bool = False


def ask_plan(client: Client, inputs: Sequence[Input], question: Question) -> Object:
    """The plan, after applying the inputs."""
    body = {
        "files": [_file(item) for item in inputs],
        "nodesDown": sorted(set(question.down)),
        "drain": sorted(set(question.drain)),
        "repair": question.repair,
        "balance": question.balance,
    }
    found: Object = client.post("plan", body, at_least=APPLY_SECONDS)
    return found


def ask_capacity(client: Client, *, vm: str = "", file: Input | None = None) -> Object:
    """How many more VMs like this one fit."""
    body: dict[str, Any] = {"vm": vm} if file is None else {"file": _file(file)}
    found: Object = client.post("capacity", body, at_least=APPLY_SECONDS)
    return found


def _file(item: Input) -> dict[str, str]:
    return {"name": item.name, "content": item.text()}
