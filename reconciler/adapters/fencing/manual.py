"""Fences by a person's word: `vcl node confirm-down` names the incident and the boot that is over.

Invariant (SAFETY rule 14): a word about another incident or another boot is none. Whether the host has shown
a sign of life since is judged where the proof is used.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from reconciler.ports.fencer import Guard
from reconciler.resources.errors import FenceFailed, StoreError
from reconciler.resources.fencing import ConfirmedDown, ConfirmRecord, FenceMethod, FenceOrder, Proof

ReadConfirm = Callable[[str], Awaitable[ConfirmRecord | None]]
"""confirm/NODE as the store has it now. Raises StoreError."""


class ManualFencer:
    """Looks whether somebody has confirmed it."""

    id = "manual"
    method = FenceMethod.MANUAL
    fsid = ""

    def __init__(self, read: ReadConfirm) -> None:
        self._read = read

    def unready(self, order: FenceOrder) -> str:
        """See Fencer."""
        return ""

    async def fence(self, order: FenceOrder, guard: Guard, *, timeout: float) -> Proof:
        """See Fencer. It changes nothing, so the guard is not asked."""
        found = await self._confirmed(order, timeout)
        return ConfirmedDown(incident=found.incident, boot_id=found.boot_id, by=found.by, at=found.at)

    async def settle(self, order: FenceOrder, proof: Proof, *, timeout: float) -> None:
        """See Fencer."""
        await self._confirmed(order, timeout)

    async def break_locks(self, order: FenceOrder, guard: Guard, *, timeout: float) -> tuple[str, ...]:
        """See Fencer."""
        return ()

    async def lift(self, order: FenceOrder, guard: Guard, *, clients: bool, timeout: float) -> None:
        """See Fencer."""

    async def close(self) -> None:
        """See Fencer."""

    async def _confirmed(self, order: FenceOrder, timeout: float) -> ConfirmRecord:
        cure = f"if {order.node} is surely off: vcl node confirm-down {order.node}"
        try:
            async with asyncio.timeout(timeout):
                found = await self._read(order.node)
        except (StoreError, TimeoutError) as error:
            raise FenceFailed(
                f"whether somebody confirmed that {order.node} is down is not known: {error}"
            ) from error
        if found is None:
            raise FenceFailed(f"nobody has confirmed that {order.node} is down", cure=cure)
        if (found.incident, found.boot_id) != (order.incident, order.boot_id):
            raise FenceFailed(
                f"what was confirmed is {found.incident}, and this is {order.incident} of {order.node}",
                cure=cure,
            )
        return found
