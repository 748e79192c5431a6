"""The API's UNIX socket. Invariants: the path never stands for a socket with other rights than asked for (it
is made under another name and renamed), and another daemon's socket is never taken away from it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import grp
import logging
import os
import socket
import stat
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from aiohttp import web

from reconciler.resources.errors import AlreadyExists, InvalidInput, VclError

log = logging.getLogger(__name__)

MAX_PATH = 107
"""Bytes of a UNIX socket's path that Linux takes (sun_path without its NUL)."""

BACKLOG = 128
PROBE_SECONDS = 2.0
SHUTDOWN_SECONDS = 3.0


async def serve(
    app: web.Application, path: Path, *, group: str | None = None, mode: int = 0o660
) -> web.AppRunner:
    """Serve the app on a UNIX socket at `path`; `await runner.cleanup()` ends it and removes the socket.

    AlreadyExists: another daemon answers there. InvalidInput: path, group or rights cannot be had.
    """
    gid = _group_id(group)
    await _make_way(path)
    bound = _bind(path, gid, mode)
    try:
        inode = os.stat(path).st_ino
        # Compressed bodies are not in the API, and would be a way around the limit of their size.
        runner = web.AppRunner(app, access_log=None, auto_decompress=False, shutdown_timeout=SHUTDOWN_SECONDS)
        app.on_cleanup.append(_remover(path, inode))
        await runner.setup()
        await web.SockSite(runner, bound, backlog=BACKLOG).start()
    except BaseException:
        bound.close()
        raise
    log.info("the API is at %s", path)
    return runner


def _group_id(group: str | None) -> int:
    """-1 for none: the group of this process."""
    if group is None:
        return -1
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError as error:
        raise InvalidInput(
            f"there is no group '{group}' for the API's socket",
            cure=f"make it with `groupadd --system {group}`, or name another in the configuration",
        ) from error


async def _make_way(path: Path) -> None:
    """See that the path is free, or only taken by what a dead daemon left; _bind replaces that."""
    temporary = _temporary(path)
    length = max(len(os.fsencode(path)), len(os.fsencode(temporary)))
    if length > MAX_PATH:
        raise InvalidInput(
            f"the socket path {path} is too long: {length} bytes, {MAX_PATH} at most",
            cure="name a shorter one in the configuration",
        )
    if not _is_socket(path):
        return
    if await _answers(path):
        raise AlreadyExists(
            f"another daemon answers at {path}",
            cure="stop it first, or give this one a socket of its own in the configuration",
        )
    log.info("%s was left by a daemon that is gone; it is replaced", path)


def _is_socket(path: Path) -> bool:
    """Whether there is a socket; the directory is made. Raises InvalidInput for anything else there."""
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _temporary(path).unlink(missing_ok=True)
        try:
            found = path.lstat()
        except FileNotFoundError:
            return False
    if not stat.S_ISSOCK(found.st_mode):
        raise InvalidInput(f"{path} exists and is no socket; it is left alone", cure="move it out of the way")
    return True


async def _answers(path: Path) -> bool:
    """Whether somebody listens: a socket whose owner died refuses."""
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            _, writer = await asyncio.open_unix_connection(str(path))
    except (ConnectionRefusedError, FileNotFoundError):
        return False
    except TimeoutError:
        return True  # a full backlog: its owner is slow, not dead
    except OSError as error:
        if error.errno == errno.EAGAIN:
            return True
        raise _cannot(path, error) from error
    writer.close()
    return True


def _bind(path: Path, gid: int, mode: int) -> socket.socket:
    """A listening socket at the path, with its rights from the first moment on."""
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    temporary = _temporary(path)
    try:
        with _explained(path):
            bound.bind(str(temporary))
            os.chmod(temporary, mode)
            if gid >= 0:
                os.chown(temporary, -1, gid)
            bound.listen(BACKLOG)
            os.rename(temporary, path)
    except VclError:
        bound.close()
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    return bound


def _temporary(path: Path) -> Path:
    return path.with_name(f".{os.getpid():x}")


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _cannot(path, error) from error


def _cannot(path: Path, error: OSError) -> InvalidInput:
    cures = {
        errno.EACCES: "run vcld as root, or name a socket in a directory that it may write to",
        errno.EPERM: "run vcld as root, or leave out the socket's group",
        errno.EROFS: "name a socket on a file system that can be written to",
        errno.ENOSPC: "make room on that file system",
        errno.ENOTDIR: "name a path whose parent is a directory",
    }
    return InvalidInput(
        f"the API's socket {path} cannot be made: {error.strerror or error}",
        cure=cures.get(error.errno or 0, "name another socket in the configuration"),
    )


def _remover(path: Path, inode: int) -> Callable[[web.Application], Awaitable[None]]:
    """Removes the socket at the end, if it is still ours."""

    def remove_now() -> None:
        with contextlib.suppress(FileNotFoundError):
            if path.lstat().st_ino == inode:
                path.unlink()

    async def remove(_: web.Application) -> None:
        remove_now()

    return remove
