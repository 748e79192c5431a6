"""The files that make a node a member: the cluster's secret and the private key.

Invariant: a secret that others on this host could read or replace is not used.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from reconciler.resources.errors import InvalidInput

LEAST_BYTES = 16
_MOST_BYTES = 1 << 16


def load_secret(path: Path | str) -> bytes:
    """The cluster's secret, without white space around it. Raises InvalidInput with the cure."""
    secret = read_private(Path(path), "the cluster's secret").strip()
    if len(secret) < LEAST_BYTES:
        raise InvalidInput(
            f"{path}: the cluster's secret has {len(secret)} characters, {LEAST_BYTES} are the least",
            cure=f"copy the file from a node of the cluster, or make one with: openssl rand -hex 32 > {path}",
        )
    return secret


def read_private(path: Path, what: str) -> bytes:
    """The content of a small file that only its owner (root, or whoever runs this) may read. Raises
    InvalidInput with the cure."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise unreadable(path, what, error) from error
    try:
        _check_private(path, what, os.fstat(descriptor))
        return os.read(descriptor, _MOST_BYTES)
    finally:
        os.close(descriptor)


def unreadable(path: Path, what: str, error: OSError) -> InvalidInput:
    """The error for a file that cannot be opened."""
    if isinstance(error, FileNotFoundError):
        return InvalidInput(
            f"{path}: {what} does not exist",
            cure="`vcl init` makes it on the first node; `vcl join` brings it to the others",
        )
    return InvalidInput(
        f"{path}: {what} cannot be read: {error.strerror}", cure="run vcld as root, or let its user own it"
    )


def _check_private(path: Path, what: str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise InvalidInput(f"{path}: {what} is not a regular file", cure="put a regular file there")
    if status.st_mode & 0o077:
        raise InvalidInput(
            f"{path}: {what} is open to others (mode {stat.S_IMODE(status.st_mode):04o})",
            cure=f"chmod 600 {path}",
        )
    if status.st_uid not in (0, os.geteuid()):
        raise InvalidInput(
            f"{path}: {what} belongs to another user (uid {status.st_uid})", cure=f"chown root: {path}"
        )
