"""MemoryStore keeps the contract of the Store port, and its faults do what they say."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from reconciler.resources.errors import OutcomeUnknown, StoreUnavailable
from reconciler.resources.transactions import (
    Committed,
    Compacted,
    Conflict,
    NotApplied,
    Txn,
    Unresolved,
)
from reconciler.sim.store import MemoryCluster, MemoryStore, TxnFault, touching
from reconciler.testing.store_contract import StoreContract
from reconciler.testing.store_harness import commit, read, txn


class TestMemoryStore(StoreContract):
    def setup_method(self) -> None:
        self.clusters: dict[Path, MemoryCluster] = {}

    async def open(self, directory: Path, *, log_size: int = 10_000) -> MemoryStore:
        cluster = self.clusters.setdefault(directory, MemoryCluster(log_size=log_size))
        return MemoryStore(cluster)


class TestSlowMemoryStore(TestMemoryStore):
    """The same with a delay before every call, so that calls overlap."""

    async def open(self, directory: Path, *, log_size: int = 10_000) -> MemoryStore:
        store = await super().open(directory, log_size=log_size)
        store.slow = 0.0003 * (1 + len(self.clusters))
        return store


async def fails_unknown(store: MemoryStore, transaction: Txn) -> None:
    with pytest.raises(OutcomeUnknown) as caught:
        await store.txn(transaction)
    assert caught.value.txn_id == transaction.id


async def test_a_store_that_is_down_answers_nobody_within_the_deadline() -> None:
    store = MemoryStore()
    store.down = True
    for call in (
        store.get(["a"], timeout=0.01),
        store.list("", timeout=0.01),
        store.resolve("x", timeout=0.01),
    ):
        with pytest.raises(StoreUnavailable):
            await call
    with pytest.raises(StoreUnavailable):
        await store.txn(txn({"a": b""}), timeout=0.01)
    store.down = False
    assert await read(store, "a") is None


async def test_one_client_that_is_cut_off_leaves_the_others() -> None:
    one = MemoryStore()
    two = MemoryStore(one.cluster)
    one.down = True
    await commit(two, txn({"a": b"1"}))
    with pytest.raises(StoreUnavailable):
        await one.list("", timeout=0.01)


async def test_a_slow_store_answers_late_or_not_at_all() -> None:
    store = MemoryStore()
    store.slow = 0.02
    loop = asyncio.get_running_loop()
    before = loop.time()
    await commit(store, txn({"a": b"1"}))
    assert loop.time() - before >= 0.02
    with pytest.raises(StoreUnavailable):
        await store.txn(txn({"a": b"2"}), timeout=0.01)
    assert (await store.list("")).revision == 1


async def test_a_refused_transaction_has_no_effect_and_may_be_sent_again() -> None:
    store = MemoryStore()
    store.arm(TxnFault.REFUSED)
    transaction = txn({"a": b"1"})
    with pytest.raises(StoreUnavailable):
        await store.txn(transaction)
    assert await read(store, "a") is None
    await commit(store, transaction)


async def test_a_lost_transaction_resolves_to_not_applied() -> None:
    store = MemoryStore()
    store.arm(TxnFault.LOST)
    transaction = txn({"a": b"1"})
    await fails_unknown(store, transaction)
    assert await store.resolve(transaction.id) == NotApplied()
    assert await read(store, "a") is None


async def test_an_applied_transaction_without_an_answer_resolves_to_its_revision() -> None:
    store = MemoryStore()
    store.arm(TxnFault.APPLIED)
    transaction = txn({"a": b"1"})
    await fails_unknown(store, transaction)
    assert await store.resolve(transaction.id) == Committed(revision=1)
    assert await store.txn(transaction) == Committed(revision=1)


async def test_a_late_transaction_lands_when_the_test_says_so() -> None:
    store = MemoryStore()
    store.arm(TxnFault.LATE)
    transaction = txn({"a": b"late"})
    await fails_unknown(store, transaction)
    await commit(store, txn({"a": b"between"}))
    assert store.cluster.land() == (Committed(revision=2),)
    item = await read(store, "a")
    assert item is not None
    assert item.value == b"late"
    assert store.cluster.land() == ()


async def test_a_late_transaction_still_compares_when_it_lands() -> None:
    store = MemoryStore()
    store.arm(TxnFault.LATE)
    await fails_unknown(store, txn({"a": b"late"}, compares={"a": 0}))
    await commit(store, txn({"a": b"first"}))
    assert store.cluster.land() == (Conflict(keys=("a",)),)


async def test_resolving_a_late_transaction_keeps_it_from_ever_landing() -> None:
    store = MemoryStore()
    store.arm(TxnFault.LATE)
    transaction = txn({"a": b"late"})
    await fails_unknown(store, transaction)
    assert await store.resolve(transaction.id) == NotApplied()
    assert store.cluster.land() == ()
    assert await read(store, "a") is None


async def test_a_trimmed_log_leaves_an_unknown_transaction_unresolved_and_it_may_still_land() -> None:
    store = MemoryStore()
    store.arm(TxnFault.LATE)
    transaction = txn({"a": b"late"})
    await fails_unknown(store, transaction)
    await commit(store, txn({"b": b""}))
    store.cluster.compact(1)
    assert await store.resolve(transaction.id) == Unresolved()
    assert store.cluster.land() == (Committed(revision=2),)


async def test_an_unknown_outcome_resolves_even_though_older_log_was_trimmed() -> None:
    store = MemoryStore()
    await commit(store, txn({"a": b""}))
    await commit(store, txn({"a": b""}))
    store.cluster.compact(1)
    store.arm(TxnFault.LOST)
    transaction = txn({"b": b""})
    await fails_unknown(store, transaction)
    assert await store.resolve(transaction.id) == NotApplied()


async def test_a_fault_waits_for_the_transaction_it_is_meant_for() -> None:
    store = MemoryStore()
    store.arm(TxnFault.REFUSED, count=2, when=touching("claim/"))
    await commit(store, txn({"status/x": b""}))
    for transaction in (txn({"claim/a": b""}), txn(deletes=("claim/a",))):
        with pytest.raises(StoreUnavailable):
            await store.txn(transaction)
    await commit(store, txn({"claim/a": b""}))


async def test_compaction_on_request_sends_watchers_back_to_the_list() -> None:
    store = MemoryStore()
    await commit(store, txn({"a": b"1"}))
    await commit(store, txn({"a": b"2"}))
    store.cluster.compact(1)
    assert await store.watch(0, timeout=60) == Compacted(revision=2)


async def test_a_watch_of_a_client_that_was_cut_off_ends_in_an_error() -> None:
    store = MemoryStore()
    watch = asyncio.create_task(store.watch(0, timeout=0.05))
    await asyncio.sleep(0.01)
    store.down = True
    with pytest.raises(StoreUnavailable):
        await watch
