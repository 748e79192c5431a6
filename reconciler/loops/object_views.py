"""Merged objects as the read model hands them out, with their JSON made at most once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reconciler.planning import tables
from reconciler.planning.tables import Surroundings
from reconciler.resources.kinds import API_VERSION, Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What a reader knows of an object: which one it is, which version, and how it was labelled. `seen`: what
    it knows that is not in the store and so has no version."""

    uid: str
    version: str
    labels: Mapping[str, str]
    seen: str = ""


class ObjectView:
    """One merged object, with its JSON made at most once."""

    __slots__ = ("_json", "_row", "kind", "name", "object", "seen")

    def __init__(self, kind: Kind, name: str, merged: Mapping[str, Any], seen: str = "") -> None:
        self.kind = kind
        self.name = name
        self.object = merged
        self.seen = seen
        self._json: bytes | None = None
        self._row: bytes | None = None

    @property
    def labels(self) -> Mapping[str, str]:
        labels: Mapping[str, str] = self.object["metadata"].get("labels") or {}
        return labels

    def known(self) -> Known:
        """What one who was told of this object knows."""
        metadata = self.object["metadata"]
        return Known(
            uid=str(metadata.get("uid", "")),
            version=metadata.get("resourceVersion", ""),
            labels=self.labels,
            seen=self.seen,
        )

    def json(self) -> bytes:
        """The object as compact JSON."""
        if self._json is None:
            self._json = dump_json(self.object)
        return self._json

    def row(self, around: Surroundings) -> bytes:
        """Its row in a table, as compact JSON."""
        if not tables.self_contained(self.kind):
            return dump_json(tables.row(self.object, around))
        if self._row is None:
            self._row = dump_json(tables.row(self.object, around))
        return self._row


def dump_json(value: Any) -> bytes:
    """Compact JSON; text that is no Unicode (lone surrogates) is escaped."""
    try:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":")).encode()


def unseen(kind: Kind, name: str, uid: str = "") -> ObjectView:
    """Stands for an object that went before anybody looked at it."""
    metadata = {"name": name, "uid": uid} if uid else {"name": name}
    merged = {"apiVersion": API_VERSION, "kind": kind.value, "metadata": metadata, "spec": {}, "status": {}}
    return ObjectView(kind, name, merged)
