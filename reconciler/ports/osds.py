"""Ceph's OSDs, as far as failover has to do with them: where they are, and that some are down.

Every call ends after `timeout` seconds, with FenceFailed when it did not succeed. Each may be made again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol


class Osds(Protocol):
    """Those of the Ceph cluster in which the store is."""

    async def locate(self, *, timeout: float) -> Mapping[int, frozenset[str]]:
        """The IP addresses of each OSD that is up. Asked while Ceph is well: in a stall it is slow. Raises
        FenceFailed."""
        ...

    async def mark_down(self, osds: Sequence[int], *, dead: bool, timeout: float) -> None:
        """Tell Ceph that they are down, and with `dead` that they can serve nobody any more. Returns when
        Ceph has taken it. One that lives marks itself up again. Raises FenceFailed."""
        ...

    async def close(self) -> None:
        """Stop; calls under way end with FenceFailed."""
        ...
