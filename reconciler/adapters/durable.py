"""A small file that is whole or not there, and on the disk before anybody acts on what it says: also when the
power fails a moment later."""

from __future__ import annotations

import os
from pathlib import Path

from reconciler.adapters.files import sync_directory
from reconciler.resources.errors import VclError


def save_text(path: Path, text: str) -> None:
    """Replace the file. Raises VclError when the disk refuses; then the old one is still there."""
    fresh = path.with_suffix(".new")
    try:
        with fresh.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        raise VclError(f"cannot write {path}: {error.strerror}", cure="make room on its disk") from error
