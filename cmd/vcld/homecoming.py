"""The way back of a host that Ceph has been told to shut out: see planning/homecoming.py and loops/rejoin.py.

Invariants (SAFETY rules 10, 15): only whole-host entries of this host's own addresses are taken off here,
and only after another boot; a client that is on the list by itself is given up, never taken off.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable

from reconciler.adapters import host
from reconciler.adapters.last_run_file import LastRunFile
from reconciler.planning.homecoming import LastRun, may_let_itself_in
from reconciler.resources.errors import FenceFailed
from reconciler.resources.fencing import canonical, client_host, host_entry, is_client
from vcld.config import Config, StoreType

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
        self._now = LastRun(boot_id=host.boot_id(), machine_id=host.machine_id())
        self._decided = config.store.type is not StoreType.RADOS
        self._may = False

    async def let_in(self) -> None:
        """Take this host's own whole-host entries off the list, if it may. What fails is tried again with the
        next attempt at the store."""
        if not self._decided:
            why = may_let_itself_in(self._file.load(), self._now, host.has_guests())
            self._decided, self._may = True, not why
            log.debug("homecoming: %s", why or "this host may take itself off the blocklist")
        if not self._may:
            return
        from reconciler.adapters.fencing.ceph_blocklist import CephBlocklistFencer

        store = self._config.store
        try:
            fencer = await CephBlocklistFencer.open(store.conf, store.user, timeout=WITHIN)
        except FenceFailed as error:
            log.info("homecoming: %s", error)
            return
        try:
            own = [client_host(address) for address in fencer.addresses if is_client(address)]
            await fencer.let_in({*self._config.storage_addresses, *own}, timeout=WITHIN)
        except FenceFailed as error:
            log.warning("homecoming: %s", error)
        finally:
            await fencer.close()

    def arrived(self) -> None:
        """The store is reached: from now on this is the last run. Raises VclError."""
        self._file.save(self._now)
        self._may = False


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
