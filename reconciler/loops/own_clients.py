"""Keeps session/NODE complete: every client of Ceph that this daemon has had is in it, and its address.

A fencer closes out what is recorded there (SAFETY rule 10). Invariants: an entry is added and never taken
away within a session, and each write compares the session, so that one that a fence has ended stays ended.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import replace

from reconciler.loops.session import Begun
from reconciler.loops.views import Views
from reconciler.loops.writer import Writer
from reconciler.resources import keys
from reconciler.resources.errors import StoreError
from reconciler.resources.fencing import canonical, client_host, is_client
from reconciler.resources.records import ArmedWatchdog, Session, dump
from reconciler.resources.transactions import Committed

log = logging.getLogger(__name__)

LOOK = 1.0
"""Seconds between looks at the clients; whole-host entries cover a client in the meantime."""


class OwnClients:
    """`run` for ever. `clients()`: addresses as Ceph knows them; `armed()`: this host's watchdog."""

    def __init__(
        self,
        views: Views,
        writer: Writer,
        node: str,
        begun: Begun,
        clients: Callable[[], Iterable[str]],
        armed: Callable[[], ArmedWatchdog | None] = lambda: None,
    ) -> None:
        self._views = views
        self._writer = writer
        self._key = keys.session(node)
        self._session = begun.session
        self._revision = begun.session_revision
        self._clients = clients
        self._armed = armed

    async def run(self) -> None:
        """Look every second."""
        while True:
            try:
                await self.step()
            except StoreError as error:
                log.info("own clients: %s; trying again", error)
            await asyncio.sleep(LOOK)

    async def confirm(self) -> bool:
        """Write all of it in any case; whether the store has taken it. Raises StoreError."""
        return await self.step(anyhow=True)

    async def step(self, *, anyhow: bool = False) -> bool:
        """Write what is missing; whether the store has all of it. Raises StoreError.

        Only with `anyhow` is that certain: a write whose answer was lost may land later, until another one
        has bumped the record's revision (SAFETY rule 2)."""
        cache = self._views.cache
        known = self._views.record(self._key, Session)
        if known is None or known.session != self._session or cache.revision_of(self._key) < self._revision:
            return False
        self._take(cache.revision_of(self._key))
        wanted = replace(complete(known, self._clients()), watchdog=self._armed())
        if wanted == known and not anyhow:
            return True
        result = await self._writer.commit(
            compares={self._key: self._revision}, puts={self._key: dump(wanted)}, wait=False
        )
        if isinstance(result, Committed):
            self._take(result.revision)
        return isinstance(result, Committed)

    def _take(self, revision: int) -> None:
        """Only this run writes a record with its session: whatever revision that has is its own."""
        self._revision = revision
        self._writer.guard(self._key, revision)


def complete(session: Session, clients: Iterable[str]) -> Session:
    """With these clients, and the hosts' addresses that they have."""
    found = sorted(canonical(client) for client in clients if is_client(client))
    added = tuple(client for client in dict.fromkeys(found) if client not in session.clients)
    hosts = dict.fromkeys(client_host(client) for client in added)
    addresses = tuple(host for host in hosts if host not in session.addresses)
    return replace(session, clients=(*session.clients, *added), addresses=(*session.addresses, *addresses))
