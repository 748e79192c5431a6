"""The store's file: made safely, recognised before it is touched, and opened with the settings that matter.

Invariants: an acknowledged commit survives a power cut (WAL with synchronous=FULL, the directory entry
synced), nobody but the owner reads it (0600 in 0700), and a file that another program or a newer vcl wrote
is left alone.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from reconciler.adapters.local_files import MOUNTS, require_local
from reconciler.adapters.sqlite_errors import DAMAGED_CURE, is_busy, translate, translate_os
from reconciler.resources.errors import StoreUnavailable

APPLICATION_ID = 0x76636C31
"""The bytes `vcl1` in the file's header, so that no other database is taken for a store."""

FORMAT = 1
"""Raised when an older program could not read the file any more."""

BUSY_MS = 5
READ_BUSY_MS = 1000

_SCHEMA = (
    """CREATE TABLE meta (
        one INTEGER PRIMARY KEY CHECK (one = 1), revision INTEGER NOT NULL, compacted INTEGER NOT NULL,
        log_bytes INTEGER NOT NULL, fence INTEGER NOT NULL)""",
    "INSERT INTO meta VALUES (1, 0, 0, 0, 0)",
    "CREATE TABLE kv (key TEXT NOT NULL UNIQUE, revision INTEGER NOT NULL, value BLOB NOT NULL)",
    "CREATE TABLE changes (id INTEGER PRIMARY KEY, revision INTEGER NOT NULL, key TEXT NOT NULL, value BLOB)",
    "CREATE INDEX changes_revision ON changes (revision)",
    "CREATE TABLE txns (revision INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE)",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {FORMAT}",
)

_creating = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreFile:
    """A store's file, found good. `device`, `inode`: what was opened, wherever the name points now."""

    path: Path
    device: int
    inode: int

    def require_same(self) -> None:
        """Raise StoreUnavailable when the name has come to mean another file, or none: what is written to
        the old one would be lost."""
        try:
            found = os.stat(self.path)
        except FileNotFoundError as error:
            raise self._replaced("was removed") from error
        except OSError as error:
            raise translate_os(error, self.path) from error
        if (found.st_dev, found.st_ino) != (self.device, self.inode):
            raise self._replaced("was replaced by another file")

    def _replaced(self, how: str) -> StoreUnavailable:
        return StoreUnavailable(
            f"the store {self.path} {how} while it was in use", cure="put it back, or restart vcld"
        )

    def connect(self, *, writer: bool) -> sqlite3.Connection:
        """A connection with the settings that keep the promise above; for one thread at a time."""
        connection = _connect(self.path, busy_ms=BUSY_MS if writer else READ_BUSY_MS)
        try:
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA journal_size_limit = 8388608")
            if not writer:
                connection.execute("PRAGMA query_only = ON")
        except sqlite3.Error:
            connection.close()
            raise
        return connection


def prepare(path: Path, *, timeout: float, mounts: Path = MOUNTS) -> StoreFile:
    """Find or make the store's file, check it, and return it. Blocks for up to `timeout` seconds on a lock.

    Raises StoreUnavailable: a network file system, no permission, a full disk, a damaged file, somebody
    else's file, a newer format.
    """
    deadline = time.monotonic() + timeout
    try:
        path = path.absolute()
        require_local(path, mounts=mounts)
        with _creating:
            _create(path)
        found = os.stat(path)
    except OSError as error:
        raise translate_os(error, path) from error
    if not stat.S_ISREG(found.st_mode):
        raise StoreUnavailable(f"the store {path} is not a regular file", cure="correct the path")
    if not os.access(path, os.R_OK | os.W_OK, effective_ids=True):
        raise StoreUnavailable(
            f"the store {path} cannot be read and written by this user or on this mount",
            cure="look at its owner and mode, and whether its file system is mounted read-only",
        )
    while True:
        try:
            with closing(_connect(path, busy_ms=BUSY_MS)) as connection:
                _initialise(connection, path)
            return StoreFile(path=path, device=found.st_dev, inode=found.st_ino)
        except sqlite3.Error as error:
            if not is_busy(error) or time.monotonic() >= deadline:
                raise translate(error, path) from error
            time.sleep(0.01)


def _create(path: Path) -> None:
    """Make the directory and an empty file, on disk when this returns.

    Only a new file is opened here: closing any descriptor of an open database drops SQLite's locks on it.
    """
    missing = [parent for parent in path.parents if not parent.exists()]
    for directory in reversed(missing):
        directory.mkdir(mode=0o700, exist_ok=True)
        _sync(directory.parent)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    _sync(path.parent)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _connect(path: Path, *, busy_ms: int) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=busy_ms / 1000, isolation_level=None, check_same_thread=False)


def _initialise(connection: sqlite3.Connection, path: Path) -> None:
    """Recognise the file before writing a byte of it; then make the tables, once."""
    new = _is_new(connection, path)
    if not new:
        _check(connection, path)
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise StoreUnavailable(
            f"the store {path}: its file system does not take SQLite's write-ahead log (got {mode!r})",
            cure="put it on an ordinary local file system such as ext4 or xfs",
        )
    if not new:
        return
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("BEGIN IMMEDIATE")
    if _is_new(connection, path):
        for statement in _SCHEMA:
            connection.execute(statement)
    connection.execute("COMMIT")


def _is_new(connection: sqlite3.Connection, path: Path) -> bool:
    """False for a store of ours; StoreUnavailable for what is not ours to touch."""
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if (application, version, tables) == (0, 0, 0):
        return True
    if application != APPLICATION_ID:
        raise StoreUnavailable(
            f"{path} is a database of another program, not a vcl store",
            cure="point the configuration at the right file, or at a new one",
        )
    if version > FORMAT:
        raise StoreUnavailable(
            f"the store {path} was written by a newer vcl (format {version}; this program knows {FORMAT})",
            cure="install that version of vcl again",
        )
    return False


def _check(connection: sqlite3.Connection, path: Path) -> None:
    findings = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if findings != "ok":
        raise StoreUnavailable(
            f"the store {path} is damaged: {findings}",
            cure=DAMAGED_CURE,
        )
