"""What the object holds: more than a page of it, other people's objects, and objects that go or come back."""

from __future__ import annotations

import asyncio
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.adapters.rados import Place, RadosStore, records
from reconciler.resources.errors import StoreError, StoreUnavailable
from reconciler.resources.transactions import Changes, Compacted
from reconciler.testing.store_harness import commit, txn

pytestmark = pytest.mark.ceph

MANY = 2500


def rados(place: Place, *words: str, stdin: bytes = b"") -> bytes:
    """The `rados` program on the store's object, as an administrator."""
    done = subprocess.run(
        ["rados", "-c", place.conf, "-p", place.pool, "-N", place.namespace, *words],
        input=stdin,
        capture_output=True,
        check=True,
        timeout=30,
    )
    return done.stdout


def omap_value(place: Place, key: str, into: Path) -> bytes:
    """What the object has under this key, by way of a file."""
    rados(place, "getomapval", place.object, key, str(into))
    return into.read_bytes()


async def test_more_keys_than_an_osd_returns_at_once_are_all_there(place: Place) -> None:
    names = [f"spec/VirtualMachine/vm{number:05d}" for number in range(MANY)]
    writer, follower = await RadosStore.open(place), await RadosStore.open(place)
    await commit(writer, txn({name: name.encode() for name in names}))
    late = await RadosStore.open(place)
    for store in (writer, follower, late):
        listing = await store.list("spec/")
        assert [(item.key, item.value) for item in listing.items] == [(name, name.encode()) for name in names]
        await store.close()


async def test_a_log_of_more_entries_than_an_osd_returns_at_once_is_followed(place: Place) -> None:
    writer, follower = await RadosStore.open(place), await RadosStore.open(place)
    await asyncio.gather(*(writer.txn(txn({"a": str(n).encode()}), timeout=30) for n in range(MANY)))
    for store in (follower, await RadosStore.open(place)):
        result = await store.watch(0, timeout=0)
        assert isinstance(result, Changes)
        assert [event.revision for event in result.events] == list(range(1, MANY + 1))
        await store.close()
    await writer.close()


async def test_a_client_left_behind_the_log_loads_again(place: Place) -> None:
    writer, sleeper = await RadosStore.open(place, log_size=50), await RadosStore.open(place)
    await commit(sleeper, txn({"gone": b"1", "kept": b"1"}))
    await commit(writer, txn(deletes=("gone",)))
    for number in range(200):
        await commit(writer, txn({f"new{number % 3}": str(number).encode()}))
    listing = await sleeper.list("")
    assert listing == await writer.list("")
    assert [item.key for item in listing.items] == ["kept", "new0", "new1", "new2"]
    assert isinstance(await sleeper.watch(1, timeout=0), Compacted)
    await writer.close()
    await sleeper.close()


async def test_an_idle_client_left_behind_the_log_writes_and_settles(place: Place) -> None:
    writer, idle = await RadosStore.open(place, log_size=50), await RadosStore.open(place, log_size=50)
    for number in range(200):
        await commit(writer, txn({"a": str(number).encode()}))
    await asyncio.sleep(1.1)
    assert await commit(idle, txn({"b": b"1"}, compares={"a": 200})) == 201
    await writer.close()
    await idle.close()


async def test_loading_while_others_write_and_trim_gives_one_state(place: Place) -> None:
    writer = await RadosStore.open(place, log_size=300)
    await commit(writer, txn({f"left{n:04d}": b"0" for n in range(1500)}))
    await commit(writer, txn({f"right{n:04d}": b"0" for n in range(1500)}))
    stop = asyncio.Event()

    async def write() -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            name, value = f"{turn * 7 % 1500:04d}", str(turn).encode()
            await commit(writer, txn({f"left{name}": value, f"right{name}": value}))

    writing = asyncio.create_task(write())
    for _ in range(8):
        late = await RadosStore.open(place, log_size=300)
        items = {item.key: (item.value, item.revision) for item in (await late.list("")).items}
        await late.close()
        changed = {key: found for key, found in items.items() if found[0] != b"0"}
        assert len(items) == 3000
        assert changed
        assert all(
            items[key.replace("left", "right")] == found for key, found in changed.items() if "left" in key
        )
    stop.set()
    await writing
    await writer.close()


async def test_the_log_in_ceph_stays_within_its_limits(place: Place) -> None:
    store = await RadosStore.open(place, log_size=20, log_bytes=100_000)
    for number in range(100):
        await commit(store, txn({"a": str(number).encode()}))
    assert rados(place, "listomapkeys", place.object).count(b"l/") <= 20 + 20 // 8
    for _ in range(30):
        await commit(store, txn({"a": bytes(20_000)}))
    assert rados(place, "listomapkeys", place.object).count(b"l/") <= 6
    await store.close()


