"""A node's copy of the store follows it, says what changed, and survives the store's absence."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.loops.cache import StoreCache
from reconciler.resources.errors import StoreUnavailable
from reconciler.resources.transactions import KeyValue, Listing, WatchResult
from reconciler.sim.store import MemoryCluster, MemoryStore
from reconciler.testing.store_harness import commit, txn
from reconciler.testing.virtual import on_virtual_time

HANG = 10.0


class ListFails(MemoryStore):
    """Watches, and lists unless `failing`."""

    failing = False

    async def list(self, prefix: str, *, timeout: float = 2.0) -> Listing:
        if self.failing:
            raise StoreUnavailable("the list was cut off")
        return await super().list(prefix, timeout=timeout)


async def started(store: MemoryStore) -> StoreCache:
    cache = StoreCache(store)
    await cache.step(1)
    return cache


def content(cache: StoreCache) -> dict[str, bytes]:
    return {item.key: item.value for item in cache.prefix("")}


async def test_before_the_first_step_the_copy_is_empty_and_not_healthy() -> None:
    cache = StoreCache(MemoryStore())
    assert (cache.revision, cache.healthy, cache.prefix("")) == (-1, False, [])
    assert cache.get("a") is None
    assert cache.revision_of("a") == 0


async def test_the_first_step_lists_everything() -> None:
    store = MemoryStore()
    revision = await commit(store, txn({"b": b"2", "a": b"1"}))
    cache = await started(store)
    assert content(cache) == {"a": b"1", "b": b"2"}
    assert (cache.revision, cache.healthy) == (revision, True)
    assert cache.get("a") == KeyValue(key="a", value=b"1", revision=revision)
    assert cache.revision_of("a") == revision


async def test_an_empty_store_is_a_good_start() -> None:
    cache = await started(MemoryStore())
    assert (cache.revision, cache.healthy) == (0, True)


async def test_a_step_takes_every_change_since_the_last() -> None:
    store = MemoryStore()
    await commit(store, txn({"a": b"1", "b": b"1"}))
    cache = await started(store)
    await commit(store, txn({"a": b"2", "c": b"2"}))
    revision = await commit(store, txn({"c": b"3"}, deletes=("b",)))
    await cache.step(1)
    assert content(cache) == {"a": b"2", "c": b"3"}
    assert cache.revision == revision


async def test_a_key_deleted_and_made_again_between_two_steps_is_there() -> None:
    store = MemoryStore()
    await commit(store, txn({"a": b"1"}))
    cache = await started(store)
    await commit(store, txn(deletes=("a",)))
    revision = await commit(store, txn({"a": b"2"}))
    await cache.step(1)
    assert cache.prefix("a") == [KeyValue(key="a", value=b"2", revision=revision)]


async def test_a_step_waits_for_the_next_change() -> None:
    store = MemoryStore()
    cache = await started(store)
    step = asyncio.create_task(cache.step(60))
    await asyncio.sleep(0.01)
    assert not step.done()
    await commit(store, txn({"a": b"1"}))
    async with asyncio.timeout(HANG):
        await step
    assert content(cache) == {"a": b"1"}


async def test_a_step_without_changes_ends_at_its_time_out() -> None:
    cache = await started(MemoryStore())
    async with asyncio.timeout(HANG):
        await cache.step(0.01)
    assert (cache.revision, cache.healthy) == (0, True)


async def test_a_prefix_is_sorted_and_exact() -> None:
    store = MemoryStore()
    await commit(store, txn(dict.fromkeys(["claim/b", "claim/a", "claims", "claim", "binding/a"], b"")))
    cache = await started(store)
    assert [item.key for item in cache.prefix("claim/")] == ["claim/a", "claim/b"]
    assert [item.key for item in cache.prefix("zzz")] == []


async def test_listeners_hear_which_keys_changed_once_they_are_visible() -> None:
    store = MemoryStore()
    await commit(store, txn({"a": b"1", "gone": b"1"}))
    cache = StoreCache(store)
    heard: list[tuple[frozenset[str], dict[str, bytes], int]] = []
    cache.subscribe(lambda keys: heard.append((keys, content(cache), cache.revision)))
    await cache.step(1)
    await commit(store, txn({"b": b"2"}, deletes=("gone",)))
    await cache.step(1)
    assert heard == [
        (frozenset({"a", "gone"}), {"a": b"1", "gone": b"1"}, 1),
        (frozenset({"b", "gone"}), {"a": b"1", "b": b"2"}, 2),
    ]


async def test_listeners_hear_nothing_when_nothing_changed_or_after_they_left() -> None:
    store = MemoryStore()
    cache = await started(store)
    heard: list[frozenset[str]] = []
    leave = cache.subscribe(heard.append)
    await cache.step(0)
    await commit(store, txn(deletes=("missing",)))
    await cache.step(0)
    assert (heard, cache.revision) == ([], 1)
    leave()
    await commit(store, txn({"a": b""}))
    await cache.step(1)
    assert heard == []


async def test_a_listener_may_leave_while_it_is_called() -> None:
    store = MemoryStore()
    cache = await started(store)
    heard: list[str] = []

    def once(_: frozenset[str]) -> None:
        heard.append("once")
        leave()

    leave = cache.subscribe(once)
    cache.subscribe(lambda _: heard.append("always"))
    for _ in range(2):
        await commit(store, txn({"a": b""}))
        await cache.step(1)
    assert heard == ["once", "always", "always"]


async def test_falling_behind_the_log_lists_again_and_tells_only_what_differs() -> None:
    store = MemoryStore()
    await commit(store, txn({"same": b"1", "changed": b"1", "gone": b"1"}))
    cache = await started(store)
    heard: list[frozenset[str]] = []
    cache.subscribe(heard.append)
    await commit(store, txn({"changed": b"2", "new": b"2"}, deletes=("gone",)))
    store.cluster.compact(store.cluster.revision)
    await cache.step(60)
    assert content(cache) == {"changed": b"2", "new": b"2", "same": b"1"}
    assert heard == [frozenset({"changed", "new", "gone"})]
    await commit(store, txn({"later": b"3"}))
    await cache.step(60)
    assert heard[1:] == [frozenset({"later"})]


async def test_a_store_that_was_replaced_by_an_older_one_is_listed_again() -> None:
    store = MemoryStore()
    for number in range(3):
        await commit(store, txn({f"k{number}": b""}))
    cache = await started(store)
    store.cluster = MemoryCluster()
    await commit(store, txn({"other": b""}))
    await cache.step(60)
    assert (content(cache), cache.revision) == ({"other": b""}, 1)


async def test_an_absent_store_leaves_the_copy_as_it_was() -> None:
    store = MemoryStore()
    await commit(store, txn({"a": b"1"}))
    cache = await started(store)
    step = asyncio.create_task(cache.step(0.02))
    await asyncio.sleep(0.01)
    store.down = True
    with pytest.raises(StoreUnavailable):
        await step
    assert (content(cache), cache.revision, cache.healthy) == ({"a": b"1"}, 1, False)
    store.down = False
    await commit(store, txn({"b": b"2"}))
    await cache.step(1)
    assert (content(cache), cache.healthy) == ({"a": b"1", "b": b"2"}, True)


async def test_a_failed_list_after_falling_behind_is_not_healthy_and_is_tried_again() -> None:
    store = ListFails()
    await commit(store, txn({"a": b"1"}))
    cache = await started(store)
    await commit(store, txn({"a": b"2"}))
    store.cluster.compact(store.cluster.revision)
    store.failing = True
    with pytest.raises(StoreUnavailable):
        await cache.step(1)
    assert (content(cache), cache.revision, cache.healthy) == ({"a": b"1"}, 1, False)
    store.failing = False
    await cache.step(1)
    assert (content(cache), cache.revision, cache.healthy) == ({"a": b"2"}, 2, True)


async def test_waiting_for_a_revision_ends_when_the_copy_has_it() -> None:
    store = MemoryStore()
    cache = await started(store)
    async with asyncio.timeout(HANG):
        await cache.wait_for(0)
        waiting = asyncio.create_task(cache.wait_for(2))
        await commit(store, txn({"a": b"1"}))
        await cache.step(1)
        await asyncio.sleep(0)
        assert not waiting.done()
        await commit(store, txn({"a": b"2"}))
        await cache.step(1)
        await waiting
    assert content(cache) == {"a": b"2"}


async def test_reading_past_the_copy_asks_the_store() -> None:
    store = MemoryStore()
    cache = await started(store)
    await commit(store, txn({"a": b"1"}))
    assert cache.get("a") is None
    assert (await cache.read(["a"]))["a"].value == b"1"


KEYS = st.sampled_from(["a", "a/b", "b", "b/c", "c"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), KEYS),
        st.tuples(st.just("delete"), KEYS),
        st.just(("step", "")),
        st.just(("compact", "")),
        st.just(("outage", "")),
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_whatever_happens_the_copy_ends_equal_to_the_store(steps: list[tuple[str, str]]) -> None:
    asyncio.run(play(steps))


async def play(steps: list[tuple[str, str]]) -> None:
    store = ListFails()
    cache = StoreCache(store)
    known: dict[str, bytes] = {}
    cache.subscribe(lambda keys: follow(known, cache, keys))
    for number, (step, key) in enumerate(steps):
        match step:
            case "put":
                await commit(store, txn({key: str(number).encode()}))
            case "delete":
                await commit(store, txn(deletes=(key,)))
            case "compact":
                store.cluster.compact(store.cluster.revision)
            case "outage":
                store.failing = True
                with suppress(StoreUnavailable):
                    await cache.step(0)
                store.failing = False
            case _:
                await cache.step(0)
    await cache.step(0)
    await cache.step(0)
    listing = await store.list("")
    assert (tuple(cache.prefix("")), cache.revision) == (listing.items, listing.revision)
    assert known == content(cache)


def follow(known: dict[str, bytes], cache: StoreCache, keys: frozenset[str]) -> None:
    """What a listener knows when it looks only at the keys that it is told of."""
    for key in keys:
        item = cache.get(key)
        if item is None:
            known.pop(key, None)
        else:
            known[key] = item.value


class SilentWatch(MemoryStore):
    """A watch that is not answered fails after a second, as a store's deadline has it."""

    async def watch(self, since: int, *, timeout: float) -> WatchResult:
        await asyncio.sleep(1.0)
        raise StoreUnavailable("the store did not answer within 1 s")


@on_virtual_time
async def test_hints_of_other_nodes_do_not_hide_that_the_store_does_not_answer() -> None:
    cache = await started(SilentWatch())

    async def follow() -> None:
        while True:
            with suppress(StoreUnavailable):
                await cache.step(30.0)

    following = asyncio.create_task(follow())
    for revision in range(100, 108):
        cache.hint(revision)
        await asyncio.sleep(0.3)
    assert not cache.healthy
    following.cancel()
    with suppress(asyncio.CancelledError):
        await following
