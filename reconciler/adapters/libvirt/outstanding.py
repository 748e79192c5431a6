"""Calls that may still change something after their deadline, or after their connection broke.

A frozen libvirtd executes what was sent to it when it wakes up, even if the sender has gone. Invariant
(SAFETY rules 5 and 7): while such a call may still take effect, its VM is neither reported gone nor created
again.

A call is over when libvirtd has answered it, or when it never began. A call whose connection broke is over
once a *later* connection has been served for `SETTLE` seconds: libvirtd then has read, and acted on, what was
in the old one. What even that cannot exclude stays paused (rule 5).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

SETTLE = 5.0
"""Seconds that a new connection must have stood before silence about the old one means something."""
PROMPT = 1.0
"""A connection that took longer to open, in seconds, was made to a libvirtd that had been hung or starting:
calls of an earlier life of this daemon may be under way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """One connection: its number, when it was opened (monotonic seconds), and how long that took."""

    number: int
    opened: float
    took: float


@dataclass(slots=True, eq=False, kw_only=True)
class Call:
    """One call. `lost`: its connection broke before the answer."""

    name: str
    uid: str
    what: str
    epoch: int
    lost: bool = False


class Outstanding:
    """The register of such calls. Thread-safe."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._calls: list[Call] = []

    def begin(self, *, name: str, uid: str, what: str, epoch: Epoch) -> Call:
        """Before the work is handed to a thread."""
        call = Call(name=name, uid=uid, what=what, epoch=epoch.number)
        with self._lock:
            self._calls.append(call)
        return call

    def lose(self, call: Call) -> None:
        """The connection broke under it."""
        call.lost = True

    def end(self, call: Call) -> None:
        """Its thread has returned: it is over, unless it was lost."""
        with self._lock:
            if not call.lost:
                self._calls.remove(call)

    def why_unknown(self, *, name: str, uid: str, epoch: Epoch) -> str:
        """Why nothing can be said about this VM's absence, as the end of a sentence; empty when it can.

        Call it with the connection that is about to be asked.
        """
        age = self._now() - epoch.opened
        rest = f"{max(0.0, SETTLE - age):.1f} s more"
        if epoch.took > PROMPT and age < SETTLE:
            return f"libvirtd has only just come back; what was under way may still appear for {rest}"
        with self._lock:
            self._calls = [
                c for c in self._calls if not (c.lost and epoch.number > c.epoch and age >= SETTLE)
            ]
            for call in self._calls:
                if call.name == name or (uid and call.uid == uid):
                    if call.lost:
                        return f"the call to {call.what} it was lost with the connection; wait {rest}"
                    return f"libvirtd has not yet answered the call to {call.what} it"
        return ""
