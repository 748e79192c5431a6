"""Why a VM has no place, node by node: out of the one line that placement says, is logged and stored."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

_NAMED = re.compile(r"([A-Za-z0-9][A-Za-z0-9.-]{0,62}(?: and [0-9]+ more)?): (.*)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """`node` is empty for what concerns no node, or all; `r1 and 9 more` for nodes that refuse alike."""

    node: str
    reason: str


def by_node(text: str, nodes: Collection[str] | None = None) -> tuple[Rejection, ...]:
    """`r1: too full; r2: in maintenance` as one Rejection each. `nodes`: the names there are, when they are
    known: a reason may have semicolons and colons of its own."""
    found: list[Rejection] = []
    for piece in text.split("; ") if text else ():
        match = _NAMED.fullmatch(piece)
        if match and (nodes is None or match[1].partition(" and ")[0] in nodes):
            found.append(Rejection(node=match[1], reason=match[2]))
        elif found:
            last = found.pop()
            found.append(Rejection(node=last.node, reason=f"{last.reason}; {piece}"))
        else:
            found.append(Rejection(node="", reason=piece))
    return tuple(found)
