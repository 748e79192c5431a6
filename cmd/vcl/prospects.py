"""What `vcl plan`, `vcl simulate` and `vcl capacity` say, as text: what changes, what waits and why, how full
the nodes are."""

from __future__ import annotations

import shutil
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from reconciler.resources.quantity import human_bytes
from vcl.describing import part
from vcl.heatmap import heat_map
from vcl.table import clean, render

Object = Mapping[str, Any]

HEADERS = ("ACTION", "VM", "FROM", "TO")
TURN = "TURN"
MOST_REASONS = 12
"""Nodes that are named for one VM that waits; -o json has all."""
MOST_ROWS = 60
"""Changes and VMs that are listed."""


def width_of_terminal() -> int:
    """In characters; 100 where there is no terminal."""
    return shutil.get_terminal_size((100, 24)).columns


def plan_text(plan: Object, width: int | None = None) -> str:
    """What would happen, ended by the index of the plan."""
    width = width or width_of_terminal()
    changes, waiting = plan.get("changes") or [], plan.get("waiting") or []
    parts = [
        _headline(changes, waiting),
        changes_text(changes, width),
        waiting_text(waiting, width),
        heat_map(plan.get("nodes") or [], width),
        f"Index: {plan.get('index')}\n",
    ]
    return "\n".join(each for each in parts if each)


def _headline(changes: Sequence[Object], waiting: Sequence[Object]) -> str:
    lost = sum(1 for vm in waiting if vm.get("lost"))
    words = []
    if changes:
        counts = Counter(str(change.get("action")).lower() for change in changes)
        told = ", ".join(f"{number} to {word}" for word, number in counts.items())
        words.append(f"{_count(len(changes), 'change')}: {told}.")
    elif not lost:
        words.append("Nothing would change.")
    if lost:
        words.append(f"{_count(lost, 'VM')} would lose {'its place' if lost == 1 else 'their places'}.")
    if len(waiting) > lost:
        rest = len(waiting) - lost
        more = f"{rest} more" if lost else _count(rest, "VM")
        words.append(f"{more} {'finds' if rest == 1 else 'find'} no place.")
    return " ".join(words) + "\n"


def simulation_text(simulated: Object, vms: int, down: Sequence[str] = (), width: int | None = None) -> str:
    """Who found no place, what moved when nodes were lost, and how full the nodes are."""
    width = width or width_of_terminal()
    changes, waiting = simulated.get("changes") or [], simulated.get("waiting") or []
    nodes, losses = simulated.get("nodes") or [], simulated.get("losses")
    text = f"{_count(vms - len(waiting), 'VM')} of {vms} placed on {_count(len(nodes), 'node')}"
    text += f", {len(changes)} of them anew without {_names(down)}.\n" if down else ".\n"
    parts = [text, waiting_text(waiting, width)]
    parts += [changes_text(changes, width)] if down else []
    parts.append(heat_map(nodes, width))
    if losses is not None or len(nodes) <= 1:
        after = f" after that of {_names(down)}" if down else ""
        parts.append(losses_text(losses or [], width, after=after))
    return "\n".join(each for each in parts if each)


def changes_text(changes: Sequence[Object], width: int) -> str:
    """A table; the reasons stand below when they do not fit beside."""
    if not changes:
        return ""
    shown = changes[:MOST_ROWS]
    turns = any(c.get("turn") for c in shown)
    keys = ("action", "vm", "source", "target", *(("turn",) if turns else ()))
    headers = (*HEADERS, *((TURN,) if turns else ()))
    rows = [[clean(str(c.get(key) or "-")) for key in keys] for c in shown]
    reasons = [clean(str(c.get("reason") or "")) for c in shown]
    wide = render([[*headers, "REASON"], *([*row, why] for row, why in zip(rows, reasons, strict=True))])
    if max(map(len, wide.splitlines())) > width:
        lines = render([headers, *rows]).splitlines()
        below = [_wrapped(why, width, "    ") for why in reasons]
        wide = lines[0] + "\n" + "".join(f"{a}\n{b}" for a, b in zip(lines[1:], below, strict=True))
    return wide + _more(len(changes) - len(shown))


