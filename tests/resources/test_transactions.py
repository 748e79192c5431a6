"""Every store refuses the same impossible transactions, with words for a person."""

from __future__ import annotations

import pytest

from reconciler.resources.errors import InvalidInput
from reconciler.resources.transactions import Compare, Put, Txn, check_key, check_prefix, check_txn


def test_an_ordinary_transaction_passes() -> None:
    txn = Txn(
        id="6f9619ff-8b86-4011-b42d-00c04fc964ff",
        compares=(Compare(key="epoch", revision=3), Compare(key="claim/web", revision=0)),
        puts=(Put(key="claim/web", value=b"{}"),),
        deletes=("binding/old",),
    )
    assert check_txn(txn) is None


@pytest.mark.parametrize("key", ["", "k" * 513, "größe", "a\nb", "a\x7f", "nul\0"])
def test_a_key_is_1_to_512_printable_ascii_characters(key: str) -> None:
    with pytest.raises(InvalidInput, match=r"is no key .*; use 1 to 512 printable ASCII"):
        check_key(key)


def test_a_prefix_may_be_empty_but_not_unprintable() -> None:
    assert check_prefix("") is None
    with pytest.raises(InvalidInput, match="key prefix"):
        check_prefix("\n")


def test_a_long_bad_key_is_shortened_in_the_message() -> None:
    with pytest.raises(InvalidInput) as caught:
        check_key("k" * 10_000)
    assert "(10000 characters)" in str(caught.value)
    assert len(str(caught.value)) < 200


def test_a_transaction_that_writes_a_key_twice_names_it() -> None:
    txn = Txn(id="x", puts=(Put(key="a", value=b""), Put(key="b", value=b"")), deletes=("b", "c", "c"))
    with pytest.raises(InvalidInput, match="'b', 'c' more than once"):
        check_txn(txn)


def test_a_transaction_needs_an_id_and_sane_revisions() -> None:
    with pytest.raises(InvalidInput, match="transaction id"):
        check_txn(Txn(id=""))
    with pytest.raises(InvalidInput, match="'a' has a revision below 0"):
        check_txn(Txn(id="x", compares=(Compare(key="a", revision=-1),)))
