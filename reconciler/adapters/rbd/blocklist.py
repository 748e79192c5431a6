"""The blocklist as the pools of images use it: clients are shut out for years before their locks are broken.

Blocking calls. How entries are read, and what one is worth, is the fencer's (fencing/entries.py). Invariant:
an entry that ends soon is replaced only while the whole host's entry covers the client (SAFETY rule 11).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from reconciler.adapters.fencing.entries import YEARS, Entries, parse
from reconciler.adapters.rbd.cluster import Cluster
from reconciler.resources.errors import FenceFailed, PoolUnavailable
from reconciler.resources.fencing import canonical

_SEEN_SECONDS = 5.0


def read(cluster: Cluster) -> Entries:
    """The present entries. Raises PoolUnavailable for what cannot be read, rados.Error."""
    lists = cluster.command(prefix="osd blocklist ls")
    try:
        return parse(lists[0] if lists else None, time.time())
    except FenceFailed as error:
        raise PoolUnavailable(error.message) from error


def add(cluster: Cluster, clients: Iterable[str]) -> None:
    """Exact entries for these clients, seen in the list and in this connection's map of the OSDs. Raises
    PoolUnavailable when one ends too soon and nothing covers the client meanwhile, and rados.Error."""
    wanted = sorted({canonical(client) for client in clients})
    before = read(cluster)
    short = before.short(wanted)
    for client in short:
        if not before.covers(client):
            raise PoolUnavailable(
                f"the client {client} is blocklisted, but only until {_moment(before.until[client])}, and "
                "adding it again would not extend that",
                cure=f"vcl goes on when it has ended; if its process is surely gone: ceph osd blocklist rm "
                f"{client}",
            )
    for client in short:
        _edit(cluster, "rm", client)
    _see(
        cluster, lambda now: now.missing(short) == short, f"{', '.join(short)} did not leave Ceph's blocklist"
    )
    for client in wanted:
        if not before.lasts(client):
            _edit(cluster, "add", client)
    _see(cluster, lambda now: now.hold(wanted), f"{', '.join(wanted)} did not come into Ceph's blocklist")
    with cluster.handle() as handle:
        handle.wait_for_latest_osdmap()


def _edit(cluster: Cluster, what: str, client: str) -> None:
    words: dict[str, object] = {"expire": YEARS} if what == "add" else {}
    cluster.command(prefix="osd blocklist", blocklistop=what, addr=client, **words)


def _see(cluster: Cluster, done: Callable[[Entries], bool], otherwise: str) -> None:
    """Raises PoolUnavailable with `otherwise` when the list does not show it in time."""
    deadline = time.monotonic() + _SEEN_SECONDS
    while not done(read(cluster)):
        if time.monotonic() > deadline:
            raise PoolUnavailable(otherwise, cure="look at `ceph osd blocklist ls`")
        time.sleep(0.1)


def _moment(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
