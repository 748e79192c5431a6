"""The twin of the directory backend: files in memory, with the same rules about names, claims and space.

`SimFiles` is one host's (or one shared) file system; several pools and plain files live in it. Tests make
trouble through it: `available`, `free`, `opened_by`, `copy_seconds`.
Invariant: an image that is being made is not there until it is complete.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from reconciler.ports.disks import NetworkImages, Progress
from reconciler.resources.errors import (
    AlreadyExists,
    ImageInUse,
    ImageInvalid,
    ImageMissing,
    NoSpace,
    PoolUnavailable,
    ShrinkRefused,
)
from reconciler.resources.images import Blank, CloneOf, Content, CopyOf, Holder, ImageInfo, PoolCapacity
from reconciler.resources.quantity import format_bytes
from reconciler.resources.virtualmachine import DiskFormat


@dataclass(frozen=True, slots=True, kw_only=True)
class SimFile:
    """`size`: what a guest sees; `allocated`: what it takes; both in bytes."""

    inode: int
    size: int
    format: DiskFormat
    allocated: int = 0
    backing: str | None = None


@dataclass
class SimFiles:
    """`total` bytes in all; `opened_by`: path -> who writes to it; `copy_seconds`: how long a copy takes."""

    fsid: str = "5157a111"
    total: int = 1 << 40
    available: bool = True
    copy_seconds: float = 0.0
    files: dict[str, SimFile] = field(default_factory=dict)
    opened_by: dict[str, tuple[Holder, ...]] = field(default_factory=dict)
    trashed: list[str] = field(default_factory=list)
    _inodes: int = 0

    def add(self, path: str, *, size: int, format: DiskFormat = DiskFormat.RAW, allocated: int = 0) -> None:
        """A file from elsewhere."""
        self.files[path] = SimFile(
            inode=self.next_inode(), size=size, format=format, allocated=allocated or size
        )

    def next_inode(self) -> int:
        self._inodes += 1
        return self._inodes

    @property
    def free(self) -> int:
        return self.total - sum(file.allocated for file in self.files.values())

    @contextmanager
    def held(self, path: str, holder: Holder) -> Iterator[None]:
        """While entered, somebody has the file open for writing."""
        self.opened_by[path] = (*self.opened_by.get(path, ()), holder)
        yield
        self.opened_by[path] = tuple(h for h in self.opened_by[path] if h != holder)

    def get(self, path: str) -> SimFile:
        if path not in self.files:
            raise ImageMissing(f"there is no file {path}")
        return self.files[path]


class SimDisks:
    """`DiskBackend` on a `SimFiles`; the pool is the directory `path`."""

    def __init__(
        self, files: SimFiles, path: str = "/pool", default_format: DiskFormat = DiskFormat.QCOW2
    ) -> None:
        self.files = files
        self._path = path
        self._default_format = default_format

    @property
    def network(self) -> NetworkImages | None:
        """None: these are files."""
        return None

    async def inspect(self, image: str, *, timeout: float) -> ImageInfo | None:
        await self._answers(timeout)
        path = self._find(image)
        return None if path is None else self._info(image, path)

    async def create(
        self, image: str, content: Content, *, format: DiskFormat | None, operation: str, progress: Progress
    ) -> ImageInfo:
        await self._answers(60.0)
        chosen = self._choose(image, content, format)
        if self._find(image) is not None:
            raise AlreadyExists(f"the image '{image}' exists already in {self._path}")
        made = self._make(content, chosen)
        if made.allocated > self.files.free:
            raise NoSpace(f"{self._path} has {format_bytes(self.files.free)} left", cure="free some space")
        if isinstance(content, CopyOf):
            progress(0.5)
            await asyncio.sleep(self.files.copy_seconds)
            await self._answers(60.0)
        path = f"{self._path}/{image}" if _suffix(image) else f"{self._path}/{image}.{chosen}"
        if self._find(image) is not None:
            raise AlreadyExists(f"the image '{image}' exists already in {self._path}")
        self.files.files[path] = made
        progress(1.0)
        return self._info(image, path)

    async def grow(self, image: str, size: int, *, timeout: float) -> ImageInfo:
        path = await self._existing(image, timeout)
        file, size = self.files.files[path], whole_sectors(size)
        if size < file.size:
            raise ShrinkRefused(
                f"the image '{image}' has {format_bytes(file.size)}: never shrunk to {format_bytes(size)}"
            )
        if size > file.size:
            self._refuse_held(image, path)
            self.files.files[path] = replace(file, size=size)
        return self._info(image, path)

    async def trash(self, image: str, *, timeout: float) -> None:
        await self._answers(timeout)
        path = self._find(image)
        if path is None:
            return
        self._refuse_held(image, path)
        clones = sorted(
            name
            for name, file in self.files.files.items()
            if file.backing == path and name not in self.files.trashed
        )
        if clones:
            raise ImageInUse(f"the image '{image}' is the template of {', '.join(clones)}")
        aside = f"{self._path}/.trash/{path.rpartition('/')[2]}.{len(self.files.trashed) + 1}"
        self.files.files[aside] = self.files.files.pop(path)
        self.files.trashed.append(aside)

    async def identify(self, path: str, *, timeout: float) -> str:
        await self._answers(timeout)
        return f"{self.files.fsid}/{self.files.get(path).inode}"

    async def holders(self, image: str, *, timeout: float) -> tuple[Holder, ...]:
        await self._answers(timeout)
        path = self._find(image)
        return () if path is None else self.files.opened_by.get(path, ())

    async def capacity(self, *, timeout: float) -> PoolCapacity:
        await self._answers(timeout)
        return PoolCapacity(total=self.files.total, free=max(0, self.files.free))

    def close(self) -> None:
        """Holds nothing."""

    async def _answers(self, timeout: float) -> None:
        await asyncio.sleep(0)
        if not self.files.available:
            raise PoolUnavailable(f"{self._path} did not answer within {timeout:g} s")

    def _find(self, image: str) -> str | None:
        if not image or image.startswith(".") or "/" in image or not image.isprintable():
            raise ImageInvalid(f"'{image}' cannot name an image")
        suffixes = ("",) if _suffix(image) else ("", *(f".{format}" for format in DiskFormat))
        paths = [f"{self._path}/{image}{suffix}" for suffix in suffixes]
        found = [path for path in paths if path in self.files.files]
        if len(found) > 1:
            raise ImageInvalid(f"the image '{image}' could be {' and '.join(found)}")
        return found[0] if found else None

    async def _existing(self, image: str, timeout: float) -> str:
        await self._answers(timeout)
        path = self._find(image)
        if path is None:
            raise ImageMissing(f"there is no image '{image}' in {self._path}")
        return path

    def _info(self, image: str, path: str) -> ImageInfo:
        file = self.files.files[path]
        return ImageInfo(
            name=image,
            path=path,
            identity=f"{self.files.fsid}/{file.inode}",
            size=file.size,
            format=file.format,
            allocated=file.allocated,
            backing=file.backing,
        )

    def _choose(self, image: str, content: Content, asked: DiskFormat | None) -> DiskFormat:
        self._find(image)
        said = _suffix(image)
        if said is not None and asked is not None and said is not asked:
            raise ImageInvalid(f"the image '{image}' cannot be {asked}: its name says {said}")
        return said or asked or (DiskFormat.QCOW2 if isinstance(content, CloneOf) else self._default_format)

    def _make(self, content: Content, format: DiskFormat) -> SimFile:
        if isinstance(content, Blank):
            if content.size <= 0:
                raise ImageInvalid(f"an image of {content.size} bytes cannot be made")
            return SimFile(inode=self.files.next_inode(), size=whole_sectors(content.size), format=format)
        source = self.files.get(content.path)
        if self.files.opened_by.get(content.path):
            raise ImageInUse(f"{content.path} is being written")
        if isinstance(content, CloneOf) and content.format not in (None, source.format):
            raise ImageInvalid(f"{content.path} is said to be {content.format}, but is not")
        clone = isinstance(content, CloneOf) and format is DiskFormat.QCOW2
        return SimFile(
            inode=self.files.next_inode(),
            size=max(source.size, whole_sectors(content.size or 0)),
            format=format,
            allocated=0 if clone else source.allocated,
            backing=content.path if clone else None,
        )

    def _refuse_held(self, image: str, path: str) -> None:
        if found := self.files.opened_by.get(path):
            raise ImageInUse(f"the image '{image}' is open in {found[0].description}")


def _suffix(image: str) -> DiskFormat | None:
    return next((format for format in DiskFormat if image.endswith(f".{format}")), None)


def whole_sectors(size: int) -> int:
    """Rounded up to 512 bytes."""
    return -(-size // 512) * 512
