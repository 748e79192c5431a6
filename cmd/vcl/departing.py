"""A node whose host goes down: its VMs leave by the policy, what cannot is shut down, followed to the end.

What is asked for is a declared state of the node: it counts until the host has booted again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from reconciler.resources.errors import VclError
from reconciler.resources.kinds import Kind, info_for
from vcl.client import Client, Unreachable
from vcl.describing import part
from vcl.draining import STUCK, drain_of
from vcl.progress import Progress
from vcl.session import complain

VM = info_for(Kind.VIRTUAL_MACHINE)
POLICIES = ("Migrate", "Stop", "Freeze")

LOOK = 0.3
NOBODY = 15.0
"""Seconds after which there is no master to move anything: other hosts go down as well."""
GRACE = 45.0
"""Seconds after the timeout within which guests that were ended are gone."""


def shut_down_node(client: Client, name: str, *, policy: str, timeout: float | None) -> int:
    """Ask for it, and follow it until the node has no VM. Returns the exit code."""
    asked = _ask(client, name, policy, timeout)
    chosen, seconds = str(asked.get("policy")), float(asked.get("timeoutSeconds") or 0)
    print(f"node/{name} going down, by {chosen}, within {seconds:g} s", flush=True)
    seen = _Seen(name)
    if chosen == "Migrate" and not _leave(client, name, str(asked.get("id")), seconds, seen):
        print(f"node/{name}: what has not left is shut down", flush=True)
        _ask(client, name, "Stop", seconds)
    until = time.monotonic() + seconds + GRACE
    while seen.look(client):
        if time.monotonic() >= until:
            return seen.unfinished()
        time.sleep(LOOK)
    seen.clear()
    print(f"node/{name} has no VM any more; 'vcl uncordon {name}' if its host stays on after all")
    return 0


def _ask(client: Client, name: str, policy: str, timeout: float | None) -> Mapping[str, Any]:
    body: dict[str, Any] = {"policy": policy} if policy else {}
    if timeout is not None:
        body["timeoutSeconds"] = int(timeout)
    return part(part(part(client.node_verb(name, "shutdown", body), "status"), "intent"), "shutdown")


def _leave(client: Client, name: str, id: str, seconds: float, seen: _Seen) -> bool:
    """Whether all VMs have left; False also when none of those that are left is on its way."""
    until = time.monotonic() + seconds
    stuck, begun = time.monotonic() + NOBODY, False
    while seen.look(client):
        drain = drain_of(client, name, id)
        going = any(each.get("going") for each in drain.get("waiting") or ())
        if going or (drain and not begun):
            stuck, begun = time.monotonic() + STUCK, True
        if time.monotonic() >= min(until, stuck):
            return False
        time.sleep(LOOK)
    return True


class _Seen:
    """The VMs that the node has, and what was shown of them."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._left: dict[str, str] = {}
        self._progress: Progress | None = None

    def look(self, client: Client) -> bool:
        """Whether VMs are left; a daemon that does not answer keeps what was seen last."""
        try:
            vms = client.objects(VM).get("items") or []
        except Unreachable:
            return True
        now = {}
        for vm in vms:
            status = part(vm, "status")
            if part(status, "claim").get("node") == self._node:
                now[str(part(vm, "metadata").get("name"))] = str(status.get("message") or "")
        if self._progress is None:
            self._progress = Progress(len(now))
        for vm in sorted(set(self._left) - set(now)):
            self._progress.end(f"{VM.singular}/{vm}")
            print(f"{VM.singular}/{vm} left {self._node}", flush=True)
        for vm, message in now.items():
            self._progress.say(f"{VM.singular}/{vm}", message or "waits for its turn")
        self._left = now
        return bool(now)

    def clear(self) -> None:
        if self._progress is not None:
            self._progress.clear()

    def unfinished(self) -> int:
        """Name what is left."""
        self.clear()
        for vm, message in sorted(self._left.items()):
            complain(f"{VM.singular}/{vm} is still on {self._node}{f': {message}' if message else ''}")
        complain(VclError(f"node {self._node} still has VMs", cure="look at 'vcl get vms -o wide'"))
        return 1
