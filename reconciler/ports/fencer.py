"""A fencer: keeps a node from writing, and proves it.

Every call may be made again at any time, by any master, and must not harm when it takes effect late. `guard`
is awaited before each command that changes something outside: it reads the epoch and the intent anew and
raises ConflictError when this master, or this intent, is not the one any more (SAFETY rule 12); it is let
through. Every other trouble is FenceFailed, after `timeout` seconds at the latest.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from reconciler.resources.fencing import FenceMethod, FenceOrder, Proof

Guard = Callable[[], Awaitable[None]]


class Fencer(Protocol):
    """One way to fence, set up once for the cluster. `fsid`: of the Ceph cluster that it closes, empty when
    it takes whole hosts down; `settle`, `break_locks` and `lift` then have nothing to do."""

    id: str
    method: FenceMethod
    fsid: str

    def unready(self, order: FenceOrder) -> str:
        """Why it cannot fence this node at all, in words; empty when it can be tried. At once."""
        ...

    async def fence(self, order: FenceOrder, guard: Guard, *, timeout: float) -> Proof:
        """Cut the node off, or find that it is. Raises FenceFailed, ConflictError."""
        ...

    async def settle(self, order: FenceOrder, proof: Proof, *, timeout: float) -> None:
        """See that the proof still holds and that whatever this process does next comes after it. Changes
        nothing. Raises FenceFailed."""
        ...

    async def break_locks(self, order: FenceOrder, guard: Guard, *, timeout: float) -> tuple[str, ...]:
        """Break what the fenced clients have left locked of the order's images; what was broken, in words.
        Only after `settle`. Raises FenceFailed, also when a client that is not fenced holds one."""
        ...

    async def lift(self, order: FenceOrder, guard: Guard, *, clients: bool, timeout: float) -> None:
        """Let the order's hosts reach the storage again; with `clients`, also forget its single clients.
        Without, those are made sure of first. Raises FenceFailed, ConflictError."""
        ...

    async def close(self) -> None:
        """Stop; calls under way end with FenceFailed."""
        ...
