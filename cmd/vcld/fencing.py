"""What this daemon can fence with: Ceph's blocklists, fence agents, a person's word."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from reconciler.adapters.fencing.agent import AgentFencer
from reconciler.adapters.fencing.manual import ManualFencer
from reconciler.adapters.fencing.watchdog import NoWatchdog, Watchdog, WatchdogFacts, WatchdogFencer
from reconciler.loops.watchdog import WatchdogKeeper
from reconciler.ports.clock import Clock
from reconciler.ports.fencer import Fencer
from reconciler.ports.store import Store
from reconciler.resources import keys
from reconciler.resources.errors import FenceFailed
from reconciler.resources.fencing import ConfirmRecord
from reconciler.resources.infrastructure import PoolType, StoragePoolSpec
from reconciler.resources.records import Session, load
from vcld.config import Config, StoreType

if TYPE_CHECKING:
    from reconciler.adapters.fencing.ceph_clusters import CephClusters, Way


class Fencers:
    """All of them. `pools()`: every pool's spec as this node knows it now; `watchdogs`: see `facts_of`."""

    def __init__(
        self,
        config: Config,
        store: Store,
        pools: Callable[[], Mapping[str, StoragePoolSpec]],
        watchdogs: Callable[[str], WatchdogFacts | None],
    ) -> None:
        self._pools = pools
        self._config = config
        self._hosts: tuple[Fencer, ...] = (
            AgentFencer(),
            WatchdogFencer(watchdogs),
            ManualFencer(lambda node: _confirm(store, node)),
        )
        self.clusters: CephClusters | None = self._clusters()

    def all(self) -> tuple[Fencer, ...]:
        """Those that can be asked now."""
        ceph = self.clusters.fencers() if self.clusters is not None else ()
        return (*ceph, *self._hosts)

    async def listed(self, entries: frozenset[str], timeout: float) -> frozenset[str]:
        """Which of these the blocklist of the store's Ceph cluster has. Raises FenceFailed."""
        fencer = self.clusters.of_store() if self.clusters is not None else None
        if fencer is None:
            raise FenceFailed("there is no connection yet to the store's Ceph cluster for this")
        return await fencer.listed(entries, timeout=timeout)

    def ceph_pools(self) -> dict[str, str]:
        """The fsid of each pool on Ceph."""
        return self.clusters.pools() if self.clusters is not None else {}

    def addresses(self) -> tuple[str, ...]:
        """Their own clients of Ceph."""
        return self.clusters.addresses if self.clusters is not None else ()

    async def close(self) -> None:
        """Disconnect."""
        if self.clusters is not None:
            await self.clusters.close()

    def _clusters(self) -> CephClusters | None:
        """None without Ceph's Python bindings: then no pool on Ceph is usable here either."""
        try:
            from reconciler.adapters.fencing.ceph_clusters import CephClusters, Way
        except ImportError:
            return None
        store = self._config.store
        own = Way(conf=store.conf, user=store.user) if store.type is StoreType.RADOS else None

        def ways() -> dict[str, Way]:
            return {
                name: Way(conf=spec.rbd.conf, user=spec.rbd.user)
                for name, spec in self._pools().items()
                if spec.type is PoolType.RBD and spec.rbd is not None
            }

        return CephClusters(own, ways)


def keeper_of(config: Config, clock: Clock) -> WatchdogKeeper | None:
    """Of this host's own watchdog, when one is configured and there are others who could count on it."""
    wanted = config.watchdog
    if wanted is None or config.mesh is None:
        return None

    def arm() -> Watchdog:
        try:
            return Watchdog.open(wanted.device, wanted.period_seconds)
        except NoWatchdog as error:
            raise FenceFailed(str(error), cure="correct `watchdog` in vcld's configuration") from error

    return WatchdogKeeper(arm, clock)


def facts_of(session: Session | None, lease_age: float | None) -> WatchdogFacts | None:
    """A node's watchdog, by its session and for how long this node has watched its lease stand still."""
    if session is None or session.watchdog is None or lease_age is None:
        return None
    armed = session.watchdog
    return WatchdogFacts(
        identity=armed.identity, period=armed.period, boot_id=session.boot_id, lease_age=lease_age
    )


async def _confirm(store: Store, node: str) -> ConfirmRecord | None:
    key = keys.confirm(node)
    found = await store.get([key])
    return load(ConfirmRecord, found[key].value) if key in found else None
