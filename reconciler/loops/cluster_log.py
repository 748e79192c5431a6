"""The log of the whole cluster: this node's part of it, and readers of all parts.

Invariants: memory is bounded by the ring, whoever reads; saying something returns at once and never fails;
without a mesh everything works for this one node. Nothing here logs what it does with each record: that would
be a record in its turn.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from reconciler.loops.log_answers import LogAnswers, LogLimits
from reconciler.loops.log_reader import Desk, LogReader
from reconciler.loops.log_ring import RECORDS, LogRing
from reconciler.ports.clock import Clock
from reconciler.ports.log_archive import LogArchive
from reconciler.ports.transport import Message, Topic, Transport
from reconciler.resources.errors import NotFound, VclError
from reconciler.resources.logrecords import LogEntry, LogFilter, LogRecord

log = logging.getLogger(__name__)

REMEMBERED = RECORDS // 2
"""Records of earlier runs that are read back at the start, at most."""


class ClusterLog:
    """`add` from the event loop's thread only; `run` answers other nodes until it is cancelled.

    `archive` keeps the records and brings back those of earlier runs. `members`: the names of all configured
    nodes, also of those that this one has no link to.
    """

    def __init__(
        self,
        node: str,
        session: int,
        clock: Clock,
        transport: Transport | None = None,
        *,
        archive: LogArchive | None = None,
        members: Callable[[], Iterable[str]] = tuple,
        ring: LogRing | None = None,
        limits: LogLimits | None = None,
    ) -> None:
        self._node = node
        self._session = session
        self._sequence = 0
        self._transport = transport
        self._archive = archive
        self._members = members
        self._ring = ring if ring is not None else LogRing()
        self._limits = limits or LogLimits()
        self._answers = (
            LogAnswers(self._ring, clock, transport, self._limits) if transport is not None else None
        )
        self._desk = Desk(
            node=node,
            ring=self._ring,
            clock=clock,
            transport=transport,
            limits=self._limits,
            nodes=self.nodes,
        )
        self._readers: dict[str, LogReader] = {}
        self._made = 0
        self._loaded = asyncio.Event()
        self._wake = asyncio.Event()

    def add(self, entry: LogEntry) -> None:
        """Say something."""
        self._sequence += 1
        record = LogRecord(
            node=self._node,
            session=self._session,
            sequence=self._sequence,
            time=entry.time,
            level=entry.level,
            logger=entry.logger,
            message=entry.message,
            vm=entry.vm,
        )
        self._ring.append(record)
        if self._archive is not None:
            self._archive.write(record)
        for reader in self._readers.values():
            reader.wake()
        if self._answers is not None and len(self._answers):
            self._wake.set()

    def nodes(self) -> frozenset[str]:
        """The names of all nodes that there are logs of."""
        links = self._transport.links() if self._transport is not None else {}
        return frozenset({self._node, *links, *self._members()})

    def read(self, wanted: LogFilter) -> LogReader:
        """A reader from where the filter begins; `close` it. Raises NotFound for a node that there is not."""
        nodes = self.nodes()
        if wanted.node is not None and wanted.node not in nodes:
            raise NotFound(f"there is no node '{wanted.node}'", cure=f"there are {', '.join(sorted(nodes))}")
        self._made += 1
        id = f"{self._session}-{self._made}"
        reader = LogReader(self._desk, id, wanted, self._loaded, self._forget)
        self._readers[id] = reader
        return reader

    async def run(self) -> None:
        """Read back what earlier runs said, then answer other nodes until cancelled."""
        await self._load()
        undo = self._transport.listen(self._heard) if self._transport is not None else None
        try:
            while True:
                await self._wake.wait()
                await asyncio.sleep(self._limits.gather)
                self._wake.clear()
                if self._answers is not None and not self._answers.pump():
                    await asyncio.sleep(self._limits.look)
                    self._wake.set()
        finally:
            if undo is not None:
                undo()

    async def _load(self) -> None:
        if self._archive is not None and not self._loaded.is_set():
            try:
                kept = await self._archive.load(REMEMBERED)
            except VclError as error:
                log.warning("log: what was said before this start is not shown: %s", error)
            else:
                # A store that was made anew counts sessions anew: positions must grow all the same.
                self._ring.prepend(r for r in kept if r.node == self._node and r.session < self._session)
        self._loaded.set()

    def _heard(self, sender: str, message: Message) -> None:
        body = message.body
        match message.topic:
            case Topic.LOG_ASK if self._answers is not None:
                self._answers.asked(sender, body)
            case Topic.LOG_END if self._answers is not None:
                self._answers.ended(sender, body)
            case Topic.LOG:
                reader = self._readers.get(str(body.get("reader", "")))
                if reader is not None:
                    reader.answered(sender, body)

    def _forget(self, id: str) -> None:
        self._readers.pop(id, None)
