"""What this node knows of orders to shut down, on its own disk (SAFETY rule 20).

Invariant: a file that cannot be read is never taken for one without an order: VMs would start by themselves
when the power returns.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from reconciler.adapters.durable import save_text
from reconciler.resources.codec import decode, encode
from reconciler.resources.errors import InvalidInput, VclError
from reconciler.resources.shutdowns import PowerMemory


class PowerOrdersFile:
    """An OrderBook; a save is whole or not at all."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> PowerMemory:
        """See OrderBook."""
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))
            if "known" not in found:
                raise ValueError("it does not say what is known")
            return decode(PowerMemory, found)
        except FileNotFoundError:
            return PowerMemory()
        except (OSError, ValueError, InvalidInput) as error:
            raise VclError(
                f"cannot read {self._path}, which says whether the cluster was shut down: {error}",
                cure="if VMs may run, remove that file and start vcld again",
            ) from error

    async def save(self, memory: PowerMemory) -> None:
        """See OrderBook."""
        await asyncio.to_thread(save_text, self._path, json.dumps(encode(memory)))
