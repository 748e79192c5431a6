"""Leases: one small value per node, rewritten every second, kept apart from the cluster's state so that the
two never contend. They are hints: who renews is alive, who does not is not proven dead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Leases(Protocol):
    """One value per node name; each node writes its own only."""

    async def renew(self, node: str, value: bytes, *, timeout: float) -> None:
        """Write it; returns when it is acknowledged. StoreUnavailable otherwise (it may still be applied)."""
        ...

    async def read(self, *, timeout: float) -> Mapping[str, bytes]:
        """Every node's value. StoreUnavailable."""
        ...

    async def close(self) -> None:
        """Stop; calls under way end with StoreUnavailable."""
        ...
