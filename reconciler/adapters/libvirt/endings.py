"""How a domain ended, from libvirt's stop events and, when those were missed, from its log.

A reason only ever explains an end that was proven otherwise; the wrong one costs a restart, never a disk.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import libvirt

from reconciler.resources.domains import ExitReason

_EVENTS = {
    libvirt.VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN: ExitReason.SHUTDOWN,
    libvirt.VIR_DOMAIN_EVENT_STOPPED_DESTROYED: ExitReason.DESTROYED,
    # The end of a guest whose kernel told the pvpanic device that it is lost (on_crash).
    libvirt.VIR_DOMAIN_EVENT_STOPPED_CRASHED: ExitReason.PANICKED,
    # libvirt calls a QEMU that vanished from under a running domain "failed".
    libvirt.VIR_DOMAIN_EVENT_STOPPED_FAILED: ExitReason.CRASHED,
}
_WORDS = {
    "shutdown": ExitReason.SHUTDOWN,
    "destroyed": ExitReason.DESTROYED,
    "crashed": ExitReason.CRASHED,
    "failed": ExitReason.FAILED,
}
_TAIL = 64 << 10


def from_event(detail: int) -> ExitReason:
    """Of the detail of a lifecycle event STOPPED."""
    return _EVENTS.get(detail, ExitReason.UNKNOWN)


def from_log(path: Path) -> ExitReason:
    """Of the last line "shutting down, reason=..." in libvirt's log of the domain, if no start follows it.
    UNKNOWN when there is none or the log cannot be read."""
    try:
        with path.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(0, size - _TAIL))
            text = log.read(_TAIL).decode(errors="replace")
    except OSError:
        return ExitReason.UNKNOWN
    ends = list(re.finditer(r"^\S+ \S+ shutting down, reason=(\w+)", text, re.MULTILINE))
    if not ends or re.search(r"^\S+ \S+ starting up", text[ends[-1].end() :], re.MULTILINE):
        return ExitReason.UNKNOWN
    return _WORDS.get(ends[-1][1], ExitReason.UNKNOWN)
