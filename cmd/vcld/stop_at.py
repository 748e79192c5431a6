"""For tests only: `VCLD_STOP_AT=fencing:Settle` in the environment has the daemon kill itself
(SIGKILL) before it takes that step, `VCLD_STOP_AT=fencing:Settle:STOP` has it freeze (SIGSTOP), once.

The steps of a fencing are Intend, Fence, Settle, BreakLocks, Release, Finish, Lift and Clear. Invariant:
without the variable nothing ever stops.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping

VARIABLE = "VCLD_STOP_AT"


def stop_at(
    environment: Mapping[str, str], send: Callable[[int, int], None] = os.kill
) -> Callable[[str], None]:
    """What is to be told of each point. `send`: signals a process id."""
    wanted = environment.get(VARIABLE, "")
    freezes = wanted.endswith(":STOP")
    left = {wanted.removesuffix(":STOP")} - {""}

    def reached(point: str) -> None:
        if point in left:
            left.remove(point)
            send(os.getpid(), signal.SIGSTOP if freezes else signal.SIGKILL)

    return reached
