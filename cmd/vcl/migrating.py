"""Asking for a live migration, and following it: a bar on a terminal, a line for each change elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO
from urllib.parse import quote

from reconciler.resources.errors import VclError
from reconciler.resources.kinds import Kind, info_for
from reconciler.resources.quantity import human_bytes
from vcl.client import Client, Unreachable
from vcl.describing import part
from vcl.durations import parse_duration
from vcl.progress import BAR, ERASE
from vcl.session import complain
from vcl.waiting import FIRST_PAUSE, LONGEST_PAUSE, deadline

MIGRATION, VM = info_for(Kind.MIGRATION), info_for(Kind.VIRTUAL_MACHINE)
ENDED = ("Succeeded", "Failed", "Cancelled")


def migrated(client: Client, vm: str, to: str, timeout: str | None) -> int:
    """Ask for it, and follow it unless `timeout` (as written) is None. Returns the exit code."""
    until = deadline(parse_duration(timeout)) if timeout is not None else 0.0
    asked = client.verb(vm, "migrate", {"to": to} if to else {})
    name, target = str(part(asked, "metadata").get("name")), part(asked, "status").get("targetNode")
    print(f"{VM.singular}/{vm} migrating to {target} ({MIGRATION.singular}/{name})", flush=True)
    return 0 if timeout is None else follow(client, name, until, Line(sys.stderr))


def cancelled(client: Client, vm: str) -> int:
    """Ask that it ends. Returns the exit code."""
    asked = client.post(f"virtualmachines/{quote(vm, safe='')}/migrate-cancel", {})
    print(f"{MIGRATION.singular}/{part(asked, 'metadata').get('name')} cancelled", flush=True)
    return 0


def follow(client: Client, name: str, until: float, line: Line) -> int:
    """Show how it goes, until it has ended or the time is up."""
    pause, status = FIRST_PAUSE, dict[str, Any]()
    while True:
        try:
            status = part(client.object(MIGRATION, name), "status")
        except Unreachable:
            line.say("the daemon does not answer", {})
        else:
            if status.get("phase") in ENDED:
                line.clear()
                return _ended(status)
            line.say(str(status.get("message") or ""), part(status, "progress"))
        left = until - time.monotonic()
        if left <= 0:
            line.clear()
            return _late(name, status)
        time.sleep(min(pause, left))
        pause = min(pause * 1.5, LONGEST_PAUSE)


def _ended(status: Mapping[str, Any]) -> int:
    vm = f"{VM.singular}/{status.get('vm')}"
    if status.get("phase") == "Succeeded":
        print(f"{vm} migrated to {status.get('targetNode')}")
        return 0
    word = "was cancelled" if status.get("phase") == "Cancelled" else "failed"
    complain(f"the migration of {vm} {word}: {status.get('message')}")
    return 1


def _late(name: str, status: Mapping[str, Any]) -> int:
    vm, why = status.get("vm"), status.get("message")
    what = f"timed out waiting for the migration of {VM.singular}/{vm}" + (f": {why}" if why else "")
    cure = f"it goes on; 'vcl migrate {vm} --cancel' ends it, 'vcl get migration {name}' shows it"
    complain(VclError(what, cure=cure))
    return 1


class Line:
    """On a terminal one line that is drawn anew; elsewhere a line for each change of the words."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._terminal = stream.isatty()
        self._said = ""
        self._drawn = False

    def say(self, words: str, progress: Mapping[str, Any]) -> None:
        """How it is now."""
        if self._terminal:
            width = shutil.get_terminal_size().columns - 1
            self._stream.write(ERASE + text_of(words, progress)[: max(0, width)])
            self._stream.flush()
            self._drawn = True
        elif words and words != self._said:
            print(words, file=self._stream, flush=True)
        self._said = words

    def clear(self) -> None:
        """Take the line away."""
        if self._drawn:
            self._stream.write(ERASE)
            self._stream.flush()
            self._drawn = False


def text_of(words: str, progress: Mapping[str, Any]) -> str:
    """The bar, the share, the rate, the time left, and what is being done."""
    if "percent" not in progress:
        return words
    share, rate, left = int(progress["percent"]), int(progress.get("rate") or 0), progress.get("secondsLeft")
    full = BAR * share // 100
    parts = [f"[{'#' * full}{'.' * (BAR - full)}] {share} %"]
    parts += [f"{human_bytes(rate)}B/s"] if rate else []
    parts += [f"{left:.0f} s left"] if isinstance(left, (int, float)) else []
    return f"{', '.join(parts)}  {words}"
