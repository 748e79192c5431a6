"""What SqliteStore says when a commit is slow, fails, or is behind somebody else's lock."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from reconciler.adapters.sqlite_file import StoreFile, prepare
from reconciler.adapters.sqlite_reader import POLL
from reconciler.adapters.sqlite_store import SqliteStore
from reconciler.adapters.sqlite_tables import Limits
from reconciler.resources.errors import OutcomeUnknown, StoreUnavailable
from reconciler.resources.transactions import Changes, Committed, Compacted, NotApplied, Unresolved
from reconciler.testing.store_harness import commit, read, txn

HANG = 10.0


@dataclass(slots=True)
class Faults:
    """What the writer's connection does. `gate`: commits wait for it."""

    gate: threading.Event = field(default_factory=threading.Event)
    commits: int = 0
    before: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)
    rollback: list[str] = field(default_factory=list)
    largest_value: int = 0


class FaultyConnection(sqlite3.Connection):
    """Fails COMMIT and ROLLBACK with the result codes that the lists name, one each time."""

    faults: Faults

    def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        faults = self.faults
        if sql == "COMMIT":
            faults.gate.wait(HANG)
            faults.commits += 1
            fail(faults.before)
            cursor = super().execute(sql, *arguments)
            fail(faults.after)
            return cursor
        if sql == "ROLLBACK":
            fail(faults.rollback)
        return super().execute(sql, *arguments)


def fail(codes: list[str]) -> None:
    if codes:
        error = sqlite3.OperationalError(f"injected {codes[0]}")
        error.sqlite_errorname = codes.pop(0)
        raise error


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultyFile(StoreFile):
    """A store's file whose writer is faulty; readers are sound."""

    faults: Faults

    def connect(self, *, writer: bool) -> sqlite3.Connection:
        if not writer:
            return StoreFile.connect(self, writer=False)
        connection = sqlite3.connect(
            self.path, timeout=0.005, isolation_level=None, check_same_thread=False, factory=FaultyConnection
        )
        connection.faults = self.faults
        if self.faults.largest_value:
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, self.faults.largest_value)
        return connection


@asynccontextmanager
async def faulty(directory: Path, faults: Faults, *, log_size: int = 10_000) -> AsyncIterator[SqliteStore]:
    """A store whose commits go as `faults` says; its gate is open unless the test closes it."""
    faults.gate.set()
    sound = prepare(directory / "store.db", timeout=HANG)
    file = FaultyFile(path=sound.path, device=sound.device, inode=sound.inode, faults=faults)
    store = SqliteStore(file, limits=Limits(revisions=log_size, bytes=2**30))
    try:
        yield store
    finally:
        faults.gate.set()
        await store.close()


def fence(directory: Path) -> int:
    """What another process sees of the counter that a resolution raises."""
    with closing(sqlite3.connect(directory / "store.db")) as connection:
        counter: int = connection.execute("SELECT fence FROM meta").fetchone()[0]
        return counter


async def test_a_commit_that_takes_too_long_is_unknown_and_resolves_once_it_is_done(tmp_path: Path) -> None:
    faults, transaction = Faults(), txn({"a": b"1"})
    async with faulty(tmp_path, faults) as store:
        faults.gate.clear()
        with pytest.raises(OutcomeUnknown) as caught:
            await store.txn(transaction, timeout=0.05)
        assert caught.value.txn_id == transaction.id
        with pytest.raises(StoreUnavailable):
            await store.resolve(transaction.id, timeout=0.05)
        resolving = asyncio.create_task(store.resolve(transaction.id, timeout=HANG))
        faults.gate.set()
        assert await resolving == Committed(revision=1)


async def test_a_write_behind_a_slow_commit_is_withdrawn_at_its_deadline(tmp_path: Path) -> None:
    faults = Faults()
    async with faulty(tmp_path, faults) as store:
        faults.gate.clear()
        slow = asyncio.create_task(store.txn(txn({"slow": b""}), timeout=HANG))
        await asyncio.sleep(0.05)
        behind = txn({"behind": b""})
        with pytest.raises(StoreUnavailable, match="did not answer within"):
            await store.txn(behind, timeout=0.05)
        faults.gate.set()
        assert isinstance(await slow, Committed)
        assert await store.resolve(behind.id) == NotApplied()
        assert await read(store, "behind") is None


