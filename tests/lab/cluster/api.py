"""A question to a vcld, without the price of a `vcl`: a test that waits asks ten times a second."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any

OBJECTS = "/apis/vcl/v1"
STATUS = f"{OBJECTS}/status"
PATIENCE = 10.0


def ask(at: Path | str, path: str) -> Any:
    """What the API behind that socket says (docs/api.md), in milliseconds; None when it does not answer."""
    call = http.client.HTTPConnection("vcld", timeout=PATIENCE)
    call.sock = socket.socket(socket.AF_UNIX)
    try:
        call.sock.settimeout(PATIENCE)
        call.sock.connect(str(at))
        call.request("GET", path)
        return json.loads(call.getresponse().read())
    except (OSError, http.client.HTTPException):
        return None
    finally:
        call.close()


def ask_for(at: Path | str, kind: str, name: str) -> dict[str, Any]:
    """The merged object, as `vcl get KIND NAME -o json` has it; empty when there is none."""
    found: dict[str, Any] = ask(at, f"{OBJECTS}/{kind}/{name}") or {}
    return found if found.get("kind") != "Status" else {}