async def test_a_transaction_too_large_is_refused_and_harms_nothing(place: Place) -> None:
    store = await RadosStore.open(place)
    with pytest.raises(StoreUnavailable, match="at most 33554432 bytes"):
        await store.txn(txn({"a": bytes(40 * 2**20)}))
    await commit(store, txn({"a": bytes(4 * 2**20)}))
    await store.close()


async def test_the_first_clients_of_a_new_store_make_it_together(place: Place) -> None:
    stores = await asyncio.gather(*(RadosStore.open(place) for _ in range(4)))
    for number, store in enumerate(stores):
        await commit(store, txn({str(number): b""}))
    assert [item.key for item in (await stores[0].list("")).items] == ["0", "1", "2", "3"]
    await asyncio.gather(*(store.close() for store in stores))


async def test_a_store_that_must_exist_is_not_made(place: Place) -> None:
    with pytest.raises(StoreUnavailable, match="it does not exist"):
        await RadosStore.open(place, create=False)


async def test_somebody_else_s_object_is_left_alone(place: Place) -> None:
    rados(place, "put", place.object, "-", stdin=b"precious")
    with pytest.raises(StoreUnavailable, match="is no store that this release can read"):
        await RadosStore.open(place)
    assert rados(place, "get", place.object, "-") == b"precious"


async def test_a_store_of_a_later_format_is_left_alone(place: Place) -> None:
    await (await RadosStore.open(place)).close()
    rados(place, "setomapval", place.object, "v", "vcl-store/2 what ever")
    with pytest.raises(StoreUnavailable, match=r"'vcl-store/2 what ever'.*reads vcl-store/1"):
        await RadosStore.open(place)


async def test_a_store_that_was_removed_or_made_anew_stops_its_clients(place: Place) -> None:
    store = await RadosStore.open(place)
    await commit(store, txn({"a": b"1"}))
    rados(place, "rm", place.object)
    with pytest.raises(StoreError, match="it does not exist"):
        await store.txn(txn({"b": b"1"}))
    new = await RadosStore.open(place)
    with pytest.raises(StoreUnavailable, match="was replaced by another store"):
        await store.txn(txn({"b": b"1"}))
    assert (await new.list("")).items == ()
    await store.close()
    await new.close()


async def test_a_store_that_went_back_to_an_old_copy_stops_its_clients(place: Place, tmp_path: Path) -> None:
    store = await RadosStore.open(place)
    await commit(store, txn({"a": b"1"}))
    uid = omap_value(place, "v", tmp_path / "version").decode().split()[1]
    await commit(store, txn({"a": b"2"}))
    rados(place, "setomapval", place.object, "v", f"vcl-store/1 {uid} 1 0 0")
    with pytest.raises(StoreUnavailable, match="went back from revision 2 to 1"):
        await store.list("")
    await store.close()


async def test_a_store_that_went_back_and_was_written_to_since_stops_the_client_that_knows_better(
    place: Place, tmp_path: Path
) -> None:
    store = await RadosStore.open(place)
    await commit(store, txn({"a": b"1"}))
    earlier = {name: omap_value(place, name, tmp_path / "value") for name in ("v", "k/a")}
    await commit(store, txn({"a": b"2"}))
    for name, value in earlier.items():
        rados(place, "setomapval", place.object, name, stdin=value)
    rados(place, "rmomapkey", place.object, records.log_key(2))
    other = await RadosStore.open(place)
    for number in range(3):
        await commit(other, txn({"b": str(number).encode()}))
    with pytest.raises(StoreUnavailable, match="its revision 2 is another one than before"):
        await store.list("")
    await store.close()
    await other.close()


async def test_a_last_entry_that_fills_a_page_alone_is_followed(place: Place) -> None:
    writer, follower = await RadosStore.open(place), await RadosStore.open(place)
    large = bytes(6 * 2**20)
    await commit(writer, txn({"a": large}))
    assert len((await follower.list("")).items) == 1
    await commit(writer, txn({"b": large}))
    await commit(writer, txn({"c": b""}))
    assert [item.key for item in (await follower.list("")).items] == ["a", "b", "c"]
    await writer.close()
    await follower.close()


async def test_a_missing_configuration_pool_or_right_is_named(place: Place, tmp_path: Path) -> None:
    cases = {
        "cannot connect to Ceph with .*nowhere.conf": replace(place, conf=str(tmp_path / "nowhere.conf")),
        "cannot connect to Ceph with .* as client.nobody.*key": replace(place, user="nobody"),
        "the store no-such-pool: it does not exist": replace(place, pool="no-such-pool"),
        "Ceph refuses access": replace(place, namespace="foreign"),
    }
    for words, wrong in cases.items():
        with pytest.raises(StoreUnavailable, match=words):
            await RadosStore.open(wrong, timeout=5)
