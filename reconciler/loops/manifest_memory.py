"""The node's memory of its manifest directory, and of which store that memory is about.

The invariant: nothing is concluded from a memory of another store. After a store was lost, exchanged or
restored from a backup, what is in the directory is a user's, and nothing in it is replaced or removed.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from dataclasses import replace

from reconciler.loops.manifest_reader import digest
from reconciler.loops.views import Views
from reconciler.planning.manifest_merge import agreed, forget
from reconciler.planning.manifest_values import Write
from reconciler.ports.manifests import BaseStore
from reconciler.resources import keys
from reconciler.resources.errors import ManifestDirectoryError
from reconciler.resources.records import ClusterRecord
from reconciler.resources.scans import Base

log = logging.getLogger(__name__)


class SyncMemory:
    """`base` is what is remembered; `doubt` says why nothing may be concluded from it any more."""

    def __init__(self, bases: BaseStore, views: Views) -> None:
        self._bases = bases
        self._views = views
        self._loaded = False
        self._unsaved = False
        self._revision = 0
        self.base = Base()
        self.doubt = ""

    async def begin(self) -> None:
        """Load it at the first look; at each look, see whether the store is still the one it is about."""
        cluster, revision = self._cluster(), self._views.cache.revision
        if not self._loaded:
            base = await self._bases.load()
            if base.cluster not in ("", cluster) or base.revision > revision:
                log.warning(
                    "manifests: the store is another than before, or older: no file of this directory is "
                    "replaced or removed, and what differs becomes a conflict file"
                )
                base = Base(marker=base.marker)
            self.base, self._loaded = base, True
        elif not self.doubt and (self.base.cluster not in ("", cluster) or revision < self._revision):
            self.doubt = (
                "the store shows less than this node has seen, or another cluster: was it restored or "
                "replaced? Nothing is synced until vcld is started again"
            )
            await self._save(Base(marker=self.base.marker, cluster=self.base.cluster))
        if self.base.cluster != cluster and not self.doubt:
            self.base, self._unsaved = replace(self.base, cluster=cluster), True
        self._revision = max(self._revision, revision)

    async def keep(self, base: Base) -> None:
        """Remember, durably if it changed. Failing costs nothing but caution after a restart: go on."""
        if base != self.base or self._unsaved:
            await self._save(base)

    async def committed(self, writes: Iterable[Write]) -> None:
        """The store has what these writes say: what it was given is there, and what was deleted is no longer
        ours to delete again."""
        given: dict[str, str] = {}
        gone: set[str] = set()
        for write in writes:
            files = {key: value for key, value in write.puts.items() if key.startswith(keys.MANIFESTS)}
            given |= {keys.manifest_path(key): digest(value) for key, value in files.items()}
            gone |= {keys.manifest_path(key) for key in write.deletes if key.startswith(keys.MANIFESTS)}
        if given or gone:
            await self._save(agreed(forget(self.base, gone), given))

    def forget(self, paths: Collection[str]) -> None:
        """Files were removed as on another node: whatever is saved there from now on is a user's."""
        if paths:
            self.base, self._unsaved = forget(self.base, paths), True

    async def _save(self, base: Base) -> None:
        self.base = replace(base, cluster=self.base.cluster, revision=self._views.cache.revision)
        try:
            await self._bases.save(self.base)
        except ManifestDirectoryError as error:
            if not self._unsaved:
                log.warning("manifests: %s", error)
            self._unsaved = True
        else:
            self._unsaved = False

    def _cluster(self) -> str:
        record = self._views.record(keys.CLUSTER, ClusterRecord)
        return record.uid if record is not None else ""
