"""Emptying a node: first what cannot leave and why, then each VM as it goes.

What is asked for is a declared state: it goes on when this program ends, and with the next master.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from reconciler.resources.errors import VclError
from reconciler.resources.kinds import Kind, info_for
from vcl.client import Client, Unreachable
from vcl.describing import part
from vcl.durations import parse_duration
from vcl.progress import Progress
from vcl.session import complain
from vcl.waiting import FIRST_PAUSE, LONGEST_PAUSE, deadline

NODE, VM = info_for(Kind.NODE), info_for(Kind.VIRTUAL_MACHINE)
BY_MANIFEST = "manifest"
"""The id of a drain that the manifest's `maintenance` asks for."""

STUCK = 3.0
"""Seconds after which VMs of which none is on its way are told to stay."""

WAYS = {"Migrate": "migrates to", "Restart": "is shut down, and started on"}


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """`timeout`: as written, 0 for no limit."""

    dry_run: bool = False
    wait: bool = True
    timeout: str = "0"


def empty(client: Client, name: str, verb: str, how: How) -> int:
    """Ask for the drain (by `verb`), and follow it to its end. Returns the exit code."""
    until = deadline(parse_duration(how.timeout) or -1)
    print(plan_text(name, client.get(f"nodes/{quote(name, safe='')}/drain")), end="", flush=True)
    if how.dry_run:
        return 0
    asked = client.node_verb(name, verb, {})
    print(f"node/{name} draining", flush=True)
    if not how.wait:
        return 0
    id = str(part(part(asked, "status"), "intent").get("drain") or BY_MANIFEST)
    return _follow(client, name, id, until)


def plan_text(name: str, plan: Mapping[str, Any]) -> str:
    """Who has to stay, then who goes where."""
    stays, moves = plan.get("stays") or [], plan.get("moves") or []
    if not stays and not moves:
        return f"No VM is on {name}.\n"
    text = f"These cannot leave {name}:\n" if stays else ""
    text += "".join(f"  {each.get('vm')}: {each.get('reason')}\n" for each in stays)
    text += f"These leave {name}:\n" if moves else ""
    for move in moves:
        way = WAYS.get(str(move.get("way")), "goes to")
        text += f"  {move.get('vm')}: {way} {move.get('target')}\n"
    return text


def _follow(client: Client, name: str, id: str, until: float) -> int:
    pause, left, stuck = FIRST_PAUSE, dict[str, str](), time.monotonic() + STUCK
    progress: Progress | None = None
    while True:
        drain = drain_of(client, name, id)
        waiting = {str(each.get("vm")): each for each in drain.get("waiting") or ()}
        if progress is None and drain:
            progress = Progress(len(waiting))
        for vm in [vm for vm in left if progress is not None and drain and vm not in waiting]:
            _left(vm, name, progress)
            del left[vm]
        for vm, each in waiting.items():
            left[vm] = str(each.get("reason") or "")
            if progress is not None:
                progress.say(f"{VM.singular}/{vm}", left[vm])
        if any(each.get("going") for each in waiting.values()) or not drain:
            stuck = time.monotonic() + STUCK
        if drain.get("phase") in ("Drained", "Cancelled"):
            return _ended(name, drain, progress)
        if time.monotonic() >= min(until, stuck):
            return _unfinished(name, left, progress, timed_out=time.monotonic() >= until)
        time.sleep(min(pause, max(0.0, until - time.monotonic())))
        pause = min(pause * 1.5, LONGEST_PAUSE)


def drain_of(client: Client, name: str, id: str) -> Mapping[str, Any]:
    """How this drain stands; empty before the master has begun it, and while the daemon does not answer."""
    try:
        drain = part(part(client.object(NODE, name), "status"), "drain")
    except Unreachable:
        return {}
    return drain if drain.get("id") == id else {}


def _left(vm: str, name: str, progress: Progress | None) -> None:
    if progress is not None:
        progress.end(f"{VM.singular}/{vm}")
    print(f"{VM.singular}/{vm} left {name}", flush=True)


def _ended(name: str, drain: Mapping[str, Any], progress: Progress | None) -> int:
    if progress is not None:
        progress.clear()
    if drain.get("phase") == "Drained":
        print(f"node/{name} drained")
        return 0
    complain(f"the drain of {name} was cancelled: somebody has uncordoned it")
    return 1


def _unfinished(name: str, left: Mapping[str, str], progress: Progress | None, *, timed_out: bool) -> int:
    if progress is not None:
        progress.clear()
    for vm, reason in sorted(left.items()):
        complain(f"{VM.singular}/{vm} is still on {name}: {reason}")
    what = f"timed out draining {name}" if timed_out else f"{name} is not empty: {_count(left)} cannot leave"
    cure = (
        f"it goes on as soon as they can; 'vcl uncordon {name}' or 'vcl node maintenance {name} off' ends it"
    )
    complain(VclError(what, cure=cure))
    return 1


def _count(left: Mapping[str, str] | Sequence[str]) -> str:
    return "1 VM" if len(left) == 1 else f"{len(left)} VMs"
