"""What the node remembers of its manifest directory, in one JSON file of its state directory."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path

from reconciler.adapters.files import write_durably
from reconciler.resources.codec import decode, encode
from reconciler.resources.errors import InvalidInput, ManifestDirectoryError
from reconciler.resources.scans import Base

log = logging.getLogger(__name__)


class BaseFile:
    """Losing it costs nothing but caution: files that are missing then are not taken for deleted."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def load(self) -> Base:
        """What was saved last, or an empty Base."""
        return await asyncio.to_thread(self._load)

    async def save(self, base: Base) -> None:
        """Replace it durably."""
        data = json.dumps(encode(base), sort_keys=True, indent=0).encode()
        try:
            await asyncio.to_thread(write_durably, self._path, data, mode=0o600)
        except OSError as error:
            raise ManifestDirectoryError(
                f"{self._path} cannot be written: {error.strerror}", cure="free space or repair its rights"
            ) from error

    def _load(self) -> Base:
        try:
            return decode(Base, json.loads(self._path.read_bytes()))
        except FileNotFoundError:
            return Base()
        except (OSError, ValueError, InvalidInput) as error:
            log.error("%s cannot be read and is started anew: %s", self._path, error)
            return Base()
