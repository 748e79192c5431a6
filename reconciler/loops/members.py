"""Takes a node out of the cluster, when a person asks for it.

Its session stays: the numbers of its heartbeats and leases must go on growing, should it ever come back.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from reconciler.loops.views import Views
from reconciler.loops.writer import Writer, conflicts
from reconciler.planning.liveness import Standing
from reconciler.planning.members import removal_problem
from reconciler.resources import keys
from reconciler.resources.errors import ConflictError, NotFound
from reconciler.resources.kinds import Kind
from reconciler.resources.records import Binding, Claim

log = logging.getLogger(__name__)


class Members:
    """`standing`: what this node knows of another one; None for no member."""

    def __init__(self, views: Views, writer: Writer, standing: Callable[[str], Standing | None]) -> None:
        self._views = views
        self._writer = writer
        self._standing = standing

    def removable(self, name: str) -> bool:
        """Whether it is a member that `forget` would take out."""
        standing = self._standing(name)
        return standing is not None and not self._problem(name, standing)[0]

    async def forget(self, name: str) -> None:
        """Take it out. NotFound; ConflictError says why it may not go. Raises StoreError."""
        standing = self._standing(name)
        if standing is None:
            raise NotFound(f"node '{name}' is no member of the cluster")
        problem, cure = self._problem(name, standing)
        if problem:
            raise ConflictError(problem, cure=cure)
        cache = self._views.cache
        member, session = keys.member(name), keys.session(name)
        compares = {key: cache.revision_of(key) for key in (member, session)}
        told = (keys.node_status(Kind.NODE, name), keys.intent(Kind.NODE, name))
        gone = [key for key in (member, *told) if cache.get(key) is not None]
        result = await self._writer.commit(compares=compares, deletes=gone)
        if conflicts(result):
            raise ConflictError(f"node '{name}' has just come back", cure="stop vcld there first")
        log.info("node %s: no member any more", name)

    def _problem(self, name: str, standing: Standing) -> tuple[str, str]:
        views, cache = self._views, self._views.cache
        claims = {}
        for item in cache.prefix(keys.CLAIMS):
            claim = views.record(item.key, Claim)
            if claim is None:
                return f"the record {item.key} cannot be read", "look at this node's log"
            claims[item.key.removeprefix(keys.CLAIMS)] = claim
        bindings = {}
        for item in cache.prefix(keys.BINDINGS):
            binding = views.record(item.key, Binding)
            if binding is not None:
                bindings[item.key.removeprefix(keys.BINDINGS)] = binding
        return removal_problem(name, standing, claims, bindings)
