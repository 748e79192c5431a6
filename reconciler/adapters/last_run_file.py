"""Which boot of which machine the daemon ran in last, on the host's own disk.

planning/homecoming.py decides by it. Invariant: it is on the disk before the daemon takes part in anything,
also when the power fails a moment later.
"""

from __future__ import annotations

import json
from pathlib import Path

from reconciler.adapters.durable import save_text
from reconciler.planning.homecoming import LastRun
from reconciler.resources.codec import decode, encode
from reconciler.resources.errors import InvalidInput


class LastRunFile:
    """`load` and `save`; a save is whole or not at all."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> LastRun | None:
        """None when nothing is known: at the very first start, and when the file is damaged."""
        try:
            return decode(LastRun, json.loads(self._path.read_text(encoding="utf-8")))
        except (OSError, ValueError, InvalidInput):
            return None

    def save(self, run: LastRun) -> None:
        """Remember. Raises VclError when the disk refuses."""
        save_text(self._path, json.dumps(encode(run)))
