"""What a node keeps of orders to shut down, and how its host goes off."""

from __future__ import annotations

from typing import Protocol

from reconciler.resources.shutdowns import PowerMemory


class OrderBook(Protocol):
    """This node's own copy of what it knows; survives the daemon and the power (SAFETY rule 20)."""

    def load(self) -> PowerMemory:
        """What was saved last, nothing before the first order. Read once, before anything else runs. Raises
        VclError when it is there and cannot be read: that is never taken for "no order"."""
        ...

    async def save(self, memory: PowerMemory) -> None:
        """Replace it; it is durable when this returns. Raises VclError when the disk refuses."""
        ...


class HostSwitch(Protocol):
    """The power of this host."""

    async def off(self) -> None:
        """Begin to shut the operating system down; returns when it has been told to. Raises VclError."""
        ...


class CephFlags(Protocol):
    """The flags of Ceph's OSD map, such as noout, in the cluster in which the store is. Every call ends after
    `timeout` seconds."""

    async def flags(self, *, timeout: float) -> frozenset[str]:
        """Those that are set. Raises FenceFailed."""
        ...

    async def set_flag(self, flag: str, on: bool, *, timeout: float) -> None:
        """Set or unset one. It may be done again. Raises FenceFailed."""
        ...
