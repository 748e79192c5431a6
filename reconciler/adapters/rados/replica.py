"""The store's state in memory, and drafts of the next one; no I/O.

A replica is exactly what the object held at its version: it is loaded once and then follows the change log.
A draft puts transactions on top of it without changing it. Only when the object accepted the draft - which
compares the replica's version - does the replica take it over.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from reconciler.adapters.rados.records import Entry, Version
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
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much of the past is kept: about `revisions` transactions and `bytes` of values."""

    revisions: int
    bytes: int


class Replica:
    """What is known, at `version`. Belongs to one thread."""

    def __init__(self, version: Version, items: Iterable[KeyValue]) -> None:
        self.version = version
        self._items = {item.key: item for item in items}
        self._entries: list[Entry] = []
        self._ids: dict[str, int] = {}
        self.log_bytes = 0

    def item(self, key: str) -> KeyValue | None:
        return self._items.get(key)

    def revision_of(self, txn_id: str) -> int | None:
        """The revision that this transaction made, if the log still says so."""
        return self._ids.get(txn_id)

    def txn_at(self, revision: int) -> str | None:
        """See Store.txn_at."""
        at = revision - self.version.compacted - 1
        return self._entries[at].txn_id if 0 <= at < len(self._entries) else None

    def get(self, keys: Sequence[str]) -> dict[str, KeyValue]:
        """See Store.get."""
        return {key: self._items[key] for key in keys if key in self._items}

    def listing(self, prefix: str) -> Listing:
        """See Store.list."""
        found = sorted(key for key in self._items if key.startswith(prefix))
        return Listing(items=tuple(self._items[key] for key in found), revision=self.version.revision)

    def changes(self, since: int) -> WatchResult:
        """What Store.watch would answer at once."""
        version = self.version
        if not version.compacted <= since <= version.revision:
            return Compacted(revision=version.revision)
        entries = self._entries[since - version.compacted :]
        events = tuple(event for entry in entries for event in entry.events)
        return Changes(events=events, revision=version.revision)

    def advance(self, version: Version, entries: Sequence[Entry]) -> None:
        """Go on to `version` by the entries in between (none missing), and forget what it has compacted."""
        for entry in entries:
            if entry.revision != self.version.revision + 1:
                raise ValueError(f"entry {entry.revision} does not follow {self.version.revision}")
            self._take(entry)
        if version.revision != self.version.revision:
            raise ValueError(f"the log ends at {self.version.revision}, not {version.revision}")
        self._forget(version.compacted - self.version.compacted)
        self.version = version

    def bytes_upto(self, revision: int) -> int:
        """Bytes of values in the log up to this revision."""
        return sum(entry.size for entry in self._entries[: max(0, revision - self.version.compacted)])

    def _take(self, entry: Entry) -> None:
        for event in entry.events:
            if event.value is None:
                self._items.pop(event.key, None)
            else:
                self._items[event.key] = KeyValue(key=event.key, value=event.value, revision=event.revision)
        self._entries.append(entry)
        self._ids[entry.txn_id] = entry.revision
        self.log_bytes += entry.size
        self.version = replace(self.version, revision=entry.revision)

    def _forget(self, count: int) -> None:
        for entry in self._entries[:count]:
            del self._ids[entry.txn_id]
            self.log_bytes -= entry.size
        del self._entries[:count]


class Draft:
    """Transactions and resolutions on top of a replica, in order."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._items: dict[str, KeyValue | None] = {}
        self._ids: dict[str, int] = {}
        self.entries: list[Entry] = []
        self.fenced = False

    @property
    def changed(self) -> bool:
        """Whether there is anything to write."""
        return bool(self.entries) or self.fenced

    @property
    def items(self) -> Mapping[str, KeyValue | None]:
        """What becomes of the keys that it touches; None: deleted."""
        return self._items

    def apply(self, txn: Txn) -> TxnResult:
        """The answer, which holds once the draft is accepted. See Store.txn."""
        if (earlier := self._ids.get(txn.id) or self._replica.revision_of(txn.id)) is not None:
            return Committed(revision=earlier)
        failed = {each.key for each in txn.compares if self._written_at(each.key) != each.revision}
        if failed:
            return Conflict(keys=tuple(sorted(failed)))
        if txn.puts or txn.deletes:
            self._write(txn)
        return Committed(revision=self._revision)

    def resolve(self, txn_id: str, *, after: int) -> Resolution:
        """The answer, which holds once the draft is accepted: a NotApplied raises the fence, so that the
        operation that was under way can never match. The id cannot have committed up to revision `after`."""
        if (earlier := self._ids.get(txn_id) or self._replica.revision_of(txn_id)) is not None:
            return Committed(revision=earlier)
        if self._replica.version.compacted > after:
            return Unresolved()
        self.fenced = True
        return NotApplied()

    def version(self, limits: Limits) -> Version:
        """The version after it: the log is cut when it is past its limits (and an eighth, so that it is
        rare)."""
        base = self._replica.version
        revision, compacted = self._revision, base.compacted
        size = self._replica.log_bytes + sum(entry.size for entry in self.entries)
        if revision - compacted > limits.revisions + max(1, limits.revisions // 8):
            compacted = revision - limits.revisions
        elif size > limits.bytes:
            compacted = max(compacted, min((compacted + revision + 1) // 2, revision - 1))
        fence = base.fence + self.fenced
        return replace(base, revision=revision, compacted=compacted, fence=fence)

    @property
    def _revision(self) -> int:
        return self._replica.version.revision + len(self.entries)

    def _current(self, key: str) -> KeyValue | None:
        return self._items[key] if key in self._items else self._replica.item(key)

    def _written_at(self, key: str) -> int:
        item = self._current(key)
        return item.revision if item else 0

    def _write(self, txn: Txn) -> None:
        revision = self._revision + 1
        events = [Change(key=put.key, value=put.value, revision=revision) for put in txn.puts]
        events += [
            Change(key=key, value=None, revision=revision)
            for key in txn.deletes
            if self._current(key) is not None
        ]
        for event in events:
            self._items[event.key] = (
                None if event.value is None else KeyValue(key=event.key, value=event.value, revision=revision)
            )
        events.sort(key=lambda event: event.key)
        self.entries.append(Entry(revision=revision, txn_id=txn.id, events=tuple(events)))
        self._ids[txn.id] = revision
