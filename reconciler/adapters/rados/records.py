"""How the store's state is written into the omap of one RADOS object; no I/O.

    v                   the version: `vcl-store/1 UID REVISION COMPACTED FENCE`, in ASCII
    k/KEY               a key: the revision at which it was last written, a space, its value
    l/REVISION          the change log: one entry per transaction since COMPACTED

Every write compares `v` with what its writer last read, and changes it. Invariant: no two different states
have the same version, since REVISION and FENCE only grow and UID is new for every object made.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from reconciler.resources.transactions import Change, KeyValue

VERSION_KEY = "v"
ITEM_PREFIX = "k/"
LOG_PREFIX = "l/"
_FORMAT = "vcl-store/1"
_VERSION = re.compile(rf"{re.escape(_FORMAT)} ([0-9a-f-]{{36}}) (\d+) (\d+) (\d+)", re.ASCII)


class NotAStore(ValueError):
    """The bytes are none that a store of this format wrote; the message says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """`compacted`: the log has the entries after this revision. `fence` grows when an unknown outcome is
    settled: the operation that was under way compares with the version before, and can never match."""

    uid: str
    revision: int = 0
    compacted: int = 0
    fence: int = 0

    def encode(self) -> str:
        """Always ASCII: `omap_cmp` compares wrongly outside of it."""
        return f"{_FORMAT} {self.uid} {self.revision} {self.compacted} {self.fence}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What one transaction did. `events` are sorted by key, each with `revision`."""

    revision: int
    txn_id: str
    events: tuple[Change, ...]

    @property
    def size(self) -> int:
        """Bytes that its values take."""
        return sum(len(event.value or b"") for event in self.events)


def decode_version(data: bytes) -> Version:
    """Raises NotAStore, also for the formats of later releases."""
    text = data.decode("ascii", "replace")
    found = _VERSION.fullmatch(text)
    if found is None:
        raise NotAStore(f"its version is {text[:60]!r}, and this release reads {_FORMAT}")
    uid, revision, compacted, fence = found.groups()
    return Version(uid=uid, revision=int(revision), compacted=int(compacted), fence=int(fence))


def item_key(key: str) -> str:
    return f"{ITEM_PREFIX}{key}"


def encode_item(item: KeyValue) -> bytes:
    return b"%d %s" % (item.revision, item.value)


def decode_item(name: str, data: bytes) -> KeyValue:
    """The inverse of item_key and encode_item. Raises NotAStore."""
    revision, space, value = data.partition(b" ")
    if not space or not revision.isdigit():
        raise NotAStore(f"the value of {name!r} is damaged")
    return KeyValue(key=name.removeprefix(ITEM_PREFIX), value=value, revision=int(revision))


def log_key(revision: int) -> str:
    """Sorts as the revisions do."""
    return f"{LOG_PREFIX}{revision:016d}"


def encode_entry(entry: Entry) -> bytes:
    """A line of JSON with the id and each key's size (null: deleted), then the values, one after another."""
    sizes = [[event.key, None if event.value is None else len(event.value)] for event in entry.events]
    header = json.dumps([entry.txn_id, sizes], separators=(",", ":")).encode("ascii")
    return b"\n".join([header, b"".join(event.value or b"" for event in entry.events)])


def decode_entry(name: str, data: bytes) -> Entry:
    """The inverse of log_key and encode_entry. Raises NotAStore."""
    header, _, values = data.partition(b"\n")
    events: list[Change] = []
    at = 0
    try:
        revision = int(name.removeprefix(LOG_PREFIX))
        txn_id, sizes = json.loads(header)
        for key, size in sizes:
            value = None if size is None else values[at : at + size]
            at += size or 0
            events.append(Change(key=key, value=value, revision=revision))
    except (ValueError, TypeError) as error:
        raise NotAStore(f"the log entry {name!r} is damaged ({error})") from error
    if at != len(values):
        raise NotAStore(f"the log entry {name!r} is damaged: {len(values)} bytes of values, not {at}")
    return Entry(revision=revision, txn_id=txn_id, events=tuple(events))