async def test_reads_do_not_wait_for_a_slow_commit(tmp_path: Path) -> None:
    faults = Faults()
    async with faulty(tmp_path, faults) as store:
        await commit(store, txn({"a": b"1"}))
        faults.gate.clear()
        slow = asyncio.create_task(store.txn(txn({"a": b"2"}), timeout=HANG))
        await asyncio.sleep(0.05)
        assert [item.value for item in (await store.list("")).items] == [b"1"]
        faults.gate.set()
        await slow
        assert [item.value for item in (await store.list("")).items] == [b"2"]


async def test_writes_that_wait_for_a_commit_share_the_next_one(tmp_path: Path) -> None:
    faults = Faults()
    async with faulty(tmp_path, faults) as store:
        faults.gate.clear()
        writes = [asyncio.create_task(commit(store, txn({f"k{n}": b""}))) for n in range(200)]
        await asyncio.sleep(0.05)
        faults.gate.set()
        assert sorted(await asyncio.gather(*writes)) == list(range(1, 201))
        assert faults.commits <= 3


async def test_a_commit_that_failed_for_lack_of_space_had_no_effect(tmp_path: Path) -> None:
    faults, transaction = Faults(before=["SQLITE_FULL"]), txn({"a": b"1"})
    async with faulty(tmp_path, faults) as store:
        with pytest.raises(StoreUnavailable, match="the disk is full"):
            await store.txn(transaction)
        assert (await store.list("")).items == ()
        assert await store.txn(transaction) == Committed(revision=1)


@pytest.mark.parametrize("code", ["SQLITE_IOERR_FSYNC", "SQLITE_IOERR_WRITE", "SQLITE_CORRUPT"])
async def test_a_commit_that_failed_otherwise_is_unknown_until_a_later_commit_fences_it(
    tmp_path: Path, code: str
) -> None:
    faults, transaction = Faults(before=[code]), txn({"a": b"1"})
    async with faulty(tmp_path, faults) as store:
        with pytest.raises(OutcomeUnknown) as caught:
            await store.txn(transaction)
        assert caught.value.txn_id == transaction.id
        before = fence(tmp_path)
        assert await store.resolve(transaction.id) == NotApplied()
        assert fence(tmp_path) == before + 1


async def test_a_commit_reported_as_failed_that_is_there_resolves_to_committed(tmp_path: Path) -> None:
    faults, transaction = Faults(after=["SQLITE_IOERR_FSYNC"]), txn({"a": b"1"})
    async with faulty(tmp_path, faults) as store:
        with pytest.raises(OutcomeUnknown):
            await store.txn(transaction)
        assert await store.resolve(transaction.id) == Committed(revision=1)


async def test_an_unknown_outcome_is_not_resolved_by_a_fence_that_failed(tmp_path: Path) -> None:
    faults, transaction = Faults(before=["SQLITE_IOERR_FSYNC"] * 2), txn({"a": b"1"})
    async with faulty(tmp_path, faults) as store:
        with pytest.raises(OutcomeUnknown):
            await store.txn(transaction)
        with pytest.raises(StoreUnavailable):
            await store.resolve(transaction.id)
        assert await store.resolve(transaction.id) == NotApplied()


async def test_the_others_in_a_failed_commit_learn_that_they_had_no_effect(tmp_path: Path) -> None:
    faults = Faults()
    async with faulty(tmp_path, faults) as store:
        first = await commit(store, txn({"a": b"1"}))
        faults.gate.clear()
        blocker = asyncio.create_task(store.txn(txn({"b": b""}), timeout=HANG))
        await asyncio.sleep(0.05)
        write = asyncio.create_task(store.txn(txn({"a": b"2"}), timeout=HANG))
        lost = asyncio.create_task(store.txn(txn({"a": b"3"}, compares={"a": first}), timeout=HANG))
        await asyncio.sleep(0.05)
        faults.before = ["SQLITE_IOERR_FSYNC"] * 2
        faults.gate.set()
        results = await asyncio.gather(blocker, write, lost, return_exceptions=True)
        assert [type(result) for result in results] == [OutcomeUnknown, OutcomeUnknown, StoreUnavailable]


