"""What a store holds and what a plan writes: key-values, compares, transactions and their outcomes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from reconciler.resources.errors import InvalidInput

MAX_KEY = 512
_KEY = re.compile(rf"[ -~]{{1,{MAX_KEY}}}")
_PREFIX = re.compile(rf"[ -~]{{0,{MAX_KEY}}}")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyValue:
    """`revision` is the store's revision at which this key was last written (>= 1)."""

    key: str
    value: bytes
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A consistent snapshot of a prefix, sorted by key, as of the store's `revision`."""

    items: tuple[KeyValue, ...]
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Compare:
    """Holds when `key` was last written at `revision`; 0 means that it must not exist."""

    key: str
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Put:
    key: str
    value: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Txn:
    """All `compares` hold -> all `puts` and `deletes` happen at one new revision; else nothing does.

    `id` is unique for ever; the store's change log keeps it so that an unknown outcome can be resolved
    (SAFETY rule 2). A transaction with an id that the log already has is answered, not applied again.
    One without puts and deletes only checks: Committed at the store's revision, which stays, and the log
    does not keep its id. Deleting a key that does not exist changes nothing about that key.
    """

    id: str
    compares: tuple[Compare, ...] = ()
    puts: tuple[Put, ...] = ()
    deletes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """The transaction was applied at `revision`."""

    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """Nothing was applied; `keys` are the compares that did not hold, sorted."""

    keys: tuple[str, ...]


TxnResult = Committed | Conflict


@dataclass(frozen=True, slots=True, kw_only=True)
class NotApplied:
    """The transaction did not happen and never will."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unresolved:
    """The change log was trimmed past the id: still unknown."""


Resolution = Committed | NotApplied | Unresolved


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One key's change; `value` is None for a deletion."""

    key: str
    value: bytes | None
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """Every change after the asked revision up to `revision`, oldest first; may be empty at a time-out."""

    events: tuple[Change, ...]
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Compacted:
    """The change log no longer reaches back that far: list again. `revision` is the current one."""

    revision: int


WatchResult = Changes | Compacted


def check_key(key: str) -> None:
    """Raise InvalidInput unless `key` is 1 to 512 printable ASCII characters."""
    if not _KEY.fullmatch(key):
        raise InvalidInput(_bad("key", key), cure=f"use 1 to {MAX_KEY} printable ASCII characters")


def check_prefix(prefix: str) -> None:
    """Raise InvalidInput unless `prefix` can begin a key; it may be empty."""
    if not _PREFIX.fullmatch(prefix):
        raise InvalidInput(
            _bad("key prefix", prefix), cure=f"use at most {MAX_KEY} printable ASCII characters"
        )


def check_txn(txn: Txn) -> None:
    """Raise InvalidInput for a transaction that no store could apply: every store refuses the same ones."""
    if not _KEY.fullmatch(txn.id):
        raise InvalidInput(_bad("transaction id", txn.id), cure="use a new UUID")
    written = [*(put.key for put in txn.puts), *txn.deletes]
    for key in (*(compare.key for compare in txn.compares), *written):
        check_key(key)
    for compare in txn.compares:
        if compare.revision < 0:
            raise InvalidInput(f"the compare of {compare.key!r} has a revision below 0: {compare.revision}")
    if twice := _repeated(written):
        raise InvalidInput(f"the transaction writes {', '.join(map(repr, twice))} more than once")


def _bad(what: str, value: str) -> str:
    shown = value if len(value) <= 80 else f"{value[:77]}..."
    return f"{shown!r} is no {what} ({len(value)} characters)"


def _repeated(keys: Iterable[str]) -> list[str]:
    return sorted(key for key, count in Counter(keys).items() if count > 1)
