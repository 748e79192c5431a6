"""What SQLite's errors mean for the person who runs the store, and whether a failed commit was one."""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path

from reconciler.resources.errors import StoreUnavailable

LOCKED = "another process holds its lock"
LOCKED_CURE = "look for programs that have the file open (fuser -v)"
DAMAGED_CURE = "stop vcld, keep a copy of the file, and restore a backup or use `sqlite3 FILE .recover`"

_MEANING = {
    "SQLITE_FULL": ("the disk is full", "free some space on its file system; vcl goes on by itself"),
    "SQLITE_IOERR": (
        "the disk reports an I/O error",
        "look at the kernel's log, the quota and the limits on file sizes",
    ),
    "SQLITE_READONLY": (
        "it cannot be written",
        "look at the owner and mode of the file and its directory, and whether it is mounted read-only",
    ),
    "SQLITE_CANTOPEN": ("it cannot be opened", "look at the owner and mode of the file and its directory"),
    "SQLITE_CORRUPT": ("the file is damaged", DAMAGED_CURE),
    "SQLITE_NOTADB": (
        "the file is not a vcl store",
        "move it away, or point the configuration at the right file",
    ),
    "SQLITE_BUSY": (LOCKED, LOCKED_CURE),
    "SQLITE_LOCKED": (LOCKED, LOCKED_CURE),
    "SQLITE_PERM": ("access is denied", "look at the owner and mode of the file and its directory"),
    "SQLITE_TOOBIG": ("a value is larger than SQLite takes", "store something smaller"),
}

_OS_CURES = {
    errno.EACCES: "run as a user who may write there, or change the owner or mode",
    errno.EPERM: "run as a user who may write there, or change the owner or mode",
    errno.EROFS: "mount the file system read-write, or put the store elsewhere",
    errno.ENOSPC: "free some space on its file system",
    errno.EDQUOT: "free some space, or raise the quota",
    errno.ENOTDIR: "correct the path: a part of it is a file",
}


def code(error: sqlite3.Error) -> str:
    """The primary result code, such as SQLITE_FULL; empty for errors that the binding itself raised."""
    name: str = getattr(error, "sqlite_errorname", None) or ""
    return "_".join(name.split("_")[:2])


def is_busy(error: sqlite3.Error) -> bool:
    """Another connection has the lock; the same call may succeed a moment later."""
    return code(error) in ("SQLITE_BUSY", "SQLITE_LOCKED")


def had_no_effect(error: sqlite3.Error) -> bool:
    """After a failed COMMIT: True when its commit record certainly never reached the log.

    A full disk stops the log before that record, which comes last, and a busy commit never began. Any other
    failure (a failed fsync above all) may leave it on disk, to be found after a crash.
    """
    return code(error) in ("SQLITE_FULL", "SQLITE_BUSY")


def translate(error: sqlite3.Error, path: Path) -> StoreUnavailable:
    """The error in words, with the file and a cure; the cause is chained."""
    what, cure = _MEANING.get(code(error), ("SQLite failed", "look at the file and its disk"))
    unavailable = StoreUnavailable(f"the store {path}: {what} ({error})", cure=cure)
    unavailable.__cause__ = error
    return unavailable


def translate_os(error: OSError, path: Path) -> StoreUnavailable:
    """The same for errors of the operating system."""
    where = f" ({error.filename})" if error.filename and error.filename != str(path) else ""
    unavailable = StoreUnavailable(
        f"cannot open the store {path}: {error.strerror}{where}",
        cure=_OS_CURES.get(error.errno or 0, "look at the path and its disk"),
    )
    unavailable.__cause__ = error
    return unavailable


def closed(path: Path) -> StoreUnavailable:
    """What every call on a closed store gets."""
    return StoreUnavailable(f"the store {path} is closed")
