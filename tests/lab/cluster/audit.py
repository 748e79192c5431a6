"""The writer-audit of a lab: from its start to its end, no image may have two that could write to it.

It runs beside everything that a test does (audit_child.py), and cluster_lab fails at the end when it has told
of anything, or has not looked. A test that makes two writers on purpose takes what was found with `caught`.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .processes import LabFailed, until
from .storage import Storage

CHILD = Path(__file__).with_name("audit_child.py")
NAME, POOL = "audit", "vms"


class WriterAudit:
    """One per lab, on the storage's machine."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._dir = storage.host.dir

    def start(self) -> None:
        """Returns when it has looked once. No-op when it runs, and without a Ceph."""
        if not self._storage.used or self.runs():
            return
        self._storage.host.spawn(
            NAME, sys.executable, str(CHILD), str(self._storage.dir / "ceph.conf"), POOL, str(self._dir)
        )
        until(lambda: self.seen("passes"), 30.0, f"the audit looks; see {self._storage.host.log(NAME)}")

    def runs(self) -> bool:
        return self._storage.host.daemon(NAME) is not None

    def seen(self, what: str) -> int:
        """How often so far: `passes` over all images, `looks` at one, `writers` seen in them, `fenced` ones
        among those, `records` of guests read, and passes that stayed `unanswered`."""
        try:
            return int(json.loads((self._dir / "audit.json").read_text())[what])
        except FileNotFoundError:
            return 0

    def looked(self) -> None:
        """Wait until everything has been looked at once more, from now on."""
        done = self.seen("passes")
        until(lambda: self.seen("passes") >= done + 2 or not self.runs(), 60.0, "the audit has looked again")

    def findings(self) -> list[dict[str, Any]]:
        """What it told of, oldest first."""
        try:
            return [json.loads(line) for line in (self._dir / "audit.jsonl").read_text().splitlines()]
        except FileNotFoundError:
            return []

    @contextlib.contextmanager
    def caught(self) -> Iterator[list[dict[str, Any]]]:
        """What is found meanwhile is put into the list at the end, and not held against the lab."""
        before, found = self.findings(), list[dict[str, Any]]()
        yield found
        self.looked()
        found += self.findings()[len(before) :]
        (self._dir / "audit.jsonl").write_text("".join(json.dumps(each) + "\n" for each in before))

    @contextlib.contextmanager
    def handing_over(self, *images: str) -> Iterator[None]:
        """These images may be open twice meanwhile: QEMU opens an image on both hosts of a live migration,
        and only who has its lock writes. Three, or a counter that goes back, are found all the same."""
        place = self._dir / "handing-over.json"
        place.write_text(json.dumps(images))
        try:
            yield
            self.looked()
        finally:
            place.unlink()

    def close(self) -> None:
        """End it. Raises LabFailed with what it has told of, or when it has not looked to the end."""
        if not self._storage.used or not self._storage.host.on():
            return
        alive = self.runs()
        self._storage.host.end(NAME, signal.SIGKILL)
        self._judge(alive)

    def check(self) -> None:
        """Raises LabFailed as `close` does, and it goes on."""
        self._judge(self.runs())

    def _judge(self, alive: bool) -> None:
        found = self.findings()
        if found:
            raise LabFailed(f"the writer-audit found {len(found)} times that two could write: {found[:3]}")
        if not alive or not self.seen("passes"):
            said = self._storage.host.log(NAME).read_text(errors="replace")[-800:]
            raise LabFailed(f"the writer-audit did not look: {said}")
