"""Asking the person at the terminal before something that cannot be taken back."""

from __future__ import annotations

import sys

from vcl.session import UsageError


def confirm(question: str, *, yes: bool, what: str) -> bool:
    """True when `--yes` was given or the person types yes. UsageError when there is nobody to ask."""
    if yes:
        return True
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(
            f"{what} needs a confirmation, and this is no terminal", cure="add --yes if you mean it"
        )
    print(f"{question} Type 'yes' to go on: ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("yes", "y")


def typed(question: str, expected: str, *, what: str, cure: str) -> bool:
    """True when the person types `expected`, exactly. UsageError when there is nobody to ask."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(f"{what} needs a confirmation, and this is no terminal", cure=cure)
    print(f"{question}: ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip() == expected
