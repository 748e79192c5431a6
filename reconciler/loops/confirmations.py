"""Takes a person's word that a host is down, and records it for the fencing (confirm/NODE).

Invariant: the transaction compares the fence record and the node's session that the word was checked against,
as the store had them; whoever is master reads it from there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from reconciler.loops.agent_state import RecordEvent
from reconciler.loops.views import Views
from reconciler.loops.writer import Writer, conflicts
from reconciler.planning.confirming import Witness, Word, refusal
from reconciler.planning.timers import Timers
from reconciler.ports.clock import Clock
from reconciler.resources import keys
from reconciler.resources.errors import ConflictError, InvalidInput
from reconciler.resources.fencing import ConfirmRecord, FenceRecord
from reconciler.resources.kinds import Kind
from reconciler.resources.records import EventType, Session, dump, load
from reconciler.resources.transactions import KeyValue

log = logging.getLogger(__name__)

ATTEMPTS = 8

T = TypeVar("T")


class Confirmations:
    """`witness`: what this node sees of the others, at the time of the question."""

    def __init__(
        self,
        views: Views,
        writer: Writer,
        clock: Clock,
        timers: Timers,
        witness: Callable[[], Witness],
        event: RecordEvent,
    ) -> None:
        self._views = views
        self._writer = writer
        self._clock = clock
        self._timers = timers
        self._witness = witness
        self._event = event

    async def confirm_down(self, word: Word, by: str) -> ConfirmRecord:
        """Record it. ConflictError says why it is not taken; InvalidInput: a record cannot be read. Raises
        StoreError."""
        fence, session = keys.fence(word.node), keys.session(word.node)
        for _ in range(ATTEMPTS):
            found = await self._views.cache.read([fence, session])
            problem, cure = refusal(
                word,
                _read(found.get(fence), FenceRecord),
                _read(found.get(session), Session),
                self._witness(),
                self._timers,
            )
            if problem:
                raise ConflictError(problem, cure=cure)
            record = ConfirmRecord(incident=word.incident, boot_id=word.boot_id, by=by, at=self._clock.wall())
            compares = {key: found[key].revision if key in found else 0 for key in (fence, session)}
            result = await self._writer.commit(
                compares=compares, puts={keys.confirm(word.node): dump(record)}
            )
            if not conflicts(result):
                log.warning("node %s: %s confirms that it is down (%s)", word.node, by, word.incident)
                message = f"{word.incident}: {by} says that this boot of it is down ({word.boot_id})"
                self._event(EventType.WARNING, Kind.NODE, word.node, "ConfirmedDown", message)
                return record
        raise ConflictError(
            f"the fencing of '{word.node}' goes on too fast to write into; nothing was recorded",
            cure="look at it again, and confirm if it still waits",
        )


def _read(item: KeyValue | None, cls: type[T]) -> T | None:
    """The record; one that cannot be read must not be taken for none."""
    if item is None:
        return None
    try:
        return load(cls, item.value)
    except ValueError as error:
        raise InvalidInput(f"the store's record {item.key} cannot be read, so nothing was written") from error
