"""The most that this node has seen of its store, on disk beside it (SAFETY rule 3)."""

from __future__ import annotations

import json
import os
from pathlib import Path

from reconciler.planning.store_memory import Seen
from reconciler.resources.codec import decode, encode
from reconciler.resources.errors import InvalidInput, VclError


class SeenFile:
    """`load` and `save`; a save is atomic, and survives a crash of the daemon."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> Seen | None:
        """What was seen, None at the very first start. VclError when the file is damaged."""
        try:
            return decode(Seen, json.loads(self._path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, InvalidInput) as error:
            raise VclError(
                f"cannot read {self._path}: {error}",
                cure="if the store is the right one, remove that file and start again",
            ) from error

    def save(self, seen: Seen) -> None:
        """Remember. Raises VclError when the disk refuses."""
        fresh = self._path.with_suffix(".new")
        try:
            fresh.write_text(json.dumps(encode(seen)), encoding="utf-8")
            os.replace(fresh, self._path)
        except OSError as error:
            raise VclError(
                f"cannot write {self._path}: {error.strerror}", cure="make room on its disk"
            ) from error
