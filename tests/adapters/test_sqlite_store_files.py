"""SqliteStore opens what is its own and nothing else, and says in words why a file cannot be used."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from reconciler.adapters.sqlite_file import APPLICATION_ID, FORMAT, prepare
from reconciler.adapters.sqlite_store import SqliteStore
from reconciler.resources.errors import StoreUnavailable
from reconciler.testing.store_harness import commit, txn

CHILD = str(Path(__file__).with_name("sqlite_child.py"))
PRIVATE_MOUNTS = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"])]
NOBODY = 65534


async def refused(path: Path, *, timeout: float = 10.0, **options: Path) -> str:
    """The words with which opening is refused."""
    with pytest.raises(StoreUnavailable) as caught:
        await SqliteStore.open(path, timeout=timeout, **options)
    assert str(path) in str(caught.value)
    assert caught.value.cure
    return str(caught.value)


async def made(path: Path, *, entries: int = 1) -> None:
    """A closed store with some content."""
    store = await SqliteStore.open(path)
    for number in range(entries):
        await commit(store, txn({f"key{number:04}": os.urandom(1000)}))
    await store.close()


@contextmanager
def powerless() -> Iterator[None]:
    """Without root's right to open everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that everybody can look into."""
    directory = Path(tempfile.mkdtemp(prefix="vcl-test-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


async def test_the_file_is_private_and_so_are_its_directories(tmp_path: Path) -> None:
    path = tmp_path / "var" / "vcl" / "store.db"
    store = await SqliteStore.open(path)
    await commit(store, txn({"a": b"secret"}))
    modes = {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in path.parent.iterdir()}
    await store.close()
    assert modes == {"store.db": 0o600, "store.db-wal": 0o600, "store.db-shm": 0o600}
    assert [stat.S_IMODE(each.stat().st_mode) for each in (path.parent, path.parent.parent)] == [0o700, 0o700]


async def test_a_commit_is_on_disk_when_it_is_acknowledged(tmp_path: Path) -> None:
    file = prepare(tmp_path / "store.db", timeout=1)
    with closing(file.connect(writer=True)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)


async def test_a_closed_store_is_whole_in_its_one_file(tmp_path: Path) -> None:
    for number in range(30):
        path = tmp_path / f"{number}.db"
        store = await SqliteStore.open(path)
        await commit(store, txn({"key": b""}))
        await store.list("")
        await store.close()
        assert sorted(file.name for file in tmp_path.glob(f"{number}.db*")) == [path.name]


async def test_a_network_file_system_is_refused(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text("1 0 0:9 / / rw - nfs4 server:/export rw\n")
    words = await refused(tmp_path / "vcl" / "store.db", mounts=mounts)
    assert "network or shared file system (nfs4 at /)" in words
    assert not (tmp_path / "vcl").exists()


async def test_a_newer_format_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    await made(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {FORMAT + 1}")
        connection.execute("PRAGMA journal_mode = DELETE")
    before = path.read_bytes()
    words = await refused(path)
    assert f"written by a newer vcl (format {FORMAT + 1}; this program knows {FORMAT})" in words
    assert path.read_bytes() == before


async def test_another_program_s_database_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE bookmarks (url TEXT)")
    before = path.read_bytes()
    assert "database of another program" in await refused(path)
    assert path.read_bytes() == before


async def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.write_text("apiVersion: vcl/v1\n" * 100)
    assert "not a vcl store" in await refused(path)
    assert path.read_text().startswith("apiVersion")


async def test_an_empty_file_becomes_a_store(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.touch()
    await made(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)


async def test_a_directory_or_a_pipe_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("directory", "pipe"):
        assert "is not a regular file" in await refused(tmp_path / name)


async def test_a_path_through_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "correct the path" in await refused(tmp_path / "file" / "store.db")


async def test_a_store_with_damaged_pages_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    await made(path, entries=50)
    damage(path)
    words = await refused(path)
    assert "damaged" in words
    assert "backup" in words


async def test_a_truncated_store_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    await made(path, entries=50)
    os.truncate(path, 20_000)
    assert "damaged" in await refused(path)


async def test_a_store_that_gets_damaged_while_open_says_so_and_never_lies(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    await made(path, entries=200)
    store = await SqliteStore.open(path)
    damage(path)
    with pytest.raises(StoreUnavailable, match="the file is damaged"):
        await store.list("")
    with pytest.raises(StoreUnavailable, match="the file is damaged"):
        await store.txn(txn({"key0001": b"x"}))
    await store.close()


def damage(path: Path) -> None:
    """Overwrite all but the first page."""
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(path.stat().st_size - 4096))


async def test_a_directory_without_rights_is_refused(public: Path) -> None:
    if os.geteuid() != 0:
        public.chmod(0o555)
    with powerless():
        words = await refused(public / "vcl" / "store.db")
    assert "Permission denied" in words
    public.chmod(0o755)


async def test_a_file_without_rights_is_refused(public: Path) -> None:
    path = public / "store.db"
    await made(path)
    path.chmod(0o400)
    with powerless():
        assert "cannot be read and written by this user" in await refused(path)


async def test_a_writable_file_in_a_directory_without_rights_is_refused(public: Path) -> None:
    path = public / "store.db"
    await made(path)
    path.chmod(0o666)
    public.chmod(0o555)
    with powerless():
        words = await refused(path)
    assert "owner and mode of the file and its directory" in words
    public.chmod(0o755)


async def test_a_read_only_file_system_is_refused(tmp_path: Path) -> None:
    look = f'"{sys.executable}" "{CHILD}" look "{tmp_path}/vcl/store.db" x'
    script = (
        f'mount -t tmpfs tmpfs "{tmp_path}" && {look} && mount -o remount,ro "{tmp_path}" && {look}'
        f" && {look.replace('/vcl/', '/new/')}"
    )
    process = await asyncio.create_subprocess_exec(
        *PRIVATE_MOUNTS, "sh", "-c", script, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    said, _ = await process.communicate()
    first, second, third = said.decode().splitlines()
    assert first == "opened"
    assert second.startswith("error StoreUnavailable")
    assert "mounted read-only" in second
    assert "Read-only file system" in third


async def test_a_store_whose_file_was_removed_or_replaced_stops_answering(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = await SqliteStore.open(path)
    await commit(store, txn({"a": b"1"}))
    path.rename(tmp_path / "elsewhere")
    with pytest.raises(StoreUnavailable, match="was removed while it was in use"):
        await store.txn(txn({"a": b"2"}))
    await made(path)
    with pytest.raises(StoreUnavailable, match="was replaced by another file"):
        await store.txn(txn({"a": b"2"}))
    with pytest.raises(StoreUnavailable, match="was replaced by another file"):
        await store.get(["a"])
    await store.close()


async def test_a_watch_notices_that_the_file_was_replaced(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = await SqliteStore.open(path)
    watch = asyncio.create_task(store.watch(0, timeout=60))
    await asyncio.sleep(0.05)
    path.rename(tmp_path / "elsewhere")
    async with asyncio.timeout(10):
        with pytest.raises(StoreUnavailable, match="was removed"):
            await watch
    await store.close()


async def test_opening_gives_up_on_a_lock_that_is_never_released(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    await made(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        assert "another process holds its lock" in await refused(path, timeout=0.2)
