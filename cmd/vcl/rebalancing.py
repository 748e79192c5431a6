"""Moving VMs to where they are better off: what would be moved and why, and a run followed to its end."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from reconciler.resources.errors import VclError
from reconciler.resources.kinds import Kind, info_for
from vcl.client import Client, Unreachable
from vcl.progress import Progress, clear
from vcl.session import complain
from vcl.table import clean, render

VM = info_for(Kind.VIRTUAL_MACHINE)
Object = Mapping[str, Any]

LOOK = 0.3
HEADERS = ("TURN", "VM", "FROM", "TO", "REASON")


def draft_text(found: Object) -> str:
    """The moves, who cannot be moved, and how much more even it gets."""
    moves: Sequence[Object] = found.get("moves") or []
    kept: Mapping[str, Any] = found.get("kept") or {}
    if not moves:
        text = "Nothing is worth a move.\n"
    else:
        rows = [HEADERS, *(_row(move) for move in moves)]
        text = render(rows)
        before, after = found.get("uneven") or (0.0, 0.0)
        text += f"\n{_many(moves)}. Unevenness (0 is even): {before:.4f} before, {after:.4f} after.\n"
    if kept:
        text += "These are not moved, since they cannot be migrated live:\n"
        text += "".join(f"  {vm}: {clean(str(why))}\n" for vm, why in sorted(kept.items()))
    return text


def follow(client: Client, id: str, until: float) -> int:
    """Show each VM that has arrived, until the run has ended. Returns the exit code."""
    done: set[str] = set()
    progress: Progress | None = None
    while True:
        record = _record(client)
        if record is not None and record.get("id") != id:
            clear(progress)
            complain("another rebalancing was asked for meanwhile")
            return 1
        if record is not None:
            moves: Sequence[Object] = record.get("moves") or []
            progress = progress or Progress(len(moves))
            for move in moves:
                name, label = str(move.get("vm")), f"{move.get('turn')}/{VM.singular}/{move.get('vm')}"
                if move.get("state") == "Done" and label not in done:
                    done.add(label)
                    progress.end(f"{VM.singular}/{name}")
                    print(f"{VM.singular}/{name} moved to {move.get('target')}", flush=True)
                elif move.get("state") == "Moving":
                    progress.say(f"{VM.singular}/{name}", f"on its way to {move.get('target')}")
            if record.get("message"):
                progress.say("rebalancing", str(record["message"]))
            if record.get("phase") != "Running":
                return _ended(record, progress)
        if time.monotonic() >= until:
            clear(progress)
            complain(VclError("timed out; it goes on", cure="'vcl cluster rebalance --cancel' ends it"))
            return 1
        time.sleep(LOOK)


def rebalance_line(record: Object) -> str:
    """The line of `vcl cluster status`; empty while nothing goes on."""
    if record.get("phase") != "Running":
        return ""
    moves: Sequence[Object] = record.get("moves") or []
    done = sum(move.get("state") == "Done" for move in moves)
    going = [f"{m.get('vm')} to {m.get('target')}" for m in moves if m.get("state") == "Moving"]
    words = f"{done} of {len(moves)} moved"
    words += f"; on their way: {', '.join(going)}" if going else ""
    return f"{words}; {record['message']}" if record.get("message") else words


def _record(client: Client) -> Object | None:
    try:
        found: Object = client.get("rebalance")
    except Unreachable:
        return None
    return found


def _ended(record: Object, progress: Progress) -> int:
    progress.clear()
    if record.get("phase") == "Succeeded":
        print("cluster rebalanced")
        return 0
    complain(f"the rebalancing has ended ({record.get('phase')}): {record.get('message')}")
    return 1


def _row(move: Object) -> tuple[str, ...]:
    return tuple(clean(str(move.get(key) or "-")) for key in ("turn", "vm", "source", "target", "reason"))


def _many(moves: Sequence[Object]) -> str:
    return "1 move" if len(moves) == 1 else f"{len(moves)} moves"
