"""Copying data into an image: only what is not zero, in order, and to be stopped between two pieces."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from reconciler.ports.disks import Progress
from reconciler.resources.errors import DiskError

PIECE = 4 << 20
"""Bytes read at once: one object of a usual RBD image."""
GRAIN = 64 << 10
"""Bytes that are left out when they are all zero."""
_ZEROS = bytes(PIECE)

Extent = tuple[int, int]
"""Offset and length of bytes that may be other than zero."""


class Reader(Protocol):
    """What is copied from."""

    def read(self, offset: int, length: int) -> bytes: ...


class Stopped(DiskError):
    """The copy was given up by the one who asked for it."""


def copy(
    source: Reader, extents: Sequence[Extent], target: Any, progress: Progress, stop: threading.Event
) -> None:
    """Copy into an open rbd.Image, through to the OSDs. Raises Stopped and what reading and writing raise."""
    total = sum(length for _, length in extents) or 1
    done = 0
    for offset, length in pieces(extents):
        if stop.is_set():
            raise Stopped("the copy was given up")
        data = source.read(offset, length)
        for start, end in not_zero(data):
            target.write(data[start:end], offset + start)
        done += length
        progress(0.99 * done / total)
    target.flush()


def pieces(extents: Sequence[Extent]) -> Iterator[Extent]:
    """The extents cut at the borders of PIECE."""
    for offset, length in extents:
        end = offset + length
        while offset < end:
            upto = min(end, (offset // PIECE + 1) * PIECE)
            yield offset, upto - offset
            offset = upto


def not_zero(data: bytes) -> Iterator[tuple[int, int]]:
    """Start and end of the runs of GRAINs with anything but zeros in them."""
    start: int | None = None
    for at in range(0, len(data), GRAIN):
        if data[at : at + GRAIN] == _ZEROS[: min(GRAIN, len(data) - at)]:
            if start is not None:
                yield start, at
            start = None
        elif start is None:
            start = at
    if start is not None:
        yield start, len(data)
