"""This host's own watchdog: armed with a lease, fed by leases, and disarmed only once the store knows."""

from __future__ import annotations

from dataclasses import dataclass, field

from reconciler.loops.watchdog import RETRY, WatchdogKeeper
from reconciler.resources.errors import FenceFailed, StoreUnavailable
from reconciler.resources.records import ArmedWatchdog
from reconciler.sim.clock import VirtualClock


@dataclass
class Dog:
    """A device that notes what is done to it."""

    identity: str = "iTCO_wdt"
    period: float = 30.0
    fed: list[float | None] = field(default_factory=list)
    closed: bool = False

    def feed(self, now: float, sent: float | None) -> bool:
        self.fed.append(sent)
        return sent is not None

    def close(self) -> None:
        self.closed = True


ARMED = ArmedWatchdog(identity="iTCO_wdt", period=30.0)


def keeper(dog: Dog) -> WatchdogKeeper:
    return WatchdogKeeper(lambda: dog, VirtualClock())


def test_it_is_armed_with_the_first_acknowledged_lease_and_recorded_only_then() -> None:
    dog = Dog()
    kept = keeper(dog)
    kept.step(None)
    assert (kept.armed(), dog.fed) == (None, [])
    kept.step(0.0)
    assert (kept.armed(), dog.fed) == (ARMED, [0.0])


def test_it_goes_on_in_the_next_session_which_has_no_lease_at_first() -> None:
    dog = Dog()
    kept = keeper(dog)
    kept.step(0.0)
    kept.step(None)
    assert (kept.armed(), dog.fed) == (ARMED, [0.0, None])


def test_a_device_that_cannot_be_used_is_no_watchdog() -> None:
    def arm() -> Dog:
        raise FenceFailed("no such device")

    kept = WatchdogKeeper(arm, VirtualClock())
    assert kept.step(0.0) == RETRY
    assert kept.armed() is None


async def test_it_is_disarmed_after_the_store_has_it() -> None:
    dog = Dog()
    kept = keeper(dog)
    kept.step(0.0)

    async def record() -> bool:
        assert (kept.armed(), dog.closed) == (None, False)
        return True

    assert await kept.retire(record)
    assert dog.closed


async def test_it_stays_armed_when_the_store_does_not_take_its_end() -> None:
    async def refused() -> bool:
        return False

    async def silent() -> bool:
        raise StoreUnavailable("no answer")

    for record in (refused, silent):
        dog = Dog()
        kept = keeper(dog)
        kept.step(0.0)
        assert not await kept.retire(record)
        assert not dog.closed
