"""One daemon per node and state directory: a lock that the kernel drops when its holder dies."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from reconciler.resources.errors import AlreadyExists, VclError


class InstanceLock:
    """Held from `acquire` until the process ends or `release`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None

    def acquire(self) -> None:
        """Take the lock. AlreadyExists names the process that holds it."""
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise VclError(
                f"cannot open the lock file {self._path}: {error.strerror}",
                cure="run vcld as root, or give it a stateDir that it may write",
            ) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(fd, 32).decode("ascii", "replace").strip() or "another process"
            os.close(fd)
            raise AlreadyExists(
                f"vcld runs already on this node (process {holder} holds {self._path})",
                cure="stop that one first, or give this one its own stateDir, runDir and node name",
            ) from error
        os.ftruncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode())
        self._fd = fd

    def holder(self) -> int | None:
        """The process that wrote itself into the file last: who holds it, when somebody does."""
        try:
            return int(self._path.read_text(encoding="ascii"))
        except (OSError, ValueError):
            return None

    def release(self) -> None:
        """Let go; the file stays, so that two starts never lock different files."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
