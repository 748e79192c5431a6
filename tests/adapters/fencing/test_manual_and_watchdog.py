"""A person's word, and the hardware watchdog's protocol on a fake device."""

from __future__ import annotations

import errno
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.adapters.fencing.manual import ManualFencer
from reconciler.adapters.fencing.watchdog import (
    MARGIN,
    NoWatchdog,
    Watchdog,
    WatchdogFacts,
    WatchdogFencer,
)
from reconciler.resources.errors import FenceFailed, StoreUnavailable
from reconciler.resources.fencing import ConfirmedDown, ConfirmRecord, FenceOrder, WatchdogExpired
from reconciler.testing.fencer_contract import CountingGuard

ORDER = FenceOrder(id="id", node="r3", incident="r3-5", boot_id="boot-1")
WORD = ConfirmRecord(incident="r3-5", boot_id="boot-1", by="kim", at="2026-01-31T12:00:00Z")


def manual(word: ConfirmRecord | None) -> ManualFencer:
    async def read(node: str) -> ConfirmRecord | None:
        assert node == "r3"
        return word

    return ManualFencer(read)


async def test_a_confirmation_of_this_incident_and_boot_is_a_proof() -> None:
    proof = await manual(WORD).fence(ORDER, CountingGuard(), timeout=1.0)
    assert proof == ConfirmedDown(incident="r3-5", boot_id="boot-1", by="kim", at=WORD.at)


async def test_without_a_confirmation_the_command_to_give_it_is_named() -> None:
    with pytest.raises(FenceFailed, match="vcl node confirm-down r3"):
        await manual(None).fence(ORDER, CountingGuard(), timeout=1.0)


@pytest.mark.parametrize("word", [replace(WORD, incident="r3-4"), replace(WORD, boot_id="boot-0")])
async def test_a_confirmation_of_something_else_is_none(word: ConfirmRecord) -> None:
    with pytest.raises(FenceFailed, match="what was confirmed is"):
        await manual(word).fence(ORDER, CountingGuard(), timeout=1.0)


async def test_a_store_that_does_not_answer_is_no_confirmation() -> None:
    async def read(node: str) -> ConfirmRecord | None:
        raise StoreUnavailable("it does not answer")

    with pytest.raises(FenceFailed, match="is not known"):
        await ManualFencer(read).fence(ORDER, CountingGuard(), timeout=1.0)


FACTS = WatchdogFacts(identity="iTCO_wdt", period=10.0, boot_id="boot-1", lease_age=25.0)


def watchdog(facts: WatchdogFacts | None) -> WatchdogFencer:
    return WatchdogFencer(lambda node: facts)


async def test_others_wait_two_periods_and_a_margin() -> None:
    proof = await watchdog(FACTS).fence(ORDER, CountingGuard(), timeout=1.0)
    assert proof == WatchdogExpired(device="iTCO_wdt", seconds=25.0)
    early = replace(FACTS, lease_age=2 * 10.0 + MARGIN - 0.1)
    with pytest.raises(FenceFailed, match="for sure in 0 s"):
        await watchdog(early).fence(ORDER, CountingGuard(), timeout=1.0)


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        (None, "no armed hardware watchdog"),
        (replace(FACTS, identity="Software Watchdog"), "which is no proof"),
        (replace(FACTS, identity=""), "which is no proof"),
        (replace(FACTS, boot_id="boot-0"), "in another boot"),
    ],
)
async def test_a_watchdog_that_cannot_be_counted_on_is_no_proof(
    facts: WatchdogFacts | None, why: str
) -> None:
    assert why in watchdog(facts).unready(ORDER)
    with pytest.raises(FenceFailed, match=why):
        await watchdog(facts).fence(ORDER, CountingGuard(), timeout=1.0)


class FakeDevice:
    """What the kernel's driver answers to ioctl."""

    def __init__(self, identity: str = "iTCO_wdt", nearest: int = 10) -> None:
        self.identity = identity
        self.nearest = nearest
        self.asked = 0

    def ioctl(self, descriptor: int, request: int, data: bytes) -> bytes:
        match request & 0xFF:
            case 0:
                return struct.pack("II32s", 0x8180, 0, self.identity.encode())
            case 6:
                (self.asked,) = struct.unpack("i", data)
                return data
            case 7:
                return struct.pack("i", self.nearest)
        raise OSError(errno.ENOTTY, "Inappropriate ioctl for device")


@pytest.fixture
def device(tmp_path: Path) -> Path:
    path = tmp_path / "watchdog"
    path.write_bytes(b"")
    return path


def test_it_is_fed_only_while_the_lease_that_was_acknowledged_was_sent_half_a_period_ago(
    device: Path,
) -> None:
    fake = FakeDevice()
    armed = Watchdog.open(str(device), 12, ioctl=fake.ioctl)
    assert (armed.identity, armed.period, fake.asked) == ("iTCO_wdt", 10.0, 12)
    assert armed.feed(now=100.0, sent=95.1)
    assert not armed.feed(now=100.0, sent=95.0)
    assert not armed.feed(now=100.0, sent=None)
    assert not armed.feed(now=100.0, sent=100.1), "a lease from the future is none"
    assert device.read_bytes() == b"\0"
    armed.close()
    assert device.read_bytes() == b"\0V"


def test_an_orderly_end_disarms_it(device: Path) -> None:
    Watchdog.open(str(device), 10, ioctl=FakeDevice().ioctl).close()
    assert device.read_bytes() == b"V"


@pytest.mark.parametrize("identity", ["Software Watchdog", "softdog", ""])
def test_a_software_watchdog_is_refused_and_left_disarmed(device: Path, identity: str) -> None:
    with pytest.raises(NoWatchdog, match="no proof"):
        Watchdog.open(str(device), 10, ioctl=FakeDevice(identity).ioctl)
    assert device.read_bytes() == b"V"


def test_a_file_that_is_no_watchdog_is_refused(device: Path, tmp_path: Path) -> None:
    with pytest.raises(NoWatchdog, match="is no watchdog"):
        Watchdog.open(str(device), 10)
    with pytest.raises(NoWatchdog, match="No such file"):
        Watchdog.open(str(tmp_path / "absent"), 10)
    with pytest.raises(NoWatchdog, match="does not tell its period"):
        Watchdog.open(str(device), 10, ioctl=FakeDevice(nearest=0).ioctl)


def test_a_host_is_reset_before_the_others_count_on_it() -> None:
    """The last feeding is less than half a period after the lease was sent; the reset a period after that."""
    period = 10.0
    assert period / 2 + period < 2 * period + MARGIN
