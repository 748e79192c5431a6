"""DiskBackend: the images of one storage pool.

None from `inspect` means proven absent; a pool that does not answer raises PoolUnavailable. Images are built
under a temporary name and renamed when complete, so a name never stands for half an image (SAFETY rule 18).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from reconciler.resources.virtualmachine import DiskFormat

Progress = Callable[[float], None]
"""Called with the done share, 0.0 to 1.0, from any thread."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageInfo:
    """`identity` names the image itself (SAFETY rule 6), `size` is the guest-visible size in bytes.

    `backing`: the absolute path of a qcow2 backing file, or None.
    """

    name: str
    path: str
    identity: str
    size: int
    format: DiskFormat
    allocated: int = 0
    backing: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Blank:
    """An empty image of `size` bytes."""

    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyOf:
    """A full copy of a qcow2 or raw file, grown to `size` bytes when that is larger."""

    path: str
    size: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CloneOf:
    """A copy-on-write clone of a template that nobody writes; `format` of the template."""

    path: str
    format: DiskFormat
    size: int | None = None


Content = Blank | CopyOf | CloneOf


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Somebody who has an image open or locked: a process or a network client."""

    client: str
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolCapacity:
    """Bytes."""

    total: int
    free: int


class DiskBackend(Protocol):
    """Image names are those of the pool: no '/', no leading '.'."""

    async def inspect(self, image: str, *, timeout: float) -> ImageInfo | None:
        """The image, or None when proven absent. ImageInvalid when it is no usable image."""
        ...

    async def create(
        self, image: str, content: Content, *, format: DiskFormat | None, operation: str, progress: Progress
    ) -> ImageInfo:
        """Make it; long: cancel the task to abort. AlreadyExists when the name is taken. What an earlier
        attempt of the same `operation` left behind is removed first."""
        ...

    async def grow(self, image: str, size: int, *, timeout: float) -> ImageInfo:
        """Make it at least `size` bytes; ShrinkRefused when it is larger already. Only while nobody has
        it open."""
        ...

    async def trash(self, image: str, *, timeout: float) -> None:
        """Put it aside, recoverable by a person; no-op when absent."""
        ...

    async def identify(self, path: str, *, timeout: float) -> str:
        """The identity of a file by path (a domainXML's own disks, NVRAM). ImageMissing when absent."""
        ...

    async def holders(self, image: str, *, timeout: float) -> tuple[Holder, ...]:
        """Who has it open for writing or locked, other than this process."""
        ...

    async def capacity(self, *, timeout: float) -> PoolCapacity: ...