def waiting_text(waiting: Sequence[Object], width: int) -> str:
    """Each VM without a place, and each node with why not."""
    if not waiting:
        return ""
    found = "Without a place:\n"
    for vm in waiting[:MOST_ROWS]:
        node = vm.get("node")
        was = (f" (was on {node})" if vm.get("lost") else f" (stays on {node})") if node else ""
        found += f"  {clean(str(vm.get('vm')))}{clean(was)}\n"
        found += reasons_text(vm.get("nodes") or [], width, "    ")
    return found + _more(len(waiting) - MOST_ROWS)


def reasons_text(nodes: Sequence[Object], width: int, indent: str) -> str:
    """One line a node; nodes with one and the same reason share it."""
    by_reason: dict[str, list[str]] = {}
    for each in nodes:
        by_reason.setdefault(clean(str(each.get("reason") or "")), []).append(
            clean(str(each.get("node") or ""))
        )
    found, told = "", 0
    for reason, names in list(by_reason.items())[:MOST_REASONS]:
        who = _names(names)
        found += _wrapped(f"{who}: {reason}" if who else reason, width, indent)
        told += len(names)
    left = len(nodes) - told
    return found + (f"{indent}and {_count(left, 'node')} more; -o json names them\n" if left else "")


def _names(names: Sequence[str]) -> str:
    if len(names) > 4:
        return f"{', '.join(names[:3])} and {len(names) - 3} more nodes"
    return ", ".join(names)


def losses_text(losses: Sequence[Object], width: int, *, after: str = "") -> str:
    """Whether any one node may be lost, and what would be without a place otherwise."""
    bad = [lost for lost in losses if lost.get("vms") or lost.get("pinned")]
    if not bad:
        return f"N+1: any one node may be lost{after}, and every VM still finds a place.\n"
    lines = [f"N+1: not every VM survives the loss of one node{after}:\n"]
    for lost in bad[:MOST_REASONS]:
        lines += (_wrapped(words, width, "  ") for words in _lost_words(lost))
    return "".join(lines) + _more(len(bad) - MOST_REASONS)


def _lost_words(lost: Object) -> Iterator[str]:
    vms, pinned = lost.get("vms") or [], lost.get("pinned") or []
    if vms:
        yield f"without {lost.get('node')}: no place for {_names(vms)}"
    if pinned:
        yield f"without {lost.get('node')}: {_names(pinned)} can run on no other node at all"


def capacity_text(room: Object, width: int | None = None) -> str:
    """How many more fit, what ends it, and what the reserve is short of already."""
    width = width or width_of_terminal()
    found = part(room, "headroom")
    like = f"VMs like {room.get('vm')} ({room.get('cpu')} vCPU, {human_bytes(room.get('memory') or 0)})"
    plus = " or more" if found.get("more") else ""
    text = f"{found.get('withReserve') or 'No'}{plus} more {like} fit, and any one node may still be lost.\n"
    short, then = found.get("short") or [], part(found, "then")
    if not found.get("fit"):
        return f"No more {like} fit.\n" + reasons_text(found.get("next") or [], width, "  ")
    if short:
        text = f"No more {like} fit with a node in reserve: today's VMs would not survive the loss of one.\n"
        text += "".join(_wrapped(words, width, "  ") for lost in short for words in _lost_words(lost))
    elif then:
        gone = [name.partition("~")[0] for name in then.get("vms") or []]
        one = f"one more, and without {then.get('node')} there is no place for {_names(sorted(set(gone)))}"
        text += _wrapped(one, width, "  ")
    text += f"{found.get('fit', 0)}{plus} fit when nothing is kept in reserve.\n"
    if found.get("next"):
        text += "  one more finds no place:\n" + reasons_text(found["next"], width, "    ")
    for lost in found.get("pinned") or []:
        text += _wrapped("not counted: " + next(_lost_words(lost)), width, "")
    return text


def _wrapped(text: str, width: int, indent: str) -> str:
    lines = textwrap.wrap(
        clean(text),
        max(40, width),
        initial_indent=indent,
        subsequent_indent=f"{indent}  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "".join(f"{line}\n" for line in lines)


def _more(left: int) -> str:
    return f"  and {left} more; -o json has all\n" if left > 0 else ""


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
