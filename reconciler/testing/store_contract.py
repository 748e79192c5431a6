"""The contract of the Store port, as tests that every store passes: ours, and other people's.

    class TestMyStore(StoreContract):
        async def open(self, directory, *, log_size=10_000):
            return await MyStore.open(directory / "store", log_size=log_size)

Runs under pytest with pytest-asyncio in auto mode. `open` is called several times with one directory: those
are clients of one store, and what one committed the others see.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from reconciler.ports.store import Store
from reconciler.resources.errors import InvalidInput, StoreUnavailable
from reconciler.resources.transactions import (
    Change,
    Changes,
    Committed,
    Compacted,
    Conflict,
    KeyValue,
    Listing,
    NotApplied,
    Unresolved,
)
from reconciler.testing.store_concurrency import ConcurrentStoreContract
from reconciler.testing.store_harness import StoreHarness, commit, new_id, read, txn

HANG = 10.0
"""Seconds after which a wait counts as hanging; nothing here needs more than a fraction of it."""

BAD_TXNS = {
    "key twice": lambda: txn({"a": b""}, deletes=("a",)),
    "deleted twice": lambda: txn(deletes=("a", "a")),
    "empty key": lambda: txn({"": b""}),
    "long key": lambda: txn({"k" * 513: b""}),
    "not ASCII": lambda: txn({"spec/Größe": b""}),
    "control character": lambda: txn(deletes=("a\nb",)),
    "bad compare key": lambda: txn({"a": b""}, compares={"\0": 0}),
    "negative compare": lambda: txn({"a": b""}, compares={"a": -1}),
}


class ReadingAndWriting(StoreHarness):
    """Part of StoreContract."""

    async def test_a_new_store_is_empty_at_revision_0(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            assert await store.list("") == Listing(items=(), revision=0)
            assert await store.get(["a"]) == {}

    async def test_a_committed_value_is_read_back_with_its_revision(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            revision = await commit(store, txn({"a": b"1"}))
            item = KeyValue(key="a", value=b"1", revision=revision)
            assert await store.get(["a", "missing"]) == {"a": item}
            assert await store.list("") == Listing(items=(item,), revision=revision)

    async def test_every_commit_has_a_larger_revision_than_the_last(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            revisions = [await commit(store, txn({f"k{i % 3}": b""})) for i in range(10)]
            assert revisions[0] > 0
            assert revisions == sorted(set(revisions))

    async def test_a_transaction_writes_all_its_keys_at_one_revision(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            await commit(store, txn({"old": b"0"}))
            revision = await commit(store, txn({"a": b"1", "b": b"2"}, deletes=("old",)))
            items = (await store.list("")).items
            assert [(item.key, item.revision) for item in items] == [("a", revision), ("b", revision)]

    async def test_a_list_is_sorted_and_holds_exactly_the_prefix(self, tmp_path: Path) -> None:
        keys = ["claim/a", "claim/B", "claim/a-b", "claim/a/b", "claim", "claim/~", "claims/a", "binding/z"]
        async with self.opened(tmp_path) as store:
            await commit(store, txn(dict.fromkeys(keys, b"")))
            for prefix in ("", "claim", "claim/", "claim/a", "claim/~", "nothing"):
                found = [item.key for item in (await store.list(prefix)).items]
                assert found == sorted(key for key in keys if key.startswith(prefix))

    async def test_wildcards_in_a_prefix_mean_themselves(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            await commit(store, txn(dict.fromkeys(["a%b", "axb", "a_b", "a*b", "a[b", "a'b"], b"")))
            for key in ("a%", "a_", "a*", "a[", "a'"):
                assert [item.key for item in (await store.list(key)).items] == [f"{key}b"]

    async def test_values_are_any_bytes(self, tmp_path: Path) -> None:
        values = {"empty": b"", "nul": b"\0\0", "binary": bytes(range(256)), "large": b"x" * 2**20}
        async with self.opened(tmp_path) as store:
            await commit(store, txn(values))
            assert {item.key: item.value for item in (await store.list("")).items} == values

    async def test_the_longest_key_is_512_characters(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            await commit(store, txn({"k" * 512: b"1"}))
            assert [len(item.key) for item in (await store.list("k" * 512)).items] == [512]

    async def test_a_compare_with_the_current_revision_holds(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            first = await commit(store, txn({"a": b"1"}))
            second = await commit(store, txn({"a": b"2"}, compares={"a": first, "b": 0}))
            assert await read(store, "a") == KeyValue(key="a", value=b"2", revision=second)

    async def test_one_failed_compare_stops_the_whole_transaction(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            old = await commit(store, txn({"a": b"1", "b": b"1", "c": b"1"}))
            new = await commit(store, txn({"b": b"2", "c": b"2"}))
            lost = txn({"x": b"1", "a": b"3"}, deletes=("b",), compares={"c": old, "a": old, "b": old})
            assert await store.txn(lost) == Conflict(keys=("b", "c"))
            listing = await store.list("")
            assert {item.key: item.value for item in listing.items} == {"a": b"1", "b": b"2", "c": b"2"}
            assert listing.revision == new

    async def test_comparing_with_0_means_that_the_key_must_not_exist(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            await commit(store, txn({"a": b"1"}, compares={"a": 0}))
            assert await store.txn(txn({"a": b"2"}, compares={"a": 0})) == Conflict(keys=("a",))
            await commit(store, txn(deletes=("a",)))
            await commit(store, txn({"a": b"3"}, compares={"a": 0}))

    async def test_a_key_made_again_does_not_pass_for_the_old_one(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            old = await commit(store, txn({"a": b"1"}))
            await commit(store, txn(deletes=("a",)))
            await commit(store, txn({"a": b"1"}))
            assert await store.txn(txn({"a": b"2"}, compares={"a": old})) == Conflict(keys=("a",))

    async def test_a_transaction_of_compares_only_checks_and_changes_nothing(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            revision = await commit(store, txn({"a": b"1"}))
            assert await store.txn(txn(compares={"a": revision})) == Committed(revision=revision)
            assert await store.txn(txn(compares={"a": 0})) == Conflict(keys=("a",))
            assert (await store.list("")).revision == revision

    @pytest.mark.parametrize("fault", sorted(BAD_TXNS))
    async def test_an_impossible_transaction_is_refused(self, tmp_path: Path, fault: str) -> None:
        async with self.opened(tmp_path) as store:
            with pytest.raises(InvalidInput):
                await store.txn(BAD_TXNS[fault]())
            assert (await store.list("")).revision == 0

    async def test_reading_an_impossible_key_is_refused(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            with pytest.raises(InvalidInput):
                await store.get(["ok", ""])
            with pytest.raises(InvalidInput):
                await store.list("ä")

    async def test_what_one_client_committed_another_reads_at_once(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as one, self.opened(tmp_path) as two:
            for number in range(20):
                writer, reader = (one, two) if number % 2 else (two, one)
                revision = await commit(writer, txn({"a": str(number).encode()}))
                expected = KeyValue(key="a", value=str(number).encode(), revision=revision)
                assert await read(reader, "a") == expected

    async def test_everything_is_still_there_after_closing_and_opening(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            await commit(store, txn({"a": b"1", "b": b"2"}))
            done = txn(deletes=("a",))
            await commit(store, done)
            before = await store.list("")
        async with self.opened(tmp_path) as store:
            assert await store.list("") == before
            assert await store.resolve(done.id) == Committed(revision=before.revision)
            assert await commit(store, txn({"c": b""})) > before.revision


class Resolving(StoreHarness):
    """Part of StoreContract."""

    async def test_a_repeated_id_is_answered_and_not_applied_again(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as one, self.opened(tmp_path) as two:
            first = txn({"a": b"1"})
            revision = await commit(one, first)
            later = await commit(one, txn({"a": b"2"}))
            assert await one.txn(first) == Committed(revision=revision)
            assert await two.txn(first) == Committed(revision=revision)
            assert await read(two, "a") == KeyValue(key="a", value=b"2", revision=later)

    async def test_the_same_id_sent_twice_at_once_is_applied_once(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as one, self.opened(tmp_path) as two:
            transaction = txn({"a": b"1"})
            results = await asyncio.gather(*(store.txn(transaction) for store in (one, two, one, two)))
            assert set(results) == {Committed(revision=(await one.list("")).revision)}

    async def test_a_committed_id_resolves_to_its_revision(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as one, self.opened(tmp_path) as two:
            transaction = txn({"a": b"1"})
            revision = await commit(one, transaction)
            await commit(one, txn({"a": b"2"}))
            assert await one.resolve(transaction.id) == Committed(revision=revision)
            assert await two.resolve(transaction.id) == Committed(revision=revision)

    async def test_a_revision_has_the_id_that_made_it_while_the_log_goes_back_so_far(
        self, tmp_path: Path
    ) -> None:
        async with self.opened(tmp_path, log_size=4) as store:
            ids = [new_id() for _ in range(3)]
            made = [await commit(store, txn({"a": b""}, id=each)) for each in ids]
            assert [await store.txn_at(revision) for revision in made] == ids
            assert await store.txn_at(made[-1] + 1) is None
            assert await store.txn_at(0) is None
            for _ in range(20):
                await commit(store, txn({"a": b""}))
            assert await store.txn_at(made[0]) is None

    async def test_an_id_that_never_committed_resolves_to_not_applied(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            await commit(store, txn({"a": b"1"}))
            lost = txn({"a": b"2"}, compares={"a": 0})
            assert isinstance(await store.txn(lost), Conflict)
            assert await store.resolve(lost.id) == NotApplied()
            assert await store.resolve(new_id()) == NotApplied()

    async def test_an_unknown_id_is_unresolved_once_the_log_was_trimmed(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path, log_size=8) as store:
            transaction = txn({"first": b""})
            await commit(store, transaction)
            await _fill(store, 40)
            assert await store.resolve(transaction.id) == Unresolved()


class Watching(StoreHarness):
    """Part of StoreContract."""

    async def test_a_watch_catches_up_with_every_change_in_order(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            first = await commit(store, txn({"b": b"1", "a": b"1"}))
            second = await commit(store, txn({"a": b"2"}))
            third = await commit(store, txn({"c": b"3"}, deletes=("a", "missing")))
            everything = (
                Change(key="a", value=b"1", revision=first),
                Change(key="b", value=b"1", revision=first),
                Change(key="a", value=b"2", revision=second),
                Change(key="a", value=None, revision=third),
                Change(key="c", value=b"3", revision=third),
            )
            assert await store.watch(0, timeout=0) == Changes(events=everything, revision=third)
            assert await store.watch(first, timeout=0) == Changes(events=everything[2:], revision=third)

    async def test_a_watch_with_nothing_new_ends_empty_at_its_time_out(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            revision = await commit(store, txn({"a": b"1"}))
            async with asyncio.timeout(HANG):
                assert await store.watch(revision, timeout=0.05) == Changes(events=(), revision=revision)

    async def test_a_commit_wakes_every_client_s_watch(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as one, self.opened(tmp_path) as two:
            watches = [asyncio.create_task(store.watch(0, timeout=60)) for store in (one, two, two)]
            await asyncio.sleep(0.05)
            revision = await commit(one, txn({"a": b"1"}))
            async with asyncio.timeout(HANG):
                results = await asyncio.gather(*watches)
            expected = Changes(events=(Change(key="a", value=b"1", revision=revision),), revision=revision)
            assert results == [expected] * 3

    async def test_following_the_watch_misses_nothing(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as one, self.opened(tmp_path) as two:
            writing = asyncio.create_task(_fill(one, 100))
            seen: list[int] = []
            since = 0
            async with asyncio.timeout(HANG):
                while len(seen) < 100:
                    result = await two.watch(since, timeout=5)
                    assert isinstance(result, Changes)
                    seen += [event.revision for event in result.events]
                    since = result.revision
            await writing
            assert seen == sorted(set(seen))

    async def test_a_commit_without_changes_moves_the_watch_on(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            revision = await commit(store, txn(deletes=("missing",)))
            assert await store.watch(0, timeout=0) == Changes(events=(), revision=revision)
            later = await commit(store, txn({"a": b""}))
            result = await store.watch(revision, timeout=0)
            assert result == Changes(events=(Change(key="a", value=b"", revision=later),), revision=later)

    async def test_a_watch_from_before_the_log_is_told_to_list_again(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path, log_size=8) as store:
            await _fill(store, 40)
            listing = await store.list("")
            assert await store.watch(0, timeout=60) == Compacted(revision=listing.revision)
            later = await commit(store, txn({"new": b""}))
            result = await store.watch(listing.revision, timeout=60)
            assert result == Changes(events=(Change(key="new", value=b"", revision=later),), revision=later)

    async def test_the_log_reaches_back_as_far_as_promised(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path, log_size=8) as store:
            await _fill(store, 40)
            revision = (await store.list("")).revision
            result = await store.watch(revision - 8, timeout=0)
            assert isinstance(result, Changes)
            assert len(result.events) == 8

    async def test_a_watch_from_the_future_is_told_to_list_again(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            revision = await commit(store, txn({"a": b""}))
            assert await store.watch(revision + 1, timeout=60) == Compacted(revision=revision)


class Closing(StoreHarness):
    """Part of StoreContract."""

    async def test_every_call_on_a_closed_store_is_unavailable(self, tmp_path: Path) -> None:
        store = await self.open(tmp_path)
        await commit(store, txn({"a": b""}))
        await store.close()
        await store.close()
        for call in (
            store.get(["a"]),
            store.list(""),
            store.txn(txn({"a": b"1"})),
            store.watch(0, timeout=60),
            store.resolve("id"),
        ):
            with pytest.raises(StoreUnavailable):
                await call

    async def test_closing_ends_a_watch_under_way(self, tmp_path: Path) -> None:
        store = await self.open(tmp_path)
        watch = asyncio.create_task(store.watch(0, timeout=600))
        await asyncio.sleep(0.05)
        await store.close()
        async with asyncio.timeout(HANG):
            with pytest.raises(StoreUnavailable):
                await watch

    async def test_closing_one_client_leaves_the_others(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as one:
            two = await self.open(tmp_path)
            await commit(two, txn({"a": b"2"}))
            await two.close()
            await commit(one, txn({"b": b"1"}))
            assert [item.key for item in (await one.list("")).items] == ["a", "b"]


class StoreContract(ReadingAndWriting, Resolving, Watching, Closing, ConcurrentStoreContract):
    """All of it: subclass this and override `open`."""


async def _fill(store: Store, count: int) -> None:
    for number in range(count):
        await commit(store, txn({f"fill{number % 5}": str(number).encode()}))
