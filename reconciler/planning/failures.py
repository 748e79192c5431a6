"""What a failure of a VM on a node means: whose it is, when the node gives the VM up, and how long it counts.

Invariants: a VM is tried a bounded number of times on a node before another one is looked for; a failure that
another node would meet as well (a locked image, a guest that powers itself off) never moves it; the memory
ends by itself, with a changed spec and with `vcl retry`. Failures only steer placement.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from reconciler.resources.failures import Blame, FailureRecord, Failures

ATTEMPTS = 3
"""So many failures in a row that may be the node's, and another node is looked for."""

FORGET_AFTER = 3600.0
"""Seconds after its last failure until a node is tried again."""

_VM = frozenset({"GuestExited", "InvalidDomainXML", "ShrinkRefused"})
_STORAGE = frozenset(
    {
        *("ImageInUse", "ImageMissing", "ImageInvalid", "NoSpace", "PoolUnavailable", "DiskError"),
        *("CephRefused", "InvalidInput"),
    }
)


def blame(reason: str) -> Blame:
    """Whose failure it is, by its reason. One that is not known may be the node's: elsewhere tells."""
    if reason in _VM:
        return Blame.VM
    return Blame.STORAGE if reason in _STORAGE else Blame.NODE


def counted(before: Failures, reason: str, message: str, *, now: str, retry: str) -> Failures:
    """The failures after one more at `now`, which is tried again at `retry` (wall-clock times)."""
    if before.last_time and _age(before.last_time, now) > FORGET_AFTER:
        before = Failures()
    on_node = before.on_node + (blame(reason) is Blame.NODE)
    return Failures(
        count=before.count + 1,
        reason=reason,
        message=message,
        first_time=before.first_time or now,
        last_time=now,
        retry_time=retry,
        on_node=on_node,
        given_up=on_node >= ATTEMPTS,
    )


def in_force(record: FailureRecord, *, uid: str, generation: int, reset: str | None, now: str) -> bool:
    """Whether the record still says something about the VM as it is now."""
    same = record.uid == uid and record.generation == generation and record.reset == reset
    return same and record.failures.count > 0 and not expired(record.failures.last_time, now)


def expired(last_time: str, now: str) -> bool:
    """Whether a failure of then says nothing any more (wall-clock times)."""
    return _age(last_time, now) > FORGET_AFTER


def in_words(failures: Failures) -> str:
    """Why a node that gave the VM up does not get it again, for people."""
    return f"it failed there {failures.on_node} times, last with {failures.reason}: {failures.message}"


def later(wall: str, seconds: float) -> str:
    """The wall-clock time so much later."""
    return (datetime.fromisoformat(wall) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def _age(then: str, now: str) -> float:
    """Seconds from one wall-clock time to another; endless when one of them is none."""
    try:
        start, end = (datetime.fromisoformat(text) for text in (then, now))
    except ValueError:
        return float("inf")
    if start.tzinfo is None or end.tzinfo is None:
        start, end = start.replace(tzinfo=UTC), end.replace(tzinfo=UTC)
    return (end - start).total_seconds()
