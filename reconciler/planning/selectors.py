"""Label selectors as people type them (`-l app=web,tier!=db,zone in (a,b),!spare`), as expressions.

The grammar and the meaning are Kubernetes': a comma means and; `!=` and `notin` also match objects that do
not have the label at all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from reconciler.resources.errors import InvalidInput
from reconciler.resources.placementconstraint import Expression, Operator

Requirements = tuple[Expression, ...]
"""All of them must match; none at all matches everything."""

_CURE = "write for example app=web, app!=web, app in (web,db), app notin (web), app or !app, separated by ','"
_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
_KEY = rf"(?:[A-Za-z0-9.-]{{1,253}}/)?{_NAME}"
_TERM = re.compile(
    rf"\s*(?:(?P<absent>!)\s*(?P<absent_key>{_KEY})"
    rf"|(?P<set_key>{_KEY})\s+(?P<set_op>in|notin)\s*\((?P<values>[^()]*)\)"
    rf"|(?P<key>{_KEY})(?:\s*(?P<op>==|=|!=)\s*(?P<value>(?:{_NAME})?))?)\s*"
)
_VALUE = re.compile(rf"(?:{_NAME})?")


def parse_selector(text: str) -> Requirements:
    """The requirements of a selector; empty text selects everything. Raises InvalidInput."""
    if not text.strip():
        return ()
    found: list[Expression] = []
    position = 0
    while True:
        match = _TERM.match(text, position)
        if match is None or (match.end() < len(text) and text[match.end()] != ","):
            where = match.end() if match else position
            raise InvalidInput(
                f"label selector {text[:200]!r}: not understood at {text[where:][:40]!r}", cure=_CURE
            )
        found.append(_expression(match, text))
        if match.end() == len(text):
            return tuple(found)
        position = match.end() + 1


def selects(requirements: Requirements, labels: Mapping[str, str]) -> bool:
    """Whether an object with these labels is selected."""
    return all(requirement.matches(labels) for requirement in requirements)


def _expression(match: re.Match[str], text: str) -> Expression:
    if match["absent"]:
        return Expression(key=match["absent_key"], operator=Operator.DOES_NOT_EXIST)
    if match["set_op"]:
        operator = Operator.IN if match["set_op"] == "in" else Operator.NOT_IN
        return Expression(key=match["set_key"], operator=operator, values=_values(match["values"], text))
    if match["op"] is None:
        return Expression(key=match["key"], operator=Operator.EXISTS)
    operator = Operator.NOT_IN if match["op"] == "!=" else Operator.IN
    return Expression(key=match["key"], operator=operator, values=(match["value"],))


def _values(inside: str, text: str) -> tuple[str, ...]:
    values = tuple(value.strip() for value in inside.split(","))
    for value in values:
        if not _VALUE.fullmatch(value):
            raise InvalidInput(f"label selector {text[:200]!r}: {value!r} is no label value", cure=_CURE)
    return values
