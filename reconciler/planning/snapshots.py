"""Reading a snapshot of the store for people to look at: one merged object is made from many records.

Invariant: a record that cannot be read never hides the others. It is left out, and `unreadable` names it, so
that the merged object can say so.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Protocol, TypeVar

from reconciler.resources.codec import decode
from reconciler.resources.errors import InvalidInput
from reconciler.resources.transactions import KeyValue

T = TypeVar("T")


class Snapshot(Protocol):
    """The store at one revision; StoreCache is one."""

    def get(self, key: str) -> KeyValue | None:
        """The key's value and revision, or None."""
        ...

    def prefix(self, prefix: str) -> Iterable[KeyValue]:
        """All keys that start with it, sorted."""
        ...


class Reader:
    """Reads records of one object, and remembers the highest revision among them."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self.revision = 0
        self.unreadable: list[str] = []

    def aside(self) -> Reader:
        """A reader of the same snapshot, for records that are not part of the object."""
        return Reader(self._snapshot)

    def exists(self, key: str) -> bool:
        """Whether the store has the key; it does not count for the revision."""
        return self._snapshot.get(key) is not None

    def raw(self, key: str) -> dict[str, Any] | None:
        """The record as JSON-shaped data, or None when there is none or it cannot be read."""
        item = self._snapshot.get(key)
        if item is None:
            return None
        self.revision = max(self.revision, item.revision)
        try:
            data = json.loads(item.value)
        except ValueError:
            data = None
        if isinstance(data, dict):
            return data
        self.unreadable.append(key)
        return None

    def under(self, prefix: str) -> tuple[str, ...]:
        """The keys that start with it, sorted; they do not count for the revision."""
        return tuple(item.key for item in self._snapshot.prefix(prefix))

    def record(self, key: str, cls: type[T]) -> T | None:
        """The record as a value, or None when there is none or it cannot be read."""
        data = self.raw(key)
        return None if data is None else self.decoded(key, cls, data)

    def decoded(self, key: str, cls: type[T], data: Mapping[str, Any]) -> T | None:
        """`data`, which was read from `key`, as a value; None when it does not fit."""
        try:
            return decode(cls, data)
        except InvalidInput:
            self.unreadable.append(key)
            return None
