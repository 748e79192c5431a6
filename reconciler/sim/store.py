"""MemoryStore: the store's twin for tests and simulations, with faults on request.

`MemoryCluster` is what survives (the data, the log); a `MemoryStore` is one node's way to it, with its own
faults. Time is the event loop's, so it runs on virtual time as well. It is nastier than the real stores on
purpose: a write whose outcome is unknown may land after other transactions, until `resolve` fences it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from reconciler.resources.errors import OutcomeUnknown, StoreUnavailable
from reconciler.resources.transactions import (
    Change,
    Changes,
    Committed,
    Compacted,
    Conflict,
    KeyValue,
    Listing,
    NotApplied,
    Resolution,
    Txn,
    TxnResult,
    Unresolved,
    WatchResult,
    check_key,
    check_prefix,
    check_txn,
)


class TxnFault(StrEnum):
    """What may go wrong with one transaction."""

    REFUSED = "Refused"
    """StoreUnavailable, no effect."""
    LOST = "Lost"
    """OutcomeUnknown, and it never happens."""
    APPLIED = "Applied"
    """OutcomeUnknown, and it has happened."""
    LATE = "Late"
    """OutcomeUnknown, and it happens when `MemoryCluster.land` is called, unless resolved before."""


Matcher = Callable[[Txn], bool]


def any_txn(_: Txn) -> bool:
    """Matches every transaction."""
    return True


def touching(prefix: str) -> Matcher:
    """Matches transactions that put or delete a key with this prefix."""
    return lambda txn: any(key.startswith(prefix) for key in (*(put.key for put in txn.puts), *txn.deletes))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Armed:
    fault: TxnFault
    when: Matcher


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """What a person may put back later: all keys, and the log, which the real stores keep beside them."""

    items: Mapping[str, KeyValue]
    revision: int
    compacted: int
    log: tuple[Changes, ...]
    txns: Mapping[str, int]


class MemoryCluster:
    """The state behind every MemoryStore that is connected to it. `log_size`: transactions kept."""

    def __init__(self, *, log_size: int = 10_000) -> None:
        self._log_size = log_size
        self._items: dict[str, KeyValue] = {}
        self._log: list[Changes] = []
        self._txns: dict[str, int] = {}
        self._late: dict[str, Txn] = {}
        self._asked_at: dict[str, int] = {}
        self._moved = asyncio.Event()
        self.judges: list[Callable[[Txn, TxnResult], None]] = []
        """Told of each transaction that arrived, after it was committed or refused."""
        self.revision = 0
        self.compacted = 0

    def get(self, keys: Sequence[str]) -> dict[str, KeyValue]:
        """The keys that exist."""
        return {key: self._items[key] for key in keys if key in self._items}

    def list(self, prefix: str) -> Listing:
        """Every key with the prefix, sorted."""
        items = sorted((item for item in self._items.values() if item.key.startswith(prefix)), key=_key)
        return Listing(items=tuple(items), revision=self.revision)

    def apply(self, txn: Txn) -> TxnResult:
        """Commit it now, or say why not."""
        if txn.id in self._txns:
            return Committed(revision=self._txns[txn.id])
        result = self._decide(txn)
        for judge in self.judges:
            judge(txn, result)
        return result

    def _decide(self, txn: Txn) -> TxnResult:
        failed = {each.key for each in txn.compares if self._revision_of(each.key) != each.revision}
        if failed:
            return Conflict(keys=tuple(sorted(failed)))
        if txn.puts or txn.deletes:
            self._write(txn)
        return Committed(revision=self.revision)

    def changes(self, since: int) -> WatchResult:
        """What `watch` would return at once."""
        if not self.compacted <= since <= self.revision:
            return Compacted(revision=self.revision)
        fresh = self._log[since - self.compacted :]
        events = tuple(event for entry in fresh for event in entry.events)
        return Changes(events=events, revision=self.revision)

    def compact(self, upto: int) -> None:
        """Forget the log up to and including revision `upto`."""
        self.compacted = max(self.compacted, min(upto, self.revision))
        self._log = [entry for entry in self._log if entry.revision > self.compacted]
        self._txns = {id: revision for id, revision in self._txns.items() if revision > self.compacted}

    def backup(self) -> Backup:
        """Everything, as it is now."""
        return Backup(
            items=dict(self._items),
            revision=self.revision,
            compacted=self.compacted,
            log=tuple(self._log),
            txns=dict(self._txns),
        )

    def restore(self, backup: Backup) -> None:
        """Everything, as it was then: what came later never was."""
        self._items, self.revision, self.compacted = dict(backup.items), backup.revision, backup.compacted
        self._log, self._txns, self._late, self._asked_at = list(backup.log), dict(backup.txns), {}, {}
        self.wake()

    def note(self, txn_id: str, since: int | None = None) -> None:
        """The outcome of this id will be unknown; it cannot have committed before now (or `since`)."""
        self._asked_at.setdefault(txn_id, self.revision if since is None else since)

    def postpone(self, txn: Txn) -> None:
        """Keep it for `land`."""
        self._late[txn.id] = txn

    def land(self) -> tuple[TxnResult, ...]:
        """Apply the late transactions, in the order in which they were sent; each still compares."""
        late, self._late = self._late, {}
        return tuple(self.apply(txn) for txn in late.values())

    def resolve(self, txn_id: str) -> Resolution:
        """The outcome; NotApplied makes sure of itself by dropping a late transaction."""
        if txn_id in self._txns:
            return Committed(revision=self._txns[txn_id])
        if self.compacted > self._asked_at.get(txn_id, 0):
            return Unresolved()
        self._late.pop(txn_id, None)
        return NotApplied()

    def txn_at(self, revision: int) -> str | None:
        """The id that made it, if the log has it."""
        return next((id for id, made in reversed(self._txns.items()) if made == revision), None)

    async def wait(self, seconds: float) -> None:
        """Return after the next commit or `wake`, or after that many seconds."""
        try:
            async with asyncio.timeout(seconds):
                await self._moved.wait()
        except TimeoutError:
            return

    def wake(self) -> None:
        """Make every `wait` return."""
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    def _revision_of(self, key: str) -> int:
        item = self._items.get(key)
        return item.revision if item else 0

    def _write(self, txn: Txn) -> None:
        self.revision += 1
        self._txns[txn.id] = self.revision
        events = [Change(key=put.key, value=put.value, revision=self.revision) for put in txn.puts]
        for put in txn.puts:
            self._items[put.key] = KeyValue(key=put.key, value=put.value, revision=self.revision)
        for key in txn.deletes:
            if self._items.pop(key, None) is not None:
                events.append(Change(key=key, value=None, revision=self.revision))
        self._log.append(Changes(events=tuple(sorted(events, key=_key)), revision=self.revision))
        if len(self._log) > self._log_size:
            self.compact(self.revision - self._log_size)
        self.wake()


class MemoryStore:
    """One node's way to a MemoryCluster; implements the Store port.

    Faults: set `down` (nothing is reached: StoreUnavailable when the deadline has passed), `slow` (seconds
    before each call arrives), and `arm` for single transactions.
    """

    def __init__(self, cluster: MemoryCluster | None = None, *, log_size: int = 10_000) -> None:
        self.cluster = cluster if cluster is not None else MemoryCluster(log_size=log_size)
        self.down = False
        self.slow = 0.0
        self._armed: list[_Armed] = []
        self._closed = False

    def arm(self, fault: TxnFault, *, count: int = 1, when: Matcher = any_txn) -> None:
        """The next `count` transactions that match get the fault."""
        self._armed.extend([_Armed(fault=fault, when=when)] * count)

    async def get(self, keys: Sequence[str], *, timeout: float = 2.0) -> Mapping[str, KeyValue]:
        """See Store.get."""
        for key in keys:
            check_key(key)
        await self._arrive(timeout)
        return self.cluster.get(keys)

    async def list(self, prefix: str, *, timeout: float = 2.0) -> Listing:
        """See Store.list."""
        check_prefix(prefix)
        await self._arrive(timeout)
        return self.cluster.list(prefix)

    async def txn(self, txn: Txn, *, timeout: float = 2.0) -> TxnResult:
        """See Store.txn."""
        check_txn(txn)
        await self._arrive(timeout)
        fault = self._fault_for(txn)
        if fault is None:
            return self.cluster.apply(txn)
        if fault is TxnFault.REFUSED:
            raise StoreUnavailable("the store refused the transaction", cure="try again")
        self.cluster.note(txn.id)
        if fault is TxnFault.LATE:
            self.cluster.postpone(txn)
        elif fault is TxnFault.APPLIED:
            self.cluster.apply(txn)
        raise OutcomeUnknown("the store did not answer in time", txn_id=txn.id)

    async def watch(self, since: int, *, timeout: float) -> WatchResult:
        """See Store.watch."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        await self._arrive(max(timeout, 2.0))
        while True:
            result = self.cluster.changes(since)
            if isinstance(result, Compacted) or result.events or loop.time() >= deadline:
                return result
            since = result.revision
            await self.cluster.wait(deadline - loop.time())
            self._require_reachable()

    async def resolve(self, txn_id: str, *, timeout: float = 2.0) -> Resolution:
        """See Store.resolve."""
        await self._arrive(timeout)
        return self.cluster.resolve(txn_id)

    async def txn_at(self, revision: int, *, timeout: float = 2.0) -> str | None:
        """See Store.txn_at."""
        await self._arrive(timeout)
        return self.cluster.txn_at(revision)

    async def close(self) -> None:
        """See Store.close."""
        self._closed = True
        self.cluster.wake()

    def _fault_for(self, txn: Txn) -> TxnFault | None:
        for armed in self._armed:
            if armed.when(txn):
                self._armed.remove(armed)
                return armed.fault
        return None

    async def _arrive(self, timeout: float) -> None:
        """The way to the store: a turn of the event loop at least, or all the time there is."""
        if self._closed:
            raise StoreUnavailable("the store is closed")
        lost = self.down or self.slow >= timeout
        await asyncio.sleep(timeout if lost else self.slow)
        if lost:
            raise StoreUnavailable(f"the store did not answer within {timeout:g} s")
        self._require_reachable()

    def _require_reachable(self) -> None:
        if self._closed:
            raise StoreUnavailable("the store is closed")
        if self.down:
            raise StoreUnavailable("the store cannot be reached")


def _key(item: KeyValue | Change) -> str:
    return item.key
