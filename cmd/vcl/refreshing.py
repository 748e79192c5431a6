"""Showing something again and again: in place on a terminal, one after the other elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from reconciler.resources.errors import VclError

EVERY = 2.0
"""Seconds between two looks."""

HOME_AND_CLEAR = "\x1b[H\x1b[J"


def refresh(text: Callable[[], str], *, every: float = EVERY) -> int:
    """Show `text()` until Ctrl-C. What cannot be had now is said, and tried again."""
    terminal = sys.stdout.isatty()
    first = True
    while True:
        try:
            shown = text()
        except VclError as error:
            if first:
                raise
            shown = f"error: {error}\n"
        if terminal:
            sys.stdout.write(HOME_AND_CLEAR if not first else "\x1b[2J\x1b[H")
        elif not first:
            sys.stdout.write("\n")
        sys.stdout.write(shown)
        sys.stdout.flush()
        first = False
        time.sleep(every)
