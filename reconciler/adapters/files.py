"""Replacing files so that nobody's bytes are lost: atomic, durable, and checked against other writers.

The invariant: whatever is interrupted, the target holds the old bytes or the new ones, whole; and bytes that
were not expected there are never overwritten (SAFETY rule 19). Everything here blocks: call it on a thread.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import secrets
import stat
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

TEMPORARY = ".vcl-tmp"
"""How the names of half-written files end; they also start with a dot."""

_AT_FDCWD = -100
_NOREPLACE = 1
_EXCHANGE = 2
_UNSUPPORTED = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EPERM})

Exchange = Callable[[Path, Path], bool]
"""Swap two files atomically; False when the file system cannot."""


class Changed(Exception):
    """The target does not hold what was expected. `kept`: where bytes were put aside, None when they are
    in their place."""

    def __init__(self, kept: Path | None = None) -> None:
        super().__init__(str(kept or ""))
        self.kept = kept


def digest(data: bytes) -> str:
    """The digest by which files are compared (SHA-256, hexadecimal)."""
    return sha256(data).hexdigest()


def exchange(one: Path, other: Path) -> bool:
    """renameat2(RENAME_EXCHANGE); False where the C library, the kernel or the file system has none."""
    return _renameat2(one, other, _EXCHANGE)


def place(source: Path, target: Path) -> None:
    """Rename to a name that must be free. FileExistsError otherwise."""
    if _renameat2(source, target, _NOREPLACE):
        return
    os.link(source, target)
    source.unlink()


def write_durably(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Create or replace a file that is ours alone; safe against power loss. Raises OSError."""
    temporary = _temporary(path, data, mode=mode, like=None)
    try:
        os.replace(temporary, path)
    except OSError:
        _discard(temporary)
        raise
    sync_directory(path.parent)


def make_parents(root: Path, path: Path) -> None:
    """Make the directories between `root`, which must be there, and the file `path`, durably."""
    missing = []
    parent = path.parent
    while not parent.is_dir():
        if parent == root or root not in parent.parents:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(root))
        missing.append(parent)
        parent = parent.parent
    for directory in reversed(missing):
        directory.mkdir(mode=0o750, exist_ok=True)
        sync_directory(directory.parent)


def holds(path: Path, data: bytes) -> bool:
    """Whether a regular file with exactly these bytes is there."""
    try:
        return _found(path) == digest(data)
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno == errno.ELOOP:  # a link
            return False
        raise


def create(path: Path, data: bytes, *, mode: int) -> None:
    """Write a file that must not exist yet. Changed when it does; OSError leaves nothing behind."""
    temporary = _temporary(path, data, mode=mode, like=None)
    try:
        place(temporary, path)
    except FileExistsError as error:
        _discard(temporary)
        raise Changed from error
    except OSError:
        _discard(temporary)
        raise
    sync_directory(path.parent)


def replace_checked(
    path: Path, data: bytes, *, expect: str, aside: Callable[[], Path], swap: Exchange = exchange
) -> None:
    """Replace a file whose digest is `expect`, keeping its mode and owner.

    Changed when it holds something else; `aside` names a new file for bytes that cannot stay in place.
    """
    _require(path, expect)
    temporary = _temporary(path, data, mode=0o600, like=path)
    try:
        swapped = swap(temporary, path)
        if not swapped:
            _replace_plainly(temporary, path, expect)
    except (OSError, Changed):
        _discard(temporary)
        raise
    if swapped and _found(temporary) != expect:
        _swap_back(temporary, path, data, aside, swap)
    _discard(temporary)
    sync_directory(path.parent)


def remove_checked(path: Path, *, expect: str, aside: Callable[[], Path]) -> None:
    """Remove a file whose digest is `expect`. Changed when it holds something else: that stays."""
    _require(path, expect)
    hidden = path.with_name(_hidden_name(path))
    try:
        place(path, hidden)
    except FileNotFoundError as error:
        raise Changed from error
    if _found(hidden) != expect:
        raise Changed(_return(hidden, path, aside))
    hidden.unlink()
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # file systems that have no such thing say so
            raise
    finally:
        os.close(handle)


def _renameat2(source: Path, target: Path, flags: int) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    call = getattr(libc, "renameat2", None)
    if call is None:
        return False
    if call(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), flags) == 0:
        return True
    number = ctypes.get_errno()
    if number in _UNSUPPORTED:
        return False
    raise OSError(number, os.strerror(number), str(source), None, str(target))


def _require(path: Path, expect: str) -> None:
    try:
        found = _found(path)
    except FileNotFoundError as error:
        raise Changed from error
    if found != expect:
        raise Changed


def _found(path: Path) -> str:
    """The digest of a regular file; empty for anything else, which is never waited for."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    handle = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        return ""
    with os.fdopen(handle, "rb") as file:
        return digest(file.read())


def _hidden_name(path: Path) -> str:
    return f".{path.name[:180]}.{secrets.token_hex(4)}{TEMPORARY}"


def _temporary(path: Path, data: bytes, *, mode: int, like: Path | None) -> Path:
    """A complete, synced file beside `path`, with mode and owner of `like`; OSError leaves nothing behind."""
    temporary = path.with_name(_hidden_name(path))
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    handle = os.open(temporary, flags, mode)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            if like is not None:
                _resemble(file.fileno(), like)
            os.fsync(file.fileno())
    except OSError:
        _discard(temporary)
        raise
    return temporary


def _resemble(handle: int, like: Path) -> None:
    before = like.stat()
    mine = os.fstat(handle)
    if (before.st_uid, before.st_gid) != (mine.st_uid, mine.st_gid):
        with contextlib.suppress(PermissionError):  # not root: the new file belongs to us
            os.fchown(handle, before.st_uid, before.st_gid)
    os.fchmod(handle, stat.S_IMODE(before.st_mode))
    with contextlib.suppress(OSError):  # labels and ACLs, where the file system has them
        for name in os.listxattr(like):
            os.setxattr(handle, name, os.getxattr(like, name))


def _replace_plainly(temporary: Path, path: Path, expect: str) -> None:
    """Where files cannot be exchanged: look again as late as possible, then rename over."""
    _require(path, expect)
    os.replace(temporary, path)


def _swap_back(temporary: Path, path: Path, data: bytes, aside: Callable[[], Path], swap: Exchange) -> None:
    """Somebody wrote between our look and the exchange: their bytes go back to their place."""
    swap(temporary, path)
    if _found(temporary) == digest(data):
        _discard(temporary)
        raise Changed
    kept = aside()
    place(temporary, kept)
    raise Changed(kept)


def _return(hidden: Path, path: Path, aside: Callable[[], Path]) -> Path | None:
    try:
        place(hidden, path)
    except FileExistsError:
        kept = aside()
        place(hidden, kept)
        return kept
    return None


def _discard(temporary: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
