"""One reader of the logs of all nodes: asks each for its pages, and puts them in one order.

Invariants: it holds one page for each node, however slow its user is, and a node that cannot be read holds
up the others for a bounded time; what is missing is said, once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from reconciler.loops.log_answers import LogLimits, question
from reconciler.loops.log_ring import LogRing, Page
from reconciler.planning.logmerge import Stream, release
from reconciler.ports.clock import Clock
from reconciler.ports.transport import Link, LinkState, Message, Topic, Transport
from reconciler.resources.errors import InvalidInput
from reconciler.resources.logrecords import (
    LogFilter,
    LogRecord,
    Position,
    position_from_json,
    record_from_json,
)


class NoticeKind(StrEnum):
    MISSING = "MISSING"
    """The node's log cannot be read."""
    BACK = "BACK"
    """It can be read again."""
    DROPPED = "DROPPED"
    """Records were gone before this reader came to them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogNotice:
    """What a reader must know besides the records. `count`: of records that were dropped."""

    kind: NoticeKind
    node: str
    message: str
    count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LogBatch:
    """What is new; nothing at a time-out. `ended`: there will be no more."""

    records: tuple[LogRecord, ...] = ()
    notices: tuple[LogNotice, ...] = ()
    ended: bool = False


@dataclass(slots=True, kw_only=True)
class _Source:
    """Where the reader is in one node's log. `asked`: when the question that is open was sent first, `sent`:
    when last. `current`: all that there was has been read. `down`: since when there is no link. `missing`: it
    is not waited for; `told`: and the user knows why."""

    since: float
    ceiling: str = ""
    records: tuple[LogRecord, ...] = ()
    after: Position | None = None
    ask: int = 0
    asked: float | None = None
    sent: float = 0.0
    current: bool = False
    down: float | None = None
    missing: bool = False
    told: bool = False

    @property
    def done(self) -> bool:
        """Nothing of it is to come or to be said, as far as is known."""
        return not self.records and (self.current or self.missing)


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """What readers share: this node's log, and the way to the others'. `nodes`: all those of the cluster."""

    node: str
    ring: LogRing
    clock: Clock
    transport: Transport | None
    limits: LogLimits
    nodes: Callable[[], frozenset[str]]


class LogReader:
    """Made by ClusterLog.read; used by one task."""

    def __init__(
        self, desk: Desk, id: str, wanted: LogFilter, loaded: asyncio.Event, forget: Callable[[str], None]
    ) -> None:
        self.id = id
        self._desk = desk
        self._wanted = wanted
        self._loaded = loaded
        self._forget = forget
        self._wake = asyncio.Event()
        self._sources: dict[str, _Source] = {}
        self._notices: list[LogNotice] = []
        self._history: deque[LogRecord] | None = (
            deque(maxlen=wanted.tail) if wanted.tail is not None else None
        )

    def wake(self) -> None:
        """This node has said something."""
        self._wake.set()

    def answered(self, sender: str, body: Mapping[str, Any]) -> None:
        """A page has come; one that was not asked for, or makes no sense, is left alone."""
        source = self._sources.get(sender)
        if source is None or source.asked is None or body.get("ask") != source.ask:
            return
        try:
            page = _page(sender, body, source.after)
        except InvalidInput:
            return
        source.asked = None
        self._turn(sender, source, page)
        self._wake.set()

    async def next(self, timeout: float) -> LogBatch:
        """What is new; waits up to `timeout` seconds for it."""
        clock = self._desk.clock
        deadline = clock.monotonic() + timeout
        await self._history_loaded()
        while True:
            self._wake.clear()
            now = clock.monotonic()
            self._look(now)
            batch, wake = self._take(now)
            if batch.records or batch.notices or batch.ended or now >= deadline:
                return batch
            if self._desk.transport is not None:
                wake = min(wake, now + self._desk.limits.look)
            await self._pause(min(wake, deadline) - now)

    def close(self) -> None:
        """Read no more."""
        self._forget(self.id)
        transport = self._desk.transport
        for node, source in self._sources.items():
            if transport is not None and source.asked is not None:
                transport.send(node, Message(topic=Topic.LOG_END, body={"reader": self.id}))
        self._sources.clear()

    async def _history_loaded(self) -> None:
        try:
            async with asyncio.timeout(self._desk.limits.patience):
                await self._loaded.wait()
        except TimeoutError:
            self._loaded.set()  # a disk that hangs: what is in memory is better than nothing

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(max(seconds, 0.0)):
                await self._wake.wait()
        except TimeoutError:
            return

    def _look(self, now: float) -> None:
        """Turn to every node of which nothing is held."""
        desk = self._desk
        nodes = desk.nodes()
        links = desk.transport.links() if desk.transport is not None else {}
        for gone in set(self._sources) - nodes:
            if not self._sources[gone].records:
                del self._sources[gone]
        for node in sorted(nodes):
            if self._wanted.node not in (None, node):
                continue
            source = self._sources.setdefault(node, _Source(since=now))
            if node == desk.node:
                self._look_here(source)
            else:
                self._look_there(node, source, links.get(node), now)

    def _look_here(self, source: _Source) -> None:
        limits = self._desk.limits
        finished = source.current and not self._wanted.follow
        if not source.records and not finished:
            page = self._desk.ring.page(self._wanted, source.after, records=limits.records, size=limits.size)
            self._turn(self._desk.node, source, page)

    def _look_there(self, node: str, source: _Source, link: Link | None, now: float) -> None:
        if source.current and not self._wanted.follow:
            return
        if link is None or link.state is not LinkState.CONNECTED:
            source.down = now if source.down is None else source.down
            brief = self._wanted.follow and now - source.down < self._desk.limits.grace
            why = f" ({link.reason})" if link is not None and link.reason else ""
            message = f"{node} is not connected: its log is missing{why}"
            self._miss(node, source, message, tell=not brief)
            return
        if source.records:
            return
        if source.asked is None or source.down is not None:
            source.ask += 1
            source.asked, source.sent = now, float("-inf")
            source.down, source.missing = None, False
        self._ask(node, source, now)
        if not source.current and now - source.asked >= self._desk.limits.patience:
            self._miss(node, source, f"{node} does not answer: its log is missing", tell=True)

    def _ask(self, node: str, source: _Source, now: float) -> None:
        """Ask, and again when nothing has come for long."""
        transport = self._desk.transport
        if transport is None or now - source.sent < self._desk.limits.renew:
            return
        if transport.send(node, question(self.id, self._wanted, source.ask, source.after)):
            source.sent = now

    def _miss(self, node: str, source: _Source, message: str, *, tell: bool) -> None:
        """Wait for it no more."""
        source.missing = True
        if tell and not source.told:
            source.told = True
            self._notices.append(LogNotice(kind=NoticeKind.MISSING, node=node, message=message))

    def _turn(self, node: str, source: _Source, page: Page) -> None:
        """The next page of the node's log is here."""
        clock = self._desk.clock
        if page.records or not source.current:
            source.since = clock.monotonic()
        source.ceiling = clock.wall()[:19] + ".999999Z"
        source.records, source.after, source.current = page.records, page.upto, not page.more
        if source.told:
            self._notices.append(
                LogNotice(kind=NoticeKind.BACK, node=node, message=f"{node}'s log is shown again")
            )
        source.missing, source.told = False, False
        if page.dropped:
            message = f"{page.dropped} records of {node} were dropped before they could be read"
            self._notices.append(
                LogNotice(kind=NoticeKind.DROPPED, node=node, message=message, count=page.dropped)
            )

    def _take(self, now: float) -> tuple[LogBatch, float]:
        """What can be said now, and when more can be although nothing comes."""
        streams = {node: self._stream(node, source) for node, source in self._sources.items()}
        waited = {
            node: stream for node, stream in streams.items() if stream.records or self._waited_for(node)
        }
        released = release(waited, now)
        for node, left in released.left.items():
            source = self._sources[node]
            if source.records and not left:
                source.since = now
                self._wake.set()  # ask for the next page before sleeping
            source.records = source.records[len(source.records) - left :]
        notices, self._notices = tuple(self._notices), []
        done = all(source.done for source in self._sources.values())
        ended = done and not self._wanted.follow
        batch = LogBatch(records=self._last(released.records, done), notices=notices, ended=ended)
        return batch, released.wake if released.wake is not None else float("inf")

    def _waited_for(self, node: str) -> bool:
        source = self._sources[node]
        return not source.missing and (self._wanted.follow or not source.current)

    def _stream(self, node: str, source: _Source) -> Stream:
        limits = self._desk.limits
        hold = limits.gather if node == self._desk.node else limits.hold
        return Stream(
            records=source.records,
            since=source.since,
            hold=hold if source.current else limits.patience,
            ceiling=source.ceiling,
        )

    def _last(self, records: tuple[LogRecord, ...], done: bool) -> tuple[LogRecord, ...]:
        """With a tail: only the last of what there was at the beginning, when all of it is there."""
        if self._history is None:
            return records
        self._history.extend(records)
        if not done:
            return ()
        last, self._history = tuple(self._history), None
        return last


def _page(sender: str, body: Mapping[str, Any], after: Position | None) -> Page:
    """The page in a message, without what is not the sender's, or not new. Raises InvalidInput."""
    raw, dropped = body.get("records"), body.get("dropped", 0)
    if not isinstance(raw, list | tuple) or not isinstance(dropped, int):
        raise InvalidInput("records: must be a list, and dropped a number")
    records: list[LogRecord] = []
    for item in raw:
        record = record_from_json(item)
        if record.node == sender and (after is None or record.position > after):
            records.append(record)
            after = record.position
    upto = position_from_json(body.get("upto"))
    more = body.get("more") is True
    return Page(
        records=tuple(records),
        upto=max(upto, after) if after is not None else upto,
        more=more,
        dropped=max(dropped, 0),
    )
