"""DiskBackend `directory`: images as qcow2 and raw files in a directory, made and grown with qemu-img.

Invariant: nothing blocks the event loop, everything has a deadline, and what is unknown raises
PoolUnavailable. How files become images, and what keeps a name from meaning half an image: pool_directory.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, assert_never

from reconciler.adapters.blocking import Workers
from reconciler.adapters.file_holders import holders
from reconciler.adapters.file_identity import identity
from reconciler.adapters.pool_directory import (
    PoolDirectory,
    Source,
    choose_format,
    file_name,
    find_source,
    storage_errors,
)
from reconciler.adapters.qemu_img import QemuImg
from reconciler.ports.disks import NetworkImages, Progress
from reconciler.resources.errors import (
    DiskError,
    ImageInUse,
    ImageInvalid,
    ImageMissing,
    NoSpace,
    PoolUnavailable,
    ShrinkRefused,
)
from reconciler.resources.images import (
    Blank,
    CloneOf,
    Content,
    CopyOf,
    Holder,
    ImageInfo,
    PoolCapacity,
)
from reconciler.resources.quantity import format_bytes
from reconciler.resources.virtualmachine import DiskFormat

T = TypeVar("T")

FILE_SECONDS = 60.0
"""For the short file operations of `create`."""

_SECTOR = 512


class DirectoryBackend:
    """The pool in `path`. `remembered`: a file of this node (in the daemon's state directory) that keeps the
    pool's id, so that an unmounted directory is noticed also after a restart. Constructing it does no I/O."""

    def __init__(
        self,
        path: Path,
        default_format: DiskFormat = DiskFormat.QCOW2,
        *,
        remembered: Path | None = None,
        qemu_img: str = "qemu-img",
    ) -> None:
        self._directory = PoolDirectory(path, remembered=remembered)
        self._default_format = default_format
        self._qemu_img = QemuImg(qemu_img)
        self._workers = Workers(f"pool-{path.name}")

    @property
    def network(self) -> NetworkImages | None:
        """None: files have writers on this host only, or on hosts that nobody but they can tell."""
        return None

    async def inspect(self, image: str, *, timeout: float) -> ImageInfo | None:
        return await self._call(lambda: self._directory.inspect(image), timeout)

    async def create(
        self, image: str, content: Content, *, format: DiskFormat | None, operation: str, progress: Progress
    ) -> ImageInfo:
        default = DiskFormat.QCOW2 if isinstance(content, CloneOf) else self._default_format
        chosen = choose_format(image, format, default)
        partial = await self._call(lambda: self._directory.begin(image, operation))
        try:
            await self._fill(str(self._directory.path / partial), chosen, content, progress)
            # Without a deadline: a large image takes as long to reach the disk as it takes.
            info = await self._call(lambda: self._directory.publish(partial, image, chosen), None)
        except BaseException:
            with contextlib.suppress(DiskError):
                await asyncio.shield(self._call(lambda: self._directory.discard(partial)))
            raise
        progress(1.0)
        return info

    async def grow(self, image: str, size: int, *, timeout: float) -> ImageInfo:
        info = await self._existing(image, timeout)
        size = whole_sectors(size)
        if size == info.size:
            return info
        if size < info.size:
            raise ShrinkRefused(
                f"the image '{image}' has {format_bytes(info.size)}: never shrunk to {format_bytes(size)}",
                cure="ask for its present size; to use less space, copy the data to a new disk",
            )
        if info.identity.startswith("block/"):
            raise ImageInvalid(f"{info.path} is a block device", cure="grow it where it was made (lvextend)")
        await self._refuse_held(image, info, timeout, "grown")
        await self._qemu_img.resize(info.path, info.format, size, timeout=timeout)
        return await self._existing(image, timeout)

    async def trash(self, image: str, *, timeout: float) -> None:
        info = await self.inspect(image, timeout=timeout)
        if info is None:
            return
        await self._refuse_held(image, info, timeout, "put aside")
        clones = await self._call(lambda: self._directory.clones_of(info.path), timeout)
        if clones:
            raise ImageInUse(
                f"the image '{image}' is the template of {', '.join(clones)}", cure="delete those first"
            )
        await self._call(lambda: self._directory.trash(image), timeout)

    async def identify(self, path: str, *, timeout: float) -> str:
        if not os.path.isabs(path):
            raise ImageInvalid(f"'{path}' must be an absolute path")
        return await self._call(lambda: with_file(path, lambda fd: identity(fd, path)), timeout)

    async def holders(self, image: str, *, timeout: float) -> tuple[Holder, ...]:
        info = await self.inspect(image, timeout=timeout)
        if info is None:
            return ()
        return await self._call(lambda: with_file(info.path, holders), timeout)

    async def capacity(self, *, timeout: float) -> PoolCapacity:
        return await self._call(self._capacity, timeout)

    def close(self) -> None:
        """Let go of the worker threads."""
        self._workers.close()

    def _capacity(self) -> PoolCapacity:
        with self._directory.opened() as directory:
            found = os.fstatvfs(directory)
        return PoolCapacity(total=found.f_blocks * found.f_frsize, free=found.f_bavail * found.f_frsize)

    async def _fill(self, path: str, format: DiskFormat, content: Content, progress: Progress) -> None:
        match content:
            case Blank(size=size):
                if size <= 0:
                    raise ImageInvalid(f"an image of {size} bytes cannot be made")
                await self._qemu_img.create(path, format, whole_sectors(size))
            case CopyOf(path=origin, size=size):
                await self._copy(await self._source(origin, None), path, format, size, progress)
            case CloneOf(path=origin, format=said, size=size):
                source = await self._source(origin, said)
                if format is DiskFormat.RAW:  # a raw file cannot refer to another one
                    await self._copy(source, path, format, size, progress)
                else:
                    size = max(whole_sectors(size or 0), source.size)
                    await self._qemu_img.create_clone(path, source.path, source.format, size)
            case _:
                assert_never(content)

    async def _source(self, path: str, format: DiskFormat | None) -> Source:
        """The file to copy or clone, which nobody may be writing. Raises DiskError."""
        source = await self._call(lambda: find_source(path, format))
        writers = await self._call(lambda: with_file(path, holders))
        if writers:
            raise ImageInUse(
                f"{path} is being written by {writers[0].description}",
                cure="wait until that is done, or stop it",
            )
        return source

    async def _copy(
        self, source: Source, path: str, format: DiskFormat, size: int | None, progress: Progress
    ) -> None:
        needed = await self._qemu_img.needed(source.path, source.format)
        free = (await self.capacity(timeout=FILE_SECONDS)).free
        if needed > free:
            raise NoSpace(
                f"a copy of {source.path} takes {format_bytes(needed)}, and {self._directory.path} has "
                f"{format_bytes(free)} left",
                cure="free some space, or use another pool",
            )
        await self._qemu_img.copy(source.path, source.format, path, format, progress)
        wanted = whole_sectors(size or 0)
        if wanted > source.size:
            await self._qemu_img.resize(path, format, wanted, timeout=FILE_SECONDS)

    async def _existing(self, image: str, timeout: float) -> ImageInfo:
        info = await self.inspect(image, timeout=timeout)
        if info is None:
            name = file_name(image, self._default_format)
            raise ImageMissing(f"there is no image '{image}' ({self._directory.path / name})")
        return info

    async def _refuse_held(self, image: str, info: ImageInfo, timeout: float, what: str) -> None:
        found = await self._call(lambda: with_file(info.path, holders), timeout)
        if found:
            raise ImageInUse(
                f"the image '{image}' is open in {found[0].description} and cannot be {what}",
                cure="stop that first",
            )

    async def _call(self, work: Callable[[], T], timeout: float | None = FILE_SECONDS) -> T:
        try:
            return await self._workers.call(work, timeout=timeout)
        except TimeoutError as error:
            path = self._directory.path
            cure = "look at the storage below the pool (a dead NFS server?)"
            raise PoolUnavailable(f"{path} did not answer within {timeout:g} s", cure=cure) from error


def with_file(path: str, ask: Callable[[int], T]) -> T:
    """What `ask` says of an open file. Raises ImageMissing, PoolUnavailable."""
    with storage_errors(path):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ImageMissing(f"there is no file {path}") from error
        try:
            return ask(descriptor)
        finally:
            os.close(descriptor)


def whole_sectors(size: int) -> int:
    """Rounded up to 512 bytes: what a guest sees has whole sectors."""
    return -(-size // _SECTOR) * _SECTOR
