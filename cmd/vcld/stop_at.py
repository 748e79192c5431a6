"""For tests only: `VCLD_STOP_AT=fencing:Settle` in the environment has the daemon kill itself
(SIGKILL) before it takes that step, `VCLD_STOP_AT=fencing:Settle:STOP` has it freeze (SIGSTOP), once.
With `VCLD_STOP_AT=@FILE` the step is what the file says when one is reached: a test can change its mind, and
after another word the same one counts again.

The steps of a fencing are Intend, Fence, Settle, BreakLocks, Release, Finish, Lift and Clear; those of a
migration are `migration:Open`, Go, Hold, Abort, End and Settle. Invariant: without the variable nothing ever
stops.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

VARIABLE = "VCLD_STOP_AT"


def stop_at(
    environment: Mapping[str, str], send: Callable[[int, int], None] = os.kill
) -> Callable[[str], None]:
    """What is to be told of each point. `send`: signals a process id."""
    given = environment.get(VARIABLE, "")
    obeyed = ""

    def reached(point: str) -> None:
        nonlocal obeyed
        wanted = _read(Path(given[1:])) if given.startswith("@") else given
        if wanted != obeyed:
            obeyed = ""
        if obeyed or point != wanted.removesuffix(":STOP"):
            return
        obeyed = wanted
        send(os.getpid(), signal.SIGSTOP if wanted.endswith(":STOP") else signal.SIGKILL)

    return reached


def _read(file: Path) -> str:
    """What it says; nothing when it is not there."""
    try:
        return file.read_text().strip()
    except FileNotFoundError:
        return ""
