"""The storage pools of this node: a DiskBackend for each StoragePool, made when its spec is first seen."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from reconciler.loops.views import Views
from reconciler.ports.disks import DiskBackend
from reconciler.resources.errors import VclError
from reconciler.resources.infrastructure import StoragePoolSpec
from reconciler.resources.kinds import Kind

log = logging.getLogger(__name__)

BackendFactory = Callable[[str, StoragePoolSpec], DiskBackend]


class Pools:
    """Backends by pool name. `builtin` pools need no manifest; a manifest of the name replaces them."""

    def __init__(self, views: Views, factory: BackendFactory, builtin: Mapping[str, StoragePoolSpec]) -> None:
        self._views = views
        self._factory = factory
        self._builtin = builtin
        self._made: dict[str, tuple[StoragePoolSpec, DiskBackend]] = {}
        self.errors: dict[str, str] = {}

    def specs(self) -> dict[str, StoragePoolSpec]:
        """Every pool's spec by name."""
        return {**self._builtin, **self._views.specs(Kind.STORAGE_POOL)}

    def all(self) -> dict[str, DiskBackend]:
        """Every usable backend by name; `errors` says why the others are not."""
        found: dict[str, DiskBackend] = {}
        self.errors = {}
        for name, spec in sorted(self.specs().items()):
            made = self._made.get(name)
            if made is None or made[0] != spec:
                if made is not None:
                    made[1].close()
                try:
                    made = (spec, self._factory(name, spec))
                except VclError as error:
                    self.errors[name] = str(error)
                    continue
                self._made[name] = made
            found[name] = made[1]
        return found

    def close(self) -> None:
        """Let go of all backends."""
        for _, backend in self._made.values():
            backend.close()
        self._made.clear()