async def test_a_value_too_large_fails_alone_among_those_committed_with_it(tmp_path: Path) -> None:
    faults = Faults(largest_value=1_000_000)
    async with faulty(tmp_path, faults) as store:
        faults.gate.clear()
        sizes = [10, 20, 2_000_000, 30]
        writes = [
            asyncio.create_task(store.txn(txn({"small": b"", f"k{size}": bytes(size)}), timeout=HANG))
            for size in sizes
        ]
        await asyncio.sleep(0.05)
        faults.gate.set()
        results = await asyncio.gather(*writes, return_exceptions=True)
        assert [type(result) for result in results] == [Committed, Committed, StoreUnavailable, Committed]
        listing = await store.list("k")
        assert [(item.key, item.revision) for item in listing.items] == [("k10", 1), ("k20", 2), ("k30", 3)]


async def test_a_connection_that_cannot_roll_back_is_replaced(tmp_path: Path) -> None:
    faults = Faults(before=["SQLITE_FULL"], rollback=["SQLITE_IOERR"])
    async with faulty(tmp_path, faults) as store:
        with pytest.raises(StoreUnavailable):
            await store.txn(txn({"a": b"1"}))
        await commit(store, txn({"b": b"1"}))
        assert [item.key for item in (await store.list("")).items] == ["b"]


async def test_closing_waits_for_the_commit_under_way_and_refuses_what_is_queued(tmp_path: Path) -> None:
    faults = Faults()
    async with faulty(tmp_path, faults) as store:
        faults.gate.clear()
        taken = asyncio.create_task(store.txn(txn({"taken": b""}), timeout=HANG))
        await asyncio.sleep(0.05)
        queued = asyncio.create_task(store.txn(txn({"queued": b""}), timeout=HANG))
        await asyncio.sleep(0.05)
        closing_store = asyncio.create_task(store.close())
        with pytest.raises(StoreUnavailable, match="closed"):
            await queued
        assert not closing_store.done()
        faults.gate.set()
        await closing_store
        assert isinstance(await taken, Committed)


async def test_behind_another_process_s_lock_writes_give_up_without_a_trace(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = await SqliteStore.open(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        given_up = txn({"a": b"1"})
        with pytest.raises(StoreUnavailable, match=r"another process holds its lock.*fuser"):
            await store.txn(given_up, timeout=0.1)
        assert (await store.list("")).items == ()
        waiting = asyncio.create_task(store.txn(txn({"b": b"1"}), timeout=HANG))
        await asyncio.sleep(0.05)
        other.execute("ROLLBACK")
    assert isinstance(await waiting, Committed)
    assert await store.resolve(given_up.id) == NotApplied()
    assert [item.key for item in (await store.list("")).items] == ["b"]
    await store.close()


async def test_an_own_unknown_outcome_is_resolved_although_older_log_was_trimmed(tmp_path: Path) -> None:
    faults = Faults()
    async with faulty(tmp_path, faults, log_size=4) as store:
        for number in range(20):
            await commit(store, txn({"a": str(number).encode()}))
        faults.before = ["SQLITE_IOERR_FSYNC"]
        transaction = txn({"a": b"lost"})
        with pytest.raises(OutcomeUnknown):
            await store.txn(transaction)
        assert await store.resolve("somebody-else") == Unresolved()
        assert await store.resolve(transaction.id) == NotApplied()


async def test_an_unknown_outcome_stays_unresolved_once_its_time_was_trimmed(tmp_path: Path) -> None:
    faults = Faults(before=["SQLITE_IOERR_FSYNC"])
    async with faulty(tmp_path, faults, log_size=4) as store:
        transaction = txn({"a": b"lost"})
        with pytest.raises(OutcomeUnknown):
            await store.txn(transaction)
        for number in range(20):
            await commit(store, txn({"a": str(number).encode()}))
        assert await store.resolve(transaction.id) == Unresolved()


async def test_the_log_is_bounded_by_the_size_of_its_values_too(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = await SqliteStore.open(path, log_bytes=500_000)
    for number in range(100):
        await commit(store, txn({"a": bytes(50_000), "number": str(number).encode()}))
    revision = (await store.list("")).revision
    assert isinstance(await store.watch(0, timeout=0), Compacted)
    assert isinstance(await store.watch(revision - 1, timeout=0), Changes)
    await store.close()
    assert path.stat().st_size < 2_000_000


async def test_an_own_commit_wakes_the_watch_without_waiting_for_the_next_poll(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "store.db")
    async with asyncio.timeout(100 * POLL / 4):
        for number in range(100):
            watch = asyncio.create_task(store.watch(number, timeout=HANG))
            await asyncio.sleep(0)
            await commit(store, txn({"a": b""}))
            assert isinstance(await watch, Changes)
    await store.close()
