"""How full nodes are, in plain ASCII: a bar for each of few nodes, a character for each of many.

In a bar `#` is used and stays so, `+` comes, `-` goes; in the map of many a character is a node.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reconciler.resources.quantity import human_bytes
from vcl.describing import part
from vcl.table import GAP, clean, render

Object = Mapping[str, Any]

FEW = 40
"""Of more nodes than this there is no bar for each."""
LEVELS = ".:-=+*%@"
"""From nearly empty to nearly full."""
EMPTY, FULL, CLOSED = "_", "#", "x"
BAR = (4, 24)
"""Characters of a bar: at least, at most."""
FRAME = len(GAP) + len("[]")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Use:
    """Of one resource: before, after, and what there is."""

    before: float
    after: float
    usable: float

    def share(self) -> float:
        return self.after / self.usable if self.usable > 0 else 1.0


def heat_map(nodes: Sequence[Object], width: int | None = None) -> str:
    """The text; `width` in characters, default: the terminal's."""
    if not nodes:
        return "There are no nodes.\n"
    width = width or shutil.get_terminal_size((100, 24)).columns
    return _bars(nodes, width) if len(nodes) <= FEW else "".join(_grid(nodes, width))


def _use(node: Object, what: str) -> _Use:
    before, after = (part(part(node, key), "used").get(what, 0) for key in ("before", "after"))
    return _Use(before=before, after=after, usable=part(node, "usable").get(what, 0))


def _bars(nodes: Sequence[Object], width: int) -> str:
    """Why nodes take no VMs stands below when there is no room for it beside the bars."""
    rows, notes = _rows(nodes, 0), [clean(str(node.get("note") or "")) for node in nodes]
    room = width - max(len(line) for line in render(rows).splitlines())
    longest = max(map(len, notes))
    beside = bool(longest) and room - longest - len(GAP) >= 2 * (BAR[0] + FRAME)
    bar = (room - (longest + len(GAP) if beside else 0)) // 2 - FRAME
    rows = _rows(nodes, min(BAR[1], bar) if bar >= BAR[0] else 0)
    if beside:
        return render([[*row, note] for row, note in zip(rows, ("NOTE", *notes), strict=True)])
    below = (f"{row[0]}: {note}\n" for row, note in zip(rows[1:], notes, strict=True) if note)
    return render(rows) + "".join(below)


def _rows(nodes: Sequence[Object], bar: int) -> list[list[str]]:
    rows = [["NODE", "VCPU", "", "MEMORY", "", "VMS"] if bar else ["NODE", "VCPU", "MEMORY", "VMS"]]
    for node in nodes:
        cpu, memory = _use(node, "cpu"), _use(node, "memory")
        vms = [part(node, key).get("vms", 0) for key in ("before", "after")]
        cells = (
            clean(str(node.get("name"))),
            _bar(cpu, bar),
            f"{cpu.after:g}/{cpu.usable:g}",
            _bar(memory, bar),
            f"{human_bytes(memory.after)}/{human_bytes(max(0, memory.usable))}",
            str(vms[1]) if vms[0] == vms[1] else f"{vms[1]} ({vms[1] - vms[0]:+d})",
        )
        rows.append([cell for cell in cells if cell])
    return rows


def _bar(use: _Use, width: int) -> str:
    """`[####++..]`; what is over the brim is not drawn, the numbers tell. Nothing when there is no room."""
    if width <= 0:
        return ""
    kept, most = min(use.before, use.after), max(use.before, use.after)
    cells = [_cells(amount, use.usable, width) for amount in (kept, most)]
    sign = "+" if use.after > use.before else "-"
    return f"[{'#' * cells[0]}{sign * (cells[1] - cells[0])}{'.' * (width - cells[1])}]"


def _cells(amount: float, of: float, width: int) -> int:
    """Anything at all is at least one cell; only what is full fills the bar."""
    if amount <= 0:
        return 0
    if amount >= of:
        return width
    return max(1, min(width - 1, round(width * amount / of)))


def _grid(nodes: Sequence[Object], width: int) -> Iterator[str]:
    names = [str(node.get("name")) for node in nodes]
    margin = max(map(len, names)) + 2
    per_line = max(10, (width - margin) // 10 * 10)
    yield (
        f"Each character is a node, in the order of names: {EMPTY} empty, {LEVELS} up to nearly full, "
        f"{FULL} full, {CLOSED} takes no VMs\n"
    )
    for title, what in (("VCPU", "cpu"), ("MEMORY", "memory")):
        uses = [_use(node, what) for node in nodes]
        total = sum(use.usable for use in uses) or 1
        share = sum(use.after for use in uses) / total
        yield f"{title}  {share:.0%} of all\n"
        cells = "".join(CLOSED if n.get("note") else _level(use) for n, use in zip(nodes, uses, strict=True))
        for start in range(0, len(cells), per_line):
            yield f"{clean(names[start]).ljust(margin)}{cells[start : start + per_line]}\n"


def _level(use: _Use) -> str:
    if use.after <= 0:
        return EMPTY
    share = use.share()
    return FULL if share >= 0.995 else LEVELS[min(len(LEVELS) - 1, int(share * len(LEVELS)))]
