"""What the blocklist holds, and for how long: parsed from `ceph osd blocklist ls`.

Invariant (SAFETY rule 11): an entry is proof only while it lasts for years. The reply to `add` says nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from reconciler.adapters.rados.connecting import FENCE_SECONDS
from reconciler.resources.errors import FenceFailed
from reconciler.resources.fencing import FenceOrder, canonical, host_entry

YEARS = float(FENCE_SECONDS)
"""Seconds that a new entry lasts."""
ENOUGH = 365 * 86400.0
"""Seconds that one must last to count. Monitors' clocks and this host's may differ by less than that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entries:
    """`until`: UTC seconds since 1970 at which each entry ends. `now`: when it was read, by this host."""

    until: Mapping[str, float]
    now: float

    def lasts(self, entry: str) -> bool:
        """Whether it is there, for years."""
        return self.until.get(entry, 0.0) - self.now >= ENOUGH

    def missing(self, wanted: Iterable[str]) -> tuple[str, ...]:
        """Those that are not there at all."""
        return tuple(sorted(entry for entry in wanted if entry not in self.until))

    def short(self, wanted: Iterable[str]) -> tuple[str, ...]:
        """Those that are there and end too soon."""
        return tuple(sorted(e for e in wanted if e in self.until and not self.lasts(e)))

    def hold(self, wanted: Iterable[str]) -> bool:
        """Whether all of them last."""
        return all(self.lasts(entry) for entry in wanted)

    def covers(self, client: str) -> bool:
        """Whether this client cannot write, for years: by its own entry or its host's."""
        found = canonical(client)
        return self.lasts(found) or self.lasts(f"{found.rpartition(':')[0]}:0/0")


def parse(answer: Any, now: float) -> Entries:
    """From the JSON of `osd blocklist ls`. Raises FenceFailed for what it does not understand."""
    try:
        return Entries(
            until={canonical(each["addr"]): _time(each["until"]) for each in answer or ()}, now=now
        )
    except (KeyError, TypeError, ValueError) as error:
        raise FenceFailed(
            f"`ceph osd blocklist ls` answered what cannot be read: {answer!r}"[:300]
        ) from error


def wanted_entries(
    order: FenceOrder, observed: Iterable[str] = ()
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The whole-host entries of an order, and those of single clients."""
    hosts = {host_entry(address) for address in order.addresses}
    clients = {canonical(client) for client in (*order.clients, *observed)}
    return tuple(sorted(hosts)), tuple(sorted(clients - hosts))


def _time(text: str) -> float:
    """'2036-11-19T23:29:25.034383+0000'; older releases write a space, and no zone for UTC."""
    found = datetime.fromisoformat(text.replace(" ", "T"))
    return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp()
