"""libyaml's syntax errors in words that help: what is wrong, where it begins, and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reconciler.resources.manifesttext import Marked

_NEAR = "check the indentation here and on the lines above"

# (part of the parser's message, ours, whether the place where the construct began is the better one)
_MESSAGES: tuple[tuple[str, str, bool], ...] = (
    (
        "mapping values are not allowed",
        f"unexpected ':'; quote a value that contains ': ', or {_NEAR}",
        False,
    ),
    ("cannot start any token", "this character cannot start a value; put the value in quotes", False),
    ("found unexpected end of stream", "the quote that starts here is never closed", True),
    ("found unexpected document separator", "the quote that starts here is never closed", True),
    ("found unexpected document indicator", "the quote that starts here is never closed", True),
    ("expected ',' or ']'", "the list that starts here with '[' is not closed, or lacks a comma", True),
    ("expected ',' or '}'", "the map that starts here with '{' is not closed, or lacks a comma", True),
    ("while parsing a flow node", "a bracket is opened and never closed, or a value is missing", False),
    ("did not find expected key", f"a 'key: value' line was expected; {_NEAR}", False),
    ("expected <block end>", f"a 'key: value' line was expected; {_NEAR}", False),
    ("did not find expected '-' indicator", f"a list item ('- ...') was expected; {_NEAR}", False),
    ("could not find expected ':'", f"this line lacks a ':' after its key; {_NEAR}", True),
    ("block sequence entries are not allowed", f"a list item cannot start here; {_NEAR}", False),
    ("sequence entries are not allowed", f"a list item cannot start here; {_NEAR}", False),
    (
        "found unknown escape character",
        "unknown escape in double quotes; write '\\\\' for a backslash",
        False,
    ),
    (
        "expected <document start>",
        f"the document ended above; {_NEAR}, or separate documents by '---'",
        False,
    ),
    ("incompatible YAML document", "only YAML 1.1 and 1.2 can be read; remove the %YAML line", False),
)


def explain_syntax(error: Exception, base: int, lines: Sequence[str]) -> Marked:
    """Where (line and column from 1) and why the text after the first `base` of `lines` cannot be read."""
    problem = str(getattr(error, "problem", None) or error).splitlines()[0]
    context = str(getattr(error, "context", None) or "")
    mark: Any = getattr(error, "problem_mark", None)
    begin: Any = getattr(error, "context_mark", None) or mark
    message, at_begin = _message(f"{problem} {context}", problem)
    place = begin if at_begin else mark
    line, column = (base + place.line, place.column) if place is not None else (base, 0)
    line = min(line, len(lines) - 1)
    if lines[line][column : column + 1] == "\t":
        message = "tabs cannot indent YAML; use spaces"
    return Marked(line=line + 1, column=column + 1, message=f"not valid YAML: {message}")


def _message(everything: str, problem: str) -> tuple[str, bool]:
    for part, message, at_begin in _MESSAGES:
        if part in everything:
            return message, at_begin
    return problem, False
