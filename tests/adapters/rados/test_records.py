"""How state is written into an object, and read back or refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.adapters.rados.records import (
    Entry,
    NotAStore,
    Version,
    decode_entry,
    decode_item,
    decode_version,
    encode_entry,
    encode_item,
    item_key,
    log_key,
)
from reconciler.resources.transactions import Change, KeyValue

UID = "01234567-89ab-cdef-0123-456789abcdef"
KEYS = st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=20)
REVISIONS = st.integers(min_value=1, max_value=10**15)


@given(REVISIONS, REVISIONS, REVISIONS)
def test_a_version_is_read_back_and_is_ascii(revision: int, compacted: int, fence: int) -> None:
    version = Version(uid=UID, revision=revision, compacted=compacted, fence=fence)
    assert decode_version(version.encode().encode("ascii")) == version


@given(KEYS, st.binary(max_size=50), REVISIONS)
def test_an_item_is_read_back(key: str, value: bytes, revision: int) -> None:
    item = KeyValue(key=key, value=value, revision=revision)
    assert decode_item(item_key(key), encode_item(item)) == item


@given(REVISIONS, KEYS, st.lists(st.tuples(KEYS, st.none() | st.binary(max_size=20)), max_size=5))
def test_an_entry_is_read_back(revision: int, txn_id: str, written: list[tuple[str, bytes | None]]) -> None:
    events = tuple(Change(key=key, value=value, revision=revision) for key, value in written)
    entry = Entry(revision=revision, txn_id=txn_id, events=events)
    assert decode_entry(log_key(revision), encode_entry(entry)) == entry


@given(REVISIONS, REVISIONS)
def test_log_keys_sort_as_their_revisions(one: int, two: int) -> None:
    assert (log_key(one) < log_key(two)) == (one < two)


@pytest.mark.parametrize(
    "data", [b"", b"vcl-store/2 x", b"\xff\x00", f"vcl-store/1 {UID} 1 2".encode(), b"vcl-store/1"]
)
def test_anything_else_is_no_version(data: bytes) -> None:
    with pytest.raises(NotAStore):
        decode_version(data)


@pytest.mark.parametrize("data", [b"", b"value", b"x value", b"12"])
def test_anything_else_is_no_item(data: bytes) -> None:
    with pytest.raises(NotAStore, match="'k/a' is damaged"):
        decode_item("k/a", data)


@pytest.mark.parametrize(
    "data",
    [b"", b"[]\n", b'["id",[["a",3]]]\nab', b'["id",[["a",1]]]\nab', b'["id",3]\n', b'["id",[["a","b"]]]\n'],
)
def test_anything_else_is_no_entry(data: bytes) -> None:
    with pytest.raises(NotAStore, match="damaged"):
        decode_entry(log_key(1), data)
