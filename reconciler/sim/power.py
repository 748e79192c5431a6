"""What the simulation has for orders to shut down: a host's disk, its switch, and Ceph's flags."""

from __future__ import annotations

from collections.abc import Callable

from reconciler.resources.errors import FenceFailed, VclError
from reconciler.resources.shutdowns import PowerMemory


class MemoryOrderBook:
    """An OrderBook that outlives the daemon and the power. `refuses`: the disk is full."""

    def __init__(self) -> None:
        self.memory = PowerMemory()
        self.refuses = False

    def load(self) -> PowerMemory:
        """See OrderBook."""
        return self.memory

    async def save(self, memory: PowerMemory) -> None:
        """See OrderBook."""
        if self.refuses:
            raise VclError("cannot write power.json: No space left on device")
        self.memory = memory


class SimSwitch:
    """A HostSwitch that does `off`, after having been told so often as `fails` says in vain."""

    def __init__(self, off: Callable[[], None]) -> None:
        self.told = 0
        self.fails = 0
        self._off = off

    async def off(self) -> None:
        """See HostSwitch."""
        self.told += 1
        if self.told <= self.fails:
            raise VclError("shutdown: command not found")
        self._off()


class SimFlags:
    """CephFlags in memory. `silent`: the monitors do not answer."""

    def __init__(self, *flags: str) -> None:
        self.set: set[str] = set(flags)
        self.silent = False

    async def flags(self, *, timeout: float) -> frozenset[str]:
        """See CephFlags."""
        self._answer()
        return frozenset(self.set)

    async def set_flag(self, flag: str, on: bool, *, timeout: float) -> None:
        """See CephFlags."""
        self._answer()
        (self.set.add if on else self.set.discard)(flag)

    def _answer(self) -> None:
        if self.silent:
            raise FenceFailed("Ceph does not answer", cure="look at `ceph status`")
