"""Drafts change nothing until they are taken over; the log keeps to its limits."""

from __future__ import annotations

import pytest

from reconciler.adapters.rados.records import Version
from reconciler.adapters.rados.replica import Draft, Limits, Replica
from reconciler.resources.transactions import Committed, Conflict, KeyValue, NotApplied, Unresolved
from reconciler.testing.store_harness import txn

WIDE = Limits(revisions=1000, bytes=10**9)


def empty() -> Replica:
    return Replica(Version(uid="u"), ())


def grown(count: int, *, value: bytes = b"x", limits: Limits = WIDE) -> Replica:
    replica = empty()
    for number in range(count):
        draft = Draft(replica)
        draft.apply(txn({"a": value}, id=f"id{number + 1}"))
        replica.advance(draft.version(limits), draft.entries)
    return replica


def test_a_draft_shows_its_own_writes_to_the_next_transaction_and_to_nobody_else() -> None:
    replica = empty()
    draft = Draft(replica)
    assert draft.apply(txn({"a": b"1"}, compares={"a": 0})) == Committed(revision=1)
    assert draft.apply(txn({"a": b"2"}, compares={"a": 0})) == Conflict(keys=("a",))
    assert draft.apply(txn(deletes=("a",), compares={"a": 1})) == Committed(revision=2)
    assert replica.listing("").items == ()
    assert replica.version.revision == 0
    replica.advance(draft.version(WIDE), draft.entries)
    assert replica.version.revision == 2
    assert replica.item("a") is None


def test_a_draft_of_checks_alone_has_nothing_to_write() -> None:
    draft = Draft(grown(1))
    assert draft.apply(txn(compares={"a": 1})) == Committed(revision=1)
    assert draft.apply(txn({"b": b""}, id="id1")) == Committed(revision=1)
    assert not draft.changed


def test_settling_an_unknown_id_changes_the_version() -> None:
    replica = grown(1)
    draft = Draft(replica)
    assert draft.resolve("id1", after=0) == Committed(revision=1)
    assert not draft.changed
    assert draft.resolve("other", after=0) == NotApplied()
    assert draft.changed
    assert draft.version(WIDE).encode() != replica.version.encode()


def test_an_id_sent_before_the_log_begins_stays_unknown() -> None:
    replica = grown(20, limits=Limits(revisions=8, bytes=10**9))
    compacted = replica.version.compacted
    assert compacted > 0
    assert Draft(replica).resolve("other", after=compacted - 1) == Unresolved()
    assert Draft(replica).resolve("other", after=compacted) == NotApplied()


def test_the_log_keeps_what_was_promised_and_not_much_more() -> None:
    for count in range(60):
        replica = grown(count, limits=Limits(revisions=8, bytes=10**9))
        kept = replica.version.revision - replica.version.compacted
        assert min(count, 8) <= kept <= 9
        assert replica.log_bytes == kept


def test_large_values_cut_the_log_to_the_last_entry_at_most() -> None:
    replica = grown(20, value=bytes(100), limits=Limits(revisions=1000, bytes=350))
    assert 1 <= replica.version.revision - replica.version.compacted <= 4
    replica = grown(5, value=bytes(1000), limits=Limits(revisions=1000, bytes=350))
    assert replica.version.revision - replica.version.compacted == 1


def test_a_replica_refuses_a_log_with_a_gap_or_a_wrong_end() -> None:
    whole = grown(3)
    draft = Draft(whole)
    draft.apply(txn({"a": b"4"}))
    with pytest.raises(ValueError, match="entry 4 does not follow 0"):
        empty().advance(Version(uid="u", revision=4), draft.entries)
    with pytest.raises(ValueError, match="the log ends at 3, not 5"):
        whole.advance(Version(uid="u", revision=5), ())


def test_a_replica_knows_keys_ids_and_changes() -> None:
    replica = grown(3)
    assert replica.get(["a", "b"]) == {"a": KeyValue(key="a", value=b"x", revision=3)}
    assert replica.revision_of("id2") == 2
    assert [replica.txn_at(revision) for revision in range(5)] == [None, "id1", "id2", "id3", None]
    assert replica.revision_of("id9") is None
