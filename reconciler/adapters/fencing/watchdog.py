"""The hardware watchdog: a host that cannot renew its lease resets itself, and the others can count on that.

Invariants (SAFETY rule 14): it is fed only while the last acknowledged lease was *sent* less than half a
period ago, so a host whose lease stands still is reset within a period and a half; the others wait for two
periods and a margin. The kernel's own softdog dies with the kernel, so it proves nothing.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass

from reconciler.ports.fencer import Guard
from reconciler.resources.errors import FenceFailed
from reconciler.resources.fencing import FenceMethod, FenceOrder, Proof, WatchdogExpired

MARGIN = 5.0
"""Seconds beyond two periods: the clocks of two hosts do not run alike, and a reset takes a moment."""

# linux/watchdog.h
_GET_SUPPORT = 0x80285700  # _IOR('W', 0, struct watchdog_info): options, firmware version, identity[32]
_SET_TIMEOUT = 0xC0045706  # _IOWR('W', 6, int)
_GET_TIMEOUT = 0x80045707  # _IOR('W', 7, int)
_SOFTWARE = ("software watchdog", "softdog")

Ioctl = Callable[[int, int, bytes], bytes]


class NoWatchdog(Exception):
    """The device is none that anybody could count on; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchdogFacts:
    """What is known of another node's watchdog. `period` in seconds, as its daemon has set it, in the boot
    `boot_id`; `lease_age`: for how long this node has watched its lease stand still."""

    identity: str
    period: float
    boot_id: str
    lease_age: float


class WatchdogFencer:
    """Waits; it changes nothing. `facts`: by the node's name, None when it has no armed watchdog."""

    id = "watchdog"
    method = FenceMethod.WATCHDOG
    fsid = ""

    def __init__(self, facts: Callable[[str], WatchdogFacts | None]) -> None:
        self._facts = facts

    def unready(self, order: FenceOrder) -> str:
        """See Fencer."""
        facts = self._facts(order.node)
        if facts is None:
            return f"{order.node} has no armed hardware watchdog"
        if software(facts.identity):
            return f"the watchdog of {order.node} is {facts.identity!r}, which is no proof"
        if facts.boot_id != order.boot_id:
            return f"the watchdog of {order.node} was armed in another boot than the one that is fenced"
        return ""

    async def fence(self, order: FenceOrder, guard: Guard, *, timeout: float) -> Proof:
        """See Fencer."""
        if why := self.unready(order):
            raise FenceFailed(why)
        facts = self._facts(order.node)
        assert facts is not None
        needed = 2 * facts.period + MARGIN
        if facts.lease_age < needed:
            left = needed - facts.lease_age
            raise FenceFailed(f"the watchdog of {order.node} has reset it for sure in {left:.0f} s")
        return WatchdogExpired(device=facts.identity, seconds=facts.lease_age)

    async def settle(self, order: FenceOrder, proof: Proof, *, timeout: float) -> None:
        """See Fencer."""
        await self.fence(order, _nothing, timeout=timeout)

    async def break_locks(self, order: FenceOrder, guard: Guard, *, timeout: float) -> tuple[str, ...]:
        """See Fencer."""
        return ()

    async def lift(self, order: FenceOrder, guard: Guard, *, clients: bool, timeout: float) -> None:
        """See Fencer."""

    async def close(self) -> None:
        """See Fencer."""


class Watchdog:
    """This host's own device, armed from `open` on: unless it is fed, the host is reset."""

    def __init__(self, descriptor: int, identity: str, period: float) -> None:
        """Use `open`."""
        self.identity = identity
        self.period = period
        self._descriptor = descriptor

    @classmethod
    def open(cls, path: str, period: int, *, ioctl: Ioctl = fcntl.ioctl) -> Watchdog:
        """Arm it, with a period as near to `period` seconds as the device can. Raises NoWatchdog, and leaves
        a device that cannot be counted on disarmed."""
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        except OSError as error:
            raise NoWatchdog(f"{path}: {error.strerror}") from error
        try:
            identity = (
                ioctl(descriptor, _GET_SUPPORT, bytes(40))[8:].split(b"\0")[0].decode("ascii", "replace")
            )
            if software(identity):
                raise NoWatchdog(f"{path} is {identity!r}: it dies with the kernel, and is no proof")
            ioctl(descriptor, _SET_TIMEOUT, struct.pack("i", period))
            (actual,) = struct.unpack("i", ioctl(descriptor, _GET_TIMEOUT, bytes(4)))
            if actual <= 0:
                raise NoWatchdog(f"{path} does not tell its period")
        except (OSError, NoWatchdog) as error:
            _disarm(descriptor)
            if isinstance(error, NoWatchdog):
                raise
            what = "is no watchdog" if error.errno == errno.ENOTTY else str(error.strerror)
            raise NoWatchdog(f"{path} {what}") from error
        return cls(descriptor, identity, float(actual))

    def feed(self, now: float, sent: float | None) -> bool:
        """Feed it if the last acknowledged lease was sent less than half a period ago; whether it was. Both
        are this host's monotonic seconds."""
        if sent is None or not 0.0 <= now - sent < self.period / 2:
            return False
        os.write(self._descriptor, b"\0")
        return True

    def close(self) -> None:
        """Disarm it: the daemon ends in an orderly way and its guests run on."""
        _disarm(self._descriptor)


def software(identity: str) -> bool:
    """Whether this is the kernel's own timer and no hardware."""
    return not identity or identity.lower() in _SOFTWARE


def _disarm(descriptor: int) -> None:
    """The magic close: without it, the host would be reset."""
    try:
        os.write(descriptor, b"V")
    finally:
        os.close(descriptor)


async def _nothing() -> None:
    return
