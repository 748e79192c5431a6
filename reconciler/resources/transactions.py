"""What a store holds and what a plan writes: key-values, compares, transactions and their outcomes."""

from __future__ import annotations

from dataclasses import dataclass


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
