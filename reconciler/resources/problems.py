"""What is wrong in a file, where, and how it is shown: the one form that every command and condition uses.

Invariant: a rendered problem holds no control characters of the user's file, whatever is in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

Path = tuple[str | int, ...]
"""Where a value is in a document: keys and list indexes, from the top."""

_PLAIN_KEY = re.compile(r"[A-Za-z0-9_<-]+")
_LONGEST_LINE = 160


class Severity(StrEnum):
    """An error keeps a document from being used; a warning does not."""

    ERROR = "Error"
    WARNING = "Warning"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A problem before its position is known. `at_key`: it is the field's name that is wrong, or absent."""

    path: Path
    message: str
    at_key: bool = False
    severity: Severity = Severity.ERROR


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One problem. `line` and `column` count from 1; `path` is empty when it concerns the file as a whole."""

    file: str
    line: int
    column: int
    path: str
    message: str
    severity: Severity = Severity.ERROR
    source_line: str = ""


def show_path(path: Path) -> str:
    """`('spec', 'disks', 0, 'size')` -> `spec.disks[0].size`; odd keys are quoted."""
    shown = ""
    for part in path:
        if isinstance(part, int):
            shown += f"[{part}]"
        elif _PLAIN_KEY.fullmatch(part):
            shown += f".{part}" if shown else part
        else:
            shown += f"[{short(part)}]"
    return shown


def short(value: object) -> str:
    """A value as it is quoted in messages: on one line, printable, and not endless."""
    text = repr(value)
    return text if len(text) <= 62 else f"{text[:60]}..."


def printable(text: str) -> str:
    """`text` with every character that could move a terminal's cursor (or hide) replaced by '?'; tabs become
    spaces."""
    plain = text.replace("\t", " ")
    if plain.isprintable():
        return plain
    return "".join(character if character.isprintable() else "?" for character in plain)


def render(problem: Problem) -> str:
    """`FILE:LINE:COLUMN: PATH: MESSAGE`, and below it the line of the file when it is known."""
    severity = "warning: " if problem.severity is Severity.WARNING else ""
    path = f"{problem.path}: " if problem.path else ""
    message = printable(problem.message)
    head = f"{printable(problem.file)}:{problem.line}:{problem.column}: {severity}{path}{message}"
    if not problem.source_line.strip():
        return head
    line = printable(problem.source_line[:_LONGEST_LINE])
    if len(problem.source_line) > _LONGEST_LINE:
        line += "..."
    return f"{head}\n{problem.line:>4} | {line}"


def in_order(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Sorted by file, line and column, each problem once."""
    return tuple(
        sorted(
            dict.fromkeys(problems), key=lambda p: (p.file, p.line, p.column, p.path, p.severity, p.message)
        )
    )


def summary(problems: Iterable[Problem]) -> str:
    """`2 errors in 1 file`, `1 error and 3 warnings in 2 files`, or `no problems`."""
    everything = tuple(problems)
    if not everything:
        return "no problems"
    warnings = sum(p.severity is Severity.WARNING for p in everything)
    counts = ((len(everything) - warnings, "error"), (warnings, "warning"))
    files = len({p.file for p in everything})
    return f"{' and '.join(_count(n, word) for n, word in counts if n)} in {_count(files, 'file')}"


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
