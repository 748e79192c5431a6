"""Arms and feeds this host's hardware watchdog: see adapters/fencing/watchdog.py for what others conclude.

Invariants (SAFETY rule 14): it is armed only once a lease was acknowledged, and recorded in session/NODE only
after that; fed only by a lease that was sent half a period ago at most; and disarmed only when the store has
taken it out of session/NODE before. So while the record stands, a host whose lease stands still is reset.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from reconciler.ports.clock import Clock
from reconciler.resources.errors import FenceFailed, StoreError
from reconciler.resources.records import ArmedWatchdog

log = logging.getLogger(__name__)

RETRY = 60.0
"""Seconds between attempts at a device that cannot be used."""

ATTEMPTS = 4
PAUSE = 0.5
"""To record the end of it: another write of this session's record may be under way."""


class Device(Protocol):
    """An armed watchdog. `period` in seconds."""

    identity: str
    period: float

    def feed(self, now: float, sent: float | None) -> bool:
        """Feed it if the lease that was acknowledged last was sent recently enough; whether it was."""
        ...

    def close(self) -> None:
        """Disarm it."""
        ...


class WatchdogKeeper:
    """Of one process, over all its sessions. `arm()` raises FenceFailed for a device that cannot be used."""

    def __init__(self, arm: Callable[[], Device], clock: Clock) -> None:
        self._arm = arm
        self._clock = clock
        self._device: Device | None = None
        self._retired = False

    def armed(self) -> ArmedWatchdog | None:
        """What is to be in session/NODE now."""
        device = self._device
        if device is None or self._retired:
            return None
        return ArmedWatchdog(identity=device.identity, period=device.period)

    async def run(self, renewed_at: Callable[[], float | None]) -> None:
        """Feed it for ever. `renewed_at()`: when this session's last acknowledged lease was sent."""
        while True:
            pause = self.step(renewed_at())
            await asyncio.sleep(pause)

    def step(self, sent: float | None) -> float:
        """Feed it, or arm it with the first lease; seconds until the next time."""
        if self._device is None:
            if sent is None or self._retired:
                return 1.0
            try:
                self._device = self._arm()
            except FenceFailed as error:
                log.error("the hardware watchdog is not used: %s", error)
                return RETRY
            log.info("%s armed, %.0f s", self._device.identity, self._device.period)
        if not self._device.feed(self._clock.monotonic(), sent):
            log.warning("the watchdog is not fed: no lease was acknowledged lately; this host will be reset")
        return min(1.0, self._device.period / 10)

    async def retire(self, record: Callable[[], Awaitable[bool]]) -> bool:
        """Disarm at the end of the daemon; whether it was. `record()`: write session/NODE anew, True when the
        store has taken it. If it does not, the device stays armed: others count on it."""
        if self._device is None:
            return True
        self._retired = True
        recorded = False
        try:
            for _ in range(ATTEMPTS):
                recorded = await record()
                if recorded:
                    break
                await asyncio.sleep(PAUSE)
        except StoreError as error:
            log.error("the watchdog stays armed, and this host will be reset: %s", error)
            return False
        if not recorded:
            log.error("the watchdog stays armed, and this host will be reset: the store did not take its end")
            return False
        self._device.close()
        self._device = None
        return True
