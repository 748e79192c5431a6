"""Answers the readers of other nodes.

A reader asks for one page after a position, and asks again when it has taken that: so a slow one takes up a
few words here and nothing on the way, and what is lost on the way is just asked for again. One that is silent
for `expire` seconds is forgotten.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from reconciler.loops.log_ring import LogRing, Page
from reconciler.ports.clock import Clock
from reconciler.ports.transport import Message, Topic, Transport
from reconciler.resources.codec import decode, encode
from reconciler.resources.errors import InvalidInput
from reconciler.resources.logrecords import (
    LogFilter,
    Position,
    position_from_json,
    position_to_json,
    record_to_json,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLimits:
    """Seconds and numbers. `gather`: how long new records are gathered before they are sent; `hold`: how long
    a record waits for earlier ones of other nodes, `patience` for a node that has not said where its log
    begins; `renew`: a question is repeated; `expire`: a silent reader is forgotten; `look`: how often links
    are looked at while somebody reads; `grace`: a link may be down so long before a follower is told.
    `records`, `size`: of one page (a message holds 256 KiB, and JSON may take six bytes for a letter);
    `readers`: of other nodes, at most."""

    gather: float = 0.05
    hold: float = 0.3
    patience: float = 3.0
    renew: float = 2.0
    expire: float = 15.0
    look: float = 1.0
    grace: float = 2.0
    records: int = 500
    size: int = 32 * 1024
    readers: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    wanted: LogFilter
    ask: int
    after: Position | None
    expires: float


class LogAnswers:
    """The questions that wait for something to be said. All methods return at once."""

    def __init__(self, ring: LogRing, clock: Clock, transport: Transport, limits: LogLimits) -> None:
        self._ring = ring
        self._clock = clock
        self._transport = transport
        self._limits = limits
        self._waiting: dict[tuple[str, str], _Question] = {}
        self._refused = False

    def __len__(self) -> int:
        return len(self._waiting)

    def asked(self, sender: str, body: Mapping[str, Any]) -> None:
        """Answer if there is something to say, and else as soon as there is."""
        try:
            key, question = (sender, _reader(body)), self._question(body)
        except InvalidInput as error:
            log.debug("a question for log records from %s is not understood: %s", sender, error)
            return
        before = self._waiting.pop(key, None)
        if before is not None and before.ask == question.ask and before.after is not None:
            # Asked again: what was looked through meanwhile need not be looked through once more.
            question = replace(question, after=max(before.after, question.after or before.after))
        self._answer(key, question)
        self._forget_silent()

    def ended(self, sender: str, body: Mapping[str, Any]) -> None:
        """The reader is gone."""
        self._waiting.pop((sender, str(body.get("reader", ""))), None)

    def pump(self) -> bool:
        """Answer everybody for whom there is something new; False when a link did not take an answer."""
        self._refused = False
        self._forget_silent()
        waiting, self._waiting = self._waiting, {}
        for key, question in waiting.items():
            self._answer(key, question)
        return not self._refused

    def _question(self, body: Mapping[str, Any]) -> _Question:
        ask, after = body.get("ask"), body.get("after")
        if not isinstance(ask, int):
            raise InvalidInput("ask: must be a number")
        return _Question(
            wanted=decode(LogFilter, body.get("filter") or {}, "filter"),
            ask=ask,
            after=position_from_json(after) if after is not None else None,
            expires=self._clock.monotonic() + self._limits.expire,
        )

    def _answer(self, key: tuple[str, str], question: _Question) -> None:
        limits = self._limits
        page = self._ring.page(question.wanted, question.after, records=limits.records, size=limits.size)
        first = question.after is None or not question.wanted.follow
        if not (page.records or page.dropped or first):
            self._waiting[key] = replace(question, after=page.upto)
        elif not self._transport.send(key[0], _message(key[1], question.ask, page)):
            self._refused = True
            self._waiting[key] = question

    def _forget_silent(self) -> None:
        now = self._clock.monotonic()
        for key in [key for key, question in self._waiting.items() if question.expires <= now]:
            del self._waiting[key]
        while len(self._waiting) > self._limits.readers:
            del self._waiting[next(iter(self._waiting))]


def question(reader: str, wanted: LogFilter, ask: int, after: Position | None) -> Message:
    """The message that asks for the next page."""
    body: dict[str, Any] = {"reader": reader, "filter": encode(wanted), "ask": ask}
    if after is not None:
        body["after"] = position_to_json(after)
    return Message(topic=Topic.LOG_ASK, body=body)


def _message(reader: str, ask: int, page: Page) -> Message:
    body = {
        "reader": reader,
        "ask": ask,
        "records": [record_to_json(record) for record in page.records],
        "upto": position_to_json(page.upto),
        "more": page.more,
        "dropped": page.dropped,
    }
    return Message(topic=Topic.LOG, body=body)


def _reader(body: Mapping[str, Any]) -> str:
    reader = body.get("reader")
    if not isinstance(reader, str) or not 0 < len(reader) <= 64:
        raise InvalidInput("reader: must be a short text")
    return reader
