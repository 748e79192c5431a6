"""The checker accepts what one copy of the data could have answered, and nothing else."""

from __future__ import annotations

import math

import pytest

from reconciler.resources.transactions import Committed, Conflict, KeyValue, Listing, TxnResult
from reconciler.testing.linearizability import ListCall, Operation, TxnCall, explain
from reconciler.testing.store_harness import txn

Interval = tuple[float, float]


def write(
    when: Interval,
    puts: dict[str, bytes],
    result: TxnResult | None,
    *,
    compares: dict[str, int] | None = None,
    deletes: tuple[str, ...] = (),
) -> Operation:
    call = TxnCall(txn=txn(puts, compares=compares, deletes=deletes), result=result)
    return Operation(process="writer", call=call, invoked=when[0], returned=when[1])


def listed(when: Interval, revision: int, **items: tuple[bytes, int]) -> Operation:
    found = tuple(KeyValue(key=key, value=value, revision=at) for key, (value, at) in sorted(items.items()))
    call = ListCall(prefix="", result=Listing(items=found, revision=revision))
    return Operation(process="reader", call=call, invoked=when[0], returned=when[1])


def committed(revision: int) -> Committed:
    return Committed(revision=revision)


UNKNOWN = math.inf

POSSIBLE = {
    "nothing": [],
    "one after the other": [
        write((0, 1), {"a": b"1"}, committed(1)),
        listed((2, 3), 1, a=(b"1", 1)),
        write((4, 5), {"a": b"2"}, committed(2), compares={"a": 1}),
        listed((6, 7), 2, a=(b"2", 2)),
    ],
    "a read during a write may see it": [
        write((0, 9), {"a": b"1"}, committed(1)),
        listed((1, 2), 1, a=(b"1", 1)),
    ],
    "a read during a write may miss it": [
        write((0, 9), {"a": b"1"}, committed(1)),
        listed((1, 2), 0),
    ],
    "concurrent writes in the order of their revisions": [
        write((0, 9), {"a": b"late"}, committed(2)),
        write((0, 9), {"a": b"early"}, committed(1)),
        listed((10, 11), 2, a=(b"late", 2)),
    ],
    "revisions may have gaps": [
        write((0, 1), {"a": b"1"}, committed(3)),
        write((2, 3), {"a": b"2"}, committed(7), compares={"a": 3}),
    ],
    "the loser of a race": [
        write((0, 9), {"a": b"1"}, committed(1), compares={"a": 0}),
        write((0, 9), {"a": b"2"}, Conflict(keys=("a",)), compares={"a": 0}),
    ],
    "a deletion": [
        write((0, 1), {"a": b"1", "b": b"1"}, committed(1)),
        write((2, 3), {}, committed(2), deletes=("a",)),
        listed((4, 5), 2, b=(b"1", 1)),
    ],
    "a check without writes": [
        write((0, 1), {"a": b"1"}, committed(1)),
        write((2, 3), {}, committed(1), compares={"a": 1}),
    ],
    "an unknown write that never happened": [
        write((0, UNKNOWN), {"a": b"1"}, None),
        listed((2, 3), 0),
    ],
    "an unknown write that happened": [
        write((0, UNKNOWN), {"a": b"1"}, None),
        listed((2, 3), 4, a=(b"1", 4)),
    ],
    "an unknown write that happened late": [
        write((0, UNKNOWN), {"a": b"1"}, None),
        listed((2, 3), 0),
        write((4, 5), {"b": b"1"}, committed(1)),
        listed((6, 7), 2, a=(b"1", 2), b=(b"1", 1)),
    ],
    "an unknown write known by its effect only": [
        write((0, UNKNOWN), {"a": b"1"}, None),
        write((2, 3), {"a": b"2"}, Conflict(keys=("a",)), compares={"a": 0}),
    ],
}

IMPOSSIBLE = {
    "a stale read": [
        write((0, 1), {"a": b"1"}, committed(1)),
        write((2, 3), {"a": b"2"}, committed(2)),
        listed((4, 5), 1, a=(b"1", 1)),
    ],
    "a lost update": [
        write((0, 1), {"a": b"1"}, committed(1)),
        write((2, 9), {"a": b"2"}, committed(2), compares={"a": 1}),
        write((2, 9), {"a": b"3"}, committed(3), compares={"a": 1}),
    ],
    "two winners of one claim": [
        write((0, 9), {"a": b"1"}, committed(1), compares={"a": 0}),
        write((0, 9), {"a": b"2"}, committed(2), compares={"a": 0}),
    ],
    "half a transaction": [
        write((0, 9), {"a": b"1", "b": b"1"}, committed(1)),
        listed((1, 2), 1, a=(b"1", 1)),
    ],
    "a value that nobody wrote": [
        write((0, 1), {"a": b"1"}, committed(1)),
        listed((2, 3), 1, a=(b"2", 1)),
    ],
    "reads that go back in time": [
        write((0, 9), {"a": b"1"}, committed(1)),
        listed((1, 2), 1, a=(b"1", 1)),
        listed((3, 4), 0),
    ],
    "revisions against real time": [
        write((0, 1), {"a": b"1"}, committed(2)),
        write((2, 3), {"b": b"1"}, committed(1)),
    ],
    "a conflict without a reason": [
        write((0, 1), {"a": b"1"}, committed(1)),
        write((2, 3), {"a": b"2"}, Conflict(keys=("a",)), compares={"a": 1}),
    ],
    "a conflict that names the wrong key": [
        write((0, 1), {"a": b"1"}, committed(1)),
        write((2, 3), {"b": b"2"}, Conflict(keys=("b",)), compares={"a": 0, "b": 0}),
    ],
    "one revision for two transactions": [
        write((0, 9), {"a": b"1"}, committed(1)),
        write((0, 9), {"b": b"1"}, committed(1)),
    ],
    "a deleted key that comes back": [
        write((0, 1), {"a": b"1"}, committed(1)),
        write((2, 3), {}, committed(2), deletes=("a",)),
        listed((4, 5), 2, a=(b"1", 1)),
    ],
    "an acknowledged write that was lost": [
        write((0, 1), {"a": b"1"}, committed(1)),
        listed((2, 3), 0),
    ],
    "an unknown write that came and went": [
        write((0, UNKNOWN), {"a": b"1"}, None),
        listed((2, 3), 1, a=(b"1", 1)),
        listed((4, 5), 0),
    ],
    "an unknown write seen before it was made": [
        listed((0, 1), 1, a=(b"1", 1)),
        write((2, UNKNOWN), {"a": b"1"}, None),
    ],
}


@pytest.mark.parametrize("name", sorted(POSSIBLE))
def test_a_possible_history_is_explained(name: str) -> None:
    assert explain(POSSIBLE[name]) == ""


@pytest.mark.parametrize("name", sorted(IMPOSSIBLE))
def test_an_impossible_history_is_refused(name: str) -> None:
    assert explain(IMPOSSIBLE[name]) != ""


def test_a_refusal_shows_the_calls_that_do_not_fit() -> None:
    shown = explain(IMPOSSIBLE["a stale read"])
    assert "1 of 3 could be ordered" in shown
    assert "reader [4, 5]" in shown


def test_many_concurrent_calls_are_decided_quickly() -> None:
    history = [write((0, 1), {f"k{i}": b""}, committed(i + 1)) for i in range(100)]
    assert explain(history) == ""
    assert explain([*history, listed((2, 3), 99)]) != ""
