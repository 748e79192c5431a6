"""The store's semantics in SQL, on one connection inside one SQLite transaction; no threads, no commits.

kv holds what is, changes what happened since `compacted`, txns which transaction made which revision (for
the same stretch), and meta the counters. One transaction of ours makes exactly one revision.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

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

_AFTER_ALL_KEYS = "\x7f"
"""Sorts after every character that a key may hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much of the past is kept: about `revisions` transactions and `bytes` of values, and always the
    last one."""

    revisions: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Meta:
    """The counters. `compacted`: changes up to this revision are gone. `fence` only grows: committing a
    new value proves that no earlier, failed commit can still come true."""

    revision: int
    compacted: int
    log_bytes: int
    fence: int


@contextmanager
def snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    """Everything read inside is of one revision."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def read_meta(connection: sqlite3.Connection) -> Meta:
    row = connection.execute("SELECT revision, compacted, log_bytes, fence FROM meta").fetchone()
    return Meta(revision=row[0], compacted=row[1], log_bytes=row[2], fence=row[3])


def write_meta(connection: sqlite3.Connection, meta: Meta) -> None:
    connection.execute(
        "UPDATE meta SET revision = ?, compacted = ?, log_bytes = ?, fence = ?",
        (meta.revision, meta.compacted, meta.log_bytes, meta.fence),
    )


def apply(connection: sqlite3.Connection, meta: Meta, txn: Txn) -> tuple[TxnResult, Meta]:
    """One transaction on top of `meta`; unchanged meta means that nothing was written."""
    if (earlier := _revision_of_txn(connection, txn.id)) is not None:
        return Committed(revision=earlier), meta
    failed = {
        compare.key for compare in txn.compares if _revision_of(connection, compare.key) != compare.revision
    }
    if failed:
        return Conflict(keys=tuple(sorted(failed))), meta
    if not txn.puts and not txn.deletes:
        return Committed(revision=meta.revision), meta
    revision = meta.revision + 1
    connection.execute("INSERT INTO txns (revision, id) VALUES (?, ?)", (revision, txn.id))
    changes = [(revision, put.key, put.value) for put in txn.puts]
    for _, key, value in changes:
        connection.execute(
            "INSERT INTO kv (key, revision, value) VALUES (?, ?, ?)"
            " ON CONFLICT (key) DO UPDATE SET revision = excluded.revision, value = excluded.value",
            (key, revision, value),
        )
    deleted = [key for key in txn.deletes if _delete(connection, key)]
    rows = sorted([*changes, *((revision, key, None) for key in deleted)], key=lambda row: row[1])
    connection.executemany("INSERT INTO changes (revision, key, value) VALUES (?, ?, ?)", rows)
    size = sum(len(put.value) for put in txn.puts)
    return Committed(revision=revision), replace(meta, revision=revision, log_bytes=meta.log_bytes + size)


def compact(connection: sqlite3.Connection, meta: Meta, limits: Limits) -> Meta:
    """Forget the oldest changes when there are more than the limits (and an eighth, so that it is rare)."""
    slack = max(1, limits.revisions // 8)
    if meta.revision - meta.compacted > limits.revisions + slack:
        return trim(connection, meta, meta.revision - limits.revisions)
    if meta.log_bytes > limits.bytes:
        return trim(connection, meta, (meta.compacted + meta.revision) // 2)
    return meta


def trim(connection: sqlite3.Connection, meta: Meta, upto: int) -> Meta:
    """Forget the changes and ids up to revision `upto`."""
    if upto <= meta.compacted:
        return meta
    found = connection.execute("SELECT total(length(value)) FROM changes WHERE revision <= ?", (upto,))
    freed = int(found.fetchone()[0])
    connection.execute("DELETE FROM changes WHERE revision <= ?", (upto,))
    connection.execute("DELETE FROM txns WHERE revision <= ?", (upto,))
    return replace(meta, compacted=upto, log_bytes=max(0, meta.log_bytes - freed))


def resolve(
    connection: sqlite3.Connection, meta: Meta, txn_id: str, *, after: int
) -> tuple[Resolution, Meta]:
    """What became of an id that can only have committed after revision `after`.

    Changed meta (a raised fence) must be committed before the answer counts.
    """
    if (revision := _revision_of_txn(connection, txn_id)) is not None:
        return Committed(revision=revision), meta
    if meta.compacted > after:
        return Unresolved(), meta
    return NotApplied(), replace(meta, fence=meta.fence + 1)


def get(connection: sqlite3.Connection, keys: Sequence[str]) -> dict[str, KeyValue]:
    found = {}
    with snapshot(connection):
        for key in keys:
            row = connection.execute("SELECT revision, value FROM kv WHERE key = ?", (key,)).fetchone()
            if row is not None:
                found[key] = KeyValue(key=key, value=row[1], revision=row[0])
    return found


def listing(connection: sqlite3.Connection, prefix: str) -> Listing:
    with snapshot(connection):
        revision = read_meta(connection).revision
        rows = connection.execute(
            "SELECT key, revision, value FROM kv WHERE key >= ? AND key < ? ORDER BY key",
            (prefix, prefix + _AFTER_ALL_KEYS),
        ).fetchall()
    items = tuple(KeyValue(key=key, value=value, revision=written) for key, written, value in rows)
    return Listing(items=items, revision=revision)


def changes_since(connection: sqlite3.Connection, since: int) -> WatchResult:
    with snapshot(connection):
        meta = read_meta(connection)
        if since < meta.compacted or since > meta.revision:
            return Compacted(revision=meta.revision)
        rows = connection.execute(
            "SELECT key, value, revision FROM changes WHERE revision > ? ORDER BY revision, id", (since,)
        ).fetchall()
    events = tuple(Change(key=key, value=value, revision=revision) for key, value, revision in rows)
    return Changes(events=events, revision=meta.revision)


def txn_at(connection: sqlite3.Connection, revision: int) -> str | None:
    """See Store.txn_at."""
    row = connection.execute("SELECT id FROM txns WHERE revision = ?", (revision,)).fetchone()
    return row[0] if row else None


def data_version(connection: sqlite3.Connection) -> int:
    """Differs from the last answer on this connection when any other connection has committed."""
    version: int = connection.execute("PRAGMA data_version").fetchone()[0]
    return version


def _revision_of(connection: sqlite3.Connection, key: str) -> int:
    row = connection.execute("SELECT revision FROM kv WHERE key = ?", (key,)).fetchone()
    return row[0] if row else 0


def _revision_of_txn(connection: sqlite3.Connection, txn_id: str) -> int | None:
    row = connection.execute("SELECT revision FROM txns WHERE id = ?", (txn_id,)).fetchone()
    return row[0] if row else None


def _delete(connection: sqlite3.Connection, key: str) -> bool:
    return connection.execute("DELETE FROM kv WHERE key = ?", (key,)).rowcount > 0
