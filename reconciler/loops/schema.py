"""Follows the store's schema while the daemon runs, and raises it when every member knows a newer one.

Invariant: every transaction compares the schema as it was when this daemon last found that it knows it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from reconciler.loops.views import Views
from reconciler.loops.writer import Writer
from reconciler.planning.schema import next_schema, schema_problem
from reconciler.resources import keys
from reconciler.resources.membership import Member
from reconciler.resources.records import SchemaRecord, dump

log = logging.getLogger(__name__)


class SchemaRule:
    """`problem`: why this daemon may write no more; empty while it may."""

    def __init__(self, views: Views, writer: Writer, known: tuple[int, int]) -> None:
        self.problem = ""
        self._views = views
        self._writer = writer
        self._known = known

    def follow(self) -> Callable[[], None]:
        """Judge each change of the schema from now on; returns the undo."""

        def changed(found: frozenset[str]) -> None:
            if keys.SCHEMA in found:
                self._judge()

        return self._views.cache.subscribe(changed)

    async def raise_for(self, members: Mapping[str, Member]) -> bool:
        """As master: write a newer schema if all know it. Whether it did. Raises StoreError."""
        record = self._views.record(keys.SCHEMA, SchemaRecord)
        if record is None or not members:
            return False
        version = next_schema(record.version, members, self._known)
        if version == record.version:
            return False
        log.info("the store's schema is raised from %d to %d", record.version, version)
        revisions = {keys.member(name): self._views.cache.revision_of(keys.member(name)) for name in members}
        await self._writer.commit(
            compares=revisions,
            puts={keys.SCHEMA: dump(SchemaRecord(version=version))},
            guards=(keys.SCHEMA, keys.EPOCH),
        )
        return True

    def _judge(self) -> None:
        record = self._views.record(keys.SCHEMA, SchemaRecord)
        problem = schema_problem(record.version, self._known) if record is not None else "the store is empty"
        if problem and problem != self.problem:
            log.error("%s; it writes no more", problem)
        if not problem:
            self._writer.guard(keys.SCHEMA, self._views.cache.revision_of(keys.SCHEMA))
        self.problem = problem
