"""What this node knows of orders to shut down, on its own disk (SAFETY rule 20).

Invariant: a file that cannot be read is never taken for one without an order: VMs would start by themselves
when the power returns.
"""

from __future__ import annotations

import json
from pathlib import Path

from reconciler.adapters.durable import save_text
from reconciler.resources.codec import decode, encode
from reconciler.resources.errors import InvalidInput, VclError
from reconciler.resources.shutdowns import PowerOrders


class PowerOrdersFile:
    """`load` and `save`; a save is whole or not at all, and on the disk when it returns."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> PowerOrders:
        """What is known, nothing before the first order. Raises VclError when the file is damaged."""
        try:
            return decode(PowerOrders, json.loads(self._path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return PowerOrders()
        except (OSError, ValueError, InvalidInput) as error:
            raise VclError(
                f"cannot read {self._path}, which says whether the cluster was shut down: {error}",
                cure="if VMs may run, remove that file and start vcld again",
            ) from error

    def save(self, known: PowerOrders) -> None:
        """Remember. Raises VclError when the disk refuses."""
        save_text(self._path, json.dumps(encode(known)))
