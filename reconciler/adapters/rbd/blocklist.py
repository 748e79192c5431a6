"""The blocklist: which clients Ceph lets write no more, and until when (SAFETY rules 10 and 11).

Blocking calls. Invariant: an entry counts only while it lasts for years; one that would expire lets its
client write again, and adding it once more does not extend it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from reconciler.adapters.rados.connecting import FENCE_SECONDS
from reconciler.adapters.rbd.cluster import Cluster
from reconciler.resources.errors import PoolUnavailable

ENOUGH = timedelta(days=365)
_SEEN_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocklist:
    """`until` by address as Ceph writes it, such as 10.77.0.1:0/544144402 or 10.77.0.1:0/0 (a whole host)."""

    until: Mapping[str, datetime]

    def covers(self, client: str, now: datetime) -> bool:
        """Whether the client cannot write for a year at least."""
        host = f"{client.rpartition(':')[0]}:0/0"
        return any(self.until.get(entry, now) - now >= ENOUGH for entry in (client, host))

    def short(self, client: str, now: datetime) -> datetime | None:
        """When an exact entry ends that does not last."""
        until = self.until.get(client)
        return until if until is not None and until - now < ENOUGH else None


def read(cluster: Cluster) -> Blocklist:
    """The present entries. Raises rados.Error."""
    entries = cluster.command(prefix="osd blocklist ls")
    found = {entry["addr"]: _time(entry["until"]) for part in entries[:1] for entry in part}
    return Blocklist(until=found)


def add(cluster: Cluster, clients: Iterable[str]) -> None:
    """Exact entries for these clients, seen in the list and in this connection's map of the OSDs. Raises
    PoolUnavailable when one ends too soon, and rados.Error."""
    now, wanted = datetime.now(UTC), sorted(set(clients))
    before = read(cluster)
    for client in wanted:
        if before.covers(client, now):
            continue
        if (until := before.short(client, now)) is not None:
            raise PoolUnavailable(
                f"the client {client} is blocklisted, but only until {until:%Y-%m-%d %H:%M:%S} UTC, and "
                "adding it again would not extend that",
                cure=f"if its process is surely gone: ceph osd blocklist rm {client}",
            )
        words = {"prefix": "osd blocklist", "blocklistop": "add", "addr": client}
        cluster.command(**words, expire=float(FENCE_SECONDS))
    _see(cluster, wanted)


def _see(cluster: Cluster, clients: list[str]) -> None:
    deadline = time.monotonic() + _SEEN_SECONDS
    while True:
        now, listed = datetime.now(UTC), read(cluster)
        missing = [client for client in clients if not listed.covers(client, now)]
        if not missing:
            break
        if time.monotonic() > deadline:
            raise PoolUnavailable(f"{missing[0]} is not in Ceph's blocklist although it was added")
        time.sleep(0.1)
    with cluster.handle() as handle:
        handle.wait_for_latest_osdmap()


def _time(text: str) -> datetime:
    """'2036-11-19T23:29:25.034383+0000'; older releases write a space, and no zone for UTC."""
    found = datetime.fromisoformat(text.replace(" ", "T"))
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
