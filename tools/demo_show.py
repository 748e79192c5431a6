"""What the demo prints while it works: one line a finished step, with the time since the beginning.

On a terminal the step that is under way is shown as well, on a line that is written over.
"""

from __future__ import annotations

import sys
import time


class Steps:
    """Progress on stdout."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._live = sys.stdout.isatty()
        self._shown = False

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._began

    def done(self, what: str, detail: str) -> None:
        """A step that is finished."""
        self._wipe()
        print(f"{self.seconds:6.1f} s  {what:<10}  {detail}", flush=True)

    def now(self, what: str, detail: str) -> None:
        """What is under way; only a terminal shows it."""
        if self._live:
            self._wipe()
            print(f"{self.seconds:6.1f} s  {what:<10}  {detail} ...", end="", flush=True)
            self._shown = True

    def close(self) -> None:
        """Leave the line that is written over."""
        self._wipe()

    def _wipe(self) -> None:
        if self._shown:
            print("\r\x1b[K", end="", flush=True)
            self._shown = False


def title(text: str) -> None:
    """A heading between the parts of the output."""
    print(f"\n--- {text}", flush=True)
