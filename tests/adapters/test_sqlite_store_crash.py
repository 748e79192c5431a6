"""SqliteStore keeps what it acknowledged: through kill -9, other processes, and disks that run full."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from reconciler.adapters.sqlite_store import SqliteStore
from reconciler.resources.transactions import Changes, Committed
from reconciler.testing.store_harness import commit, read, txn

CHILD = str(Path(__file__).with_name("sqlite_child.py"))
HANG = 60.0

KILL_AFTER = [0, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 1, 4, 7, 60, 120, 240]
"""Acknowledgements to wait for before each kill."""

PRIVATE_MOUNTS = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"])]


async def child(
    role: str, path: Path, argument: str, *, prefix: tuple[str, ...] = ()
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *prefix,
        sys.executable,
        CHILD,
        role,
        str(path),
        argument,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


async def heard(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(HANG):
        return (await process.stdout.readline()).decode().strip()


async def ask(process: asyncio.subprocess.Process, command: str) -> str:
    assert process.stdin is not None
    process.stdin.write(f"{command}\n".encode())
    return await heard(process)


async def finish(process: asyncio.subprocess.Process) -> int:
    """Its exit code, once its input has ended."""
    assert process.stdin is not None
    process.stdin.close()
    assert await heard(process) == "closed"
    async with asyncio.timeout(HANG):
        return await process.wait()


async def kill_a_writer(path: Path, run: str, acknowledgements: int) -> set[str]:
    """Everything a writer acknowledged before it was killed at an arbitrary instant."""
    process = await child("pairs", path, run)
    acknowledged = {await heard(process) for _ in range(acknowledgements)}
    process.kill()
    assert process.stdout is not None
    rest = (await process.stdout.read()).decode()
    await process.wait()
    return acknowledged | set(rest.split("\n")[:-1])


@pytest.mark.slow
async def test_nothing_acknowledged_is_lost_and_nothing_is_half_done_by_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    acknowledged: set[str] = set()
    revision = 0
    for number, count in enumerate(KILL_AFTER):
        acknowledged |= await kill_a_writer(path, f"run{number}", count)
        store = await SqliteStore.open(path, log_size=1_000_000)
        listing = await store.list("")
        left = {item.key.removeprefix("left/"): item for item in (await store.list("left/")).items}
        right = {item.key.removeprefix("right/"): item for item in (await store.list("right/")).items}
        pairs = [(name, left[name].value, left[name].revision) for name in left]
        assert pairs == [(name, right[name].value, right[name].revision) for name in right]
        for id in acknowledged:
            assert isinstance(await store.resolve(id), Committed), f"{id} was acknowledged and is lost"
        assert listing.revision >= max(revision, len(acknowledged))
        revision = listing.revision
        await store.close()
    assert len(acknowledged) >= sum(KILL_AFTER)


@pytest.mark.slow
async def test_a_daemon_killed_while_it_makes_the_store_leaves_one_that_opens(tmp_path: Path) -> None:
    for number in range(8):
        path = tmp_path / str(number) / "store.db"
        process = await child("pairs", path, "run")
        async with asyncio.timeout(HANG):
            while not path.exists():
                await asyncio.sleep(0.0005)
        await asyncio.sleep(number * 0.0005)
        process.kill()
        await process.communicate()
        store = await SqliteStore.open(path)
        await commit(store, txn({"a": b"1"}))
        await store.close()


async def test_two_processes_that_share_the_file_lose_no_update(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    processes = [await child("increment", path, "40") for _ in range(2)]
    assert [await heard(process) for process in processes] == ["done", "done"]
    assert [await process.wait() for process in processes] == [0, 0]
    store = await SqliteStore.open(path)
    counter = await read(store, "counter")
    await store.close()
    assert counter is not None
    assert (counter.value, counter.revision) == (b"320", 320)


async def test_a_commit_of_another_process_wakes_the_watch(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = await SqliteStore.open(path)
    watch = asyncio.create_task(store.watch(0, timeout=HANG))
    process = await child("increment", path, "1")
    async with asyncio.timeout(HANG / 2):
        result = await watch
    assert isinstance(result, Changes)
    assert result.events[0].key == "counter"
    assert await heard(process) == "done"
    await process.wait()
    await store.close()


async def test_a_full_disk_is_said_and_harms_nothing_and_passes(tmp_path: Path) -> None:
    mount = f'mount -t tmpfs -o size=2m tmpfs "{tmp_path}" && exec "$@"'
    process = await child(
        "fill", tmp_path / "vcl" / "store.db", "0", prefix=(*PRIVATE_MOUNTS, "sh", "-c", mount, "sh")
    )
    error = await heard(process)
    assert error.startswith("error StoreUnavailable the store ")
    assert "store.db: the disk is full" in error
    assert "free some space" in error
    acknowledged = int((await heard(process)).removeprefix("acknowledged "))
    assert acknowledged > 0
    whole = f"left {acknowledged} right {acknowledged}"
    assert await ask(process, "list") == whole
    assert await ask(process, "free\nwrite") == "Committed"
    assert await ask(process, "list") == whole
    assert await finish(process) == 0


async def test_a_file_that_may_not_grow_is_said_and_harms_nothing_and_passes(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    process = await child("fill", path, "1000000")
    error = await heard(process)
    assert error.startswith(("error StoreUnavailable the store ", "error OutcomeUnknown the store "))
    assert "I/O error" in error
    acknowledged = int((await heard(process)).removeprefix("acknowledged "))
    whole = f"left {acknowledged} right {acknowledged}"
    assert await ask(process, "list") == whole
    assert await ask(process, "free\nwrite") == "Committed"
    assert await finish(process) == 0
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    store = await SqliteStore.open(path)
    assert len((await store.list("left/")).items) == acknowledged
    await commit(store, txn({"more": b""}))
    await store.close()
