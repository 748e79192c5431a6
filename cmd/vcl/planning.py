"""Asking the daemon what would happen, and how much room there is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vcl.applying import APPLY_SECONDS
from vcl.client import Client, Object
from vcl.inputs import Input


def ask_plan(client: Client, inputs: Sequence[Input], down: Sequence[str], drain: Sequence[str]) -> Object:
    """The plan, after applying the inputs and with these nodes down or drained."""
    body = {
        "files": [_file(item) for item in inputs],
        "nodesDown": sorted(set(down)),
        "drain": sorted(set(drain)),
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
