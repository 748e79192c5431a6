"""The way back of a host that Ceph has been told to shut out: see planning/homecoming.py and loops/rejoin.py.

Invariants (SAFETY rules 10, 15): only whole-host entries of this host's own addresses are taken off here,
and only after another boot; a client that is on the list by itself is given up, never taken off.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from reconciler.adapters import host
from reconciler.adapters.last_run_file import LastRunFile
from reconciler.planning.homecoming import LastRun, may_let_itself_in
from reconciler.resources.errors import FenceFailed
from reconciler.resources.fencing import canonical, client_host, host_entry, is_client
from vcld.config import Config, StoreType

if TYPE_CHECKING:
    from reconciler.adapters.fencing.ceph_blocklist import CephBlocklistFencer

log = logging.getLogger(__name__)

LOOK = 2.0
WITHIN = 10.0
"""Seconds for the monitors."""

Listed = Callable[[frozenset[str], float], Awaitable[frozenset[str]]]
"""Which of these entries are on the store's blocklist, within so many seconds. Raises FenceFailed."""


class Homecoming:
    """This host, before it has reached its store."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._file = LastRunFile(config.state_path / "last-run.json")
        self.now = LastRun(boot_id=host.boot_id(), machine_id=host.machine_id())
        self._decided = config.store.type is not StoreType.RADOS
        self._may = False
        self._saved: LastRun | None = None

    async def let_in(self) -> None:
        """Take this host's own whole-host entries off the list, if it may. What fails is tried again with the
        next attempt at the store."""
        if not self._decided:
            why = may_let_itself_in(self._file.load(), self.now, host.has_guests())
            self._decided, self._may = True, not why
            log.debug("homecoming: %s", why or "this host may take itself off the blocklist")
        if not self._may:
            return
        try:
            async with self._blocklist() as fencer:
                await fencer.let_in(self._addresses(fencer), timeout=WITHIN)
        except FenceFailed as error:
            log.warning("homecoming: %s", error)

    async def fenced(self) -> bool:
        """Whether the blocklist has this host as a whole, for years: only a fence does that. Raises
        FenceFailed."""
        async with self._blocklist() as fencer:
            hosts = {host_entry(address) for address in self._addresses(fencer)}
            return bool(await fencer.listed(hosts, timeout=WITHIN, lasting=True))

    def last(self) -> LastRun | None:
        """What the last run has left, of this boot or an earlier one."""
        return self._file.load()

    def arrived(self) -> None:
        """The store is reached: from now on this is the last run. Raises VclError."""
        last = self._file.load() or self.now
        self.remember(replace(last, boot_id=self.now.boot_id, machine_id=self.now.machine_id))
        self._may = False

    def remember(self, run: LastRun) -> None:
        """Keep it, if it is new. Raises VclError."""
        if run != self._saved:
            self._file.save(run)
            self._saved = run

    @asynccontextmanager
    async def _blocklist(self) -> AsyncIterator[CephBlocklistFencer]:
        from reconciler.adapters.fencing.ceph_blocklist import CephBlocklistFencer

        store = self._config.store
        fencer = await CephBlocklistFencer.open(store.conf, store.user, timeout=WITHIN)
        try:
            yield fencer
        finally:
            await fencer.close()

    def _addresses(self, fencer: CephBlocklistFencer) -> set[str]:
        own = {client_host(address) for address in fencer.addresses if is_client(address)}
        return own | {*self._config.storage_addresses}


class ShutOut:
    """While the store does not answer: whether Ceph has shut this host out. `known`: it has, as a whole.

    Once only the store's own client is on the list, the daemon begins anew with another one.
    """

    def __init__(
        self,
        addresses: Callable[[], Iterable[str]],
        listed: Listed,
        healthy: Callable[[], bool],
        begin_anew: Callable[[], None],
    ) -> None:
        """`addresses()`: the clients of Ceph of the store; `healthy()`: it answers."""
        self.known = False
        self._addresses = addresses
        self._listed = listed
        self._healthy = healthy
        self._begin_anew = begin_anew

    async def run(self) -> None:
        """Look, for ever."""
        while True:
            await asyncio.sleep(LOOK)
            try:
                await self.step()
            except FenceFailed as error:
                log.info("whether this host is blocklisted is not known: %s", error)

    async def step(self) -> None:
        """One look. Raises FenceFailed."""
        if self._healthy():
            self.known = False
            return
        clients = {canonical(client) for client in self._addresses() if is_client(client)}
        hosts = {host_entry(client_host(client)) for client in clients}
        listed = await self._listed(frozenset({*clients, *hosts}), WITHIN)
        before, self.known = self.known, bool(listed & hosts)
        if self.known and not before:
            log.warning("this host is blocklisted: the cluster has fenced it")
        if listed and not self.known:
            log.warning("this host may reach Ceph again, with another client than before")
            self._begin_anew()
