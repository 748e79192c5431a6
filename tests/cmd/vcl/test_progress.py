"""The bar, and what stands for it where there is no terminal."""

from __future__ import annotations

import io
from typing import TextIO

from vcl.progress import ERASE, Progress, bar_text


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(stream: TextIO, total: int) -> Progress:
    times = iter(range(100))
    return Progress(total, stream, lambda: float(next(times)))


def test_a_bar_says_how_many_how_fast_and_how_long_still() -> None:
    assert bar_text(0, 4, 3.0, "web: Starting", 80) == "[....................] 0/4 0 %  web: Starting"
    assert bar_text(1, 4, 2.0, "web", 80) == "[#####...............] 1/4 25 %, 6 s left  web"
    assert bar_text(20, 40, 10.0, "", 80) == "[##########..........] 20/40 50 %, 2.0/s, 10 s left"
    assert bar_text(4, 4, 9.0, "web", 80) == "[####################] 4/4 100 %"
    assert len(bar_text(1, 4, 2.0, "web: " + "x" * 100, 60)) == 60


def test_a_terminal_has_one_line_that_is_taken_away_before_others() -> None:
    stream = Terminal()
    progress = shown(stream, 2)
    progress.say("vm/web", "Starting", "making its disks")
    assert "vm/web: Starting, making its disks" in stream.getvalue()
    progress.end("vm/web")
    assert stream.getvalue().endswith(ERASE)


def test_one_alone_has_a_line_for_each_news_on_a_terminal() -> None:
    stream = Terminal()
    progress = shown(stream, 1)
    for more in ("3 s left", "3 s left", "2 s left"):
        progress.say("vm/web", "Stopping", more)
    assert stream.getvalue() == "vm/web: Stopping, 3 s left\nvm/web: Stopping, 2 s left\n"


def test_elsewhere_only_changes_of_the_state_are_lines() -> None:
    stream = io.StringIO()
    progress = shown(stream, 2)
    for state, more in (("Stopped", ""), ("Starting", "one"), ("Starting", "two"), ("Failed", "why")):
        progress.say("vm/web", state, more)
    assert stream.getvalue() == "vm/web: Starting, one\nvm/web: Failed, why\n"
