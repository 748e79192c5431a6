"""What a new image's content comes from, open for reading: a qcow2 or raw file, or another RBD image."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import rbd

from reconciler.adapters.pool_directory import Source
from reconciler.adapters.qemu_img import QemuImg
from reconciler.adapters.rbd.copying import Extent
from reconciler.adapters.rbd.nbd import NbdReader
from reconciler.adapters.subprocesses import run
from reconciler.resources.errors import DiskError, ImageInvalid

T = TypeVar("T")
_START_SECONDS = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSource:
    """`reader` is used by one thread at a time. `size` in bytes, as a guest sees it."""

    reader: Any
    size: int
    extents: tuple[Extent, ...]

    @property
    def needed(self) -> int:
        """Bytes that a copy takes at most."""
        return sum(length for _, length in self.extents)


@contextlib.asynccontextmanager
async def file_source(
    source: Source, qemu_img: QemuImg, on_thread: Callable[[Callable[[], Any]], Any]
) -> AsyncIterator[OpenSource]:
    """A file through a qemu-nbd of its own, which ends with it. Raises DiskError."""
    extents = await qemu_img.extents(source.path, source.format)
    with tempfile.TemporaryDirectory(prefix="vcl-import-") as scratch:
        socket = Path(scratch, "nbd")
        words = ["--read-only", "--shared=1", f"--format={source.format}", f"--socket={socket}", source.path]
        serving = asyncio.create_task(run(["qemu-nbd", *words], timeout=None))
        try:
            reader = await _first(on_thread(lambda: NbdReader(socket, patience=_START_SECONDS)), serving)
            try:
                yield OpenSource(reader=reader, size=source.size, extents=extents)
            finally:
                reader.close()
        finally:
            serving.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await serving


async def _first(connecting: Any, serving: asyncio.Task[Any]) -> NbdReader:
    """The connection; an error as soon as the server ends instead."""
    task = asyncio.ensure_future(connecting)
    await asyncio.wait({task, serving}, return_when=asyncio.FIRST_COMPLETED)
    if task.done() or not serving.done():
        reader: NbdReader = await task
        return reader
    task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
    try:
        ended = serving.result()
    except OSError as error:
        raise DiskError(f"cannot run qemu-nbd: {error}", cure="install qemu-utils (qemu-nbd)") from error
    raise ImageInvalid(f"qemu-nbd: {ended.errors.strip() or f'it ended with status {ended.status}'}")


class ImageReader:
    """An open rbd.Image, its own and its parents' data."""

    def __init__(self, opened: Any) -> None:
        self._opened = opened

    def read(self, offset: int, length: int) -> bytes:
        """These bytes."""
        return bytes(self._opened.read(offset, length))


def image_source(context: Any, image: str) -> tuple[Any, OpenSource]:
    """An RBD image, open (the caller closes it), and what is in it. Blocks. Raises rbd.Error."""
    opened = rbd.Image(context, image, read_only=True)
    try:
        size = int(opened.size())
        found: list[tuple[int, int, bool]] = []
        opened.diff_iterate(0, size, None, lambda *extent: found.append(extent))
    except BaseException:
        opened.close()
        raise
    extents = tuple((offset, length) for offset, length, exists in found if exists)
    return opened, OpenSource(reader=ImageReader(opened), size=size, extents=extents)
