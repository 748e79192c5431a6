"""How a long verb shows that it goes on: a bar on a terminal, one plain line for each change elsewhere.

Everything goes to stderr, so that what scripts read from stdout is the same with and without it.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from typing import TextIO

BAR = 20
"""Characters of the bar itself."""

ERASE = "\r\x1b[K"


def bar_text(done: int, total: int, seconds: float, now: str, width: int) -> str:
    """One line, `width` characters at most: the bar, how many, how fast, how long still (by the rate so far),
    and what is being waited for."""
    full = BAR * done // max(1, total)
    text = f"[{'#' * full}{'.' * (BAR - full)}] {done}/{total} {100 * done // max(1, total)} %"
    if done and seconds > 0 and done < total:
        rate, left = done / seconds, (total - done) * seconds / done
        text += f", {rate:.1f}/s, {left:.0f} s left" if rate >= 1 else f", {left:.0f} s left"
    text += f"  {now}" if now and done < total else ""
    return text[: max(0, width)]


class Progress:
    """Of `total` things that are waited for; `plain`: with lines also where there is no terminal.

    `say(name, state, more)`: how one is now; `state` is a word or two that changes seldom, `more` what
    changes often. `end(name)`: it is done, whether well or not.
    """

    def __init__(
        self,
        total: int,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        *,
        plain: bool = True,
    ) -> None:
        self._total = total
        self._stream = stream or sys.stderr
        self._clock = clock
        self._began = clock()
        self._done = 0
        self._last: dict[str, str] = {}
        self._terminal = self._stream.isatty()
        self._drawn = False
        self._silent = not (plain or self._terminal)

    def say(self, name: str, state: str, more: str = "") -> None:
        """How it is with this one now."""
        words = ", ".join(word for word in (state, more) if word)
        if self._terminal and self._total > 1:
            self._draw(f"{name}: {words}" if words else name)
            return
        news = words if self._terminal else state
        first, before = name not in self._last, self._last.get(name)
        self._last[name] = news
        if news and news != before and (self._terminal or not first) and not self._silent:
            print(f"{name}: {words}", file=self._stream, flush=True)

    def end(self, name: str) -> None:
        """This one is done."""
        self._done += 1
        self._last.pop(name, None)
        self.clear()

    def clear(self) -> None:
        """Take the bar away, so that a line can be printed."""
        if self._drawn:
            self._stream.write(ERASE)
            self._stream.flush()
            self._drawn = False

    def _draw(self, now: str) -> None:
        width = shutil.get_terminal_size().columns - 1
        line = bar_text(self._done, self._total, self._clock() - self._began, now, width)
        self._stream.write(ERASE + line)
        self._stream.flush()
        self._drawn = True


def clear(progress: Progress | None) -> None:
    """Take the bar away, if one was begun."""
    if progress is not None:
        progress.clear()
