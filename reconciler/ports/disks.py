"""DiskBackend: the images of one storage pool.

None from `inspect` means proven absent; a pool that does not answer raises PoolUnavailable. Images are built
under a temporary name and renamed when complete, so a name never stands for half an image (SAFETY rule 18).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from reconciler.resources.domains import GuestKey
from reconciler.resources.images import Content, Holder, ImageInfo, PoolCapacity
from reconciler.resources.virtualmachine import DiskFormat

Progress = Callable[[float], None]
"""Called with the done share, 0.0 to 1.0, from any thread."""


class NetworkImages(Protocol):
    """What a pool adds whose images are reached over a network: their writers are clients with an address
    each, which outlive their process by a while and which the storage itself can shut out."""

    async def holders_of(self, identity: str, *, timeout: float) -> tuple[Holder, ...] | None:
        """Like `holders`, by the image's identity, and asked of the storage at each call; none when there is
        no such image any more. None: the identity is not of this pool. Raises PoolUnavailable."""
        ...

    async def cut_off(self, holders: tuple[Holder, ...], identity: str, *, timeout: float) -> None:
        """Shut these clients out of the storage for years, see that it holds, and break the locks that they
        have on the image (SAFETY rules 8, 10, 11). For clients whose process is proven dead, or by a fencer.
        Raises PoolUnavailable; may be repeated."""
        ...

    async def guest_key(self, *, timeout: float) -> GuestKey | None:
        """The key of the guests' own user; None when the storage asks for none. What a guest that comes from
        another host needs here besides is there afterwards. Raises PoolUnavailable."""
        ...


class DiskBackend(Protocol):
    """Image names are those of the pool: no '/', no leading '.'. `network`: None for files."""

    @property
    def network(self) -> NetworkImages | None: ...

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
        """The identity of a file by path (a domainXML's own disks, NVRAM), or of an image by the `path` that
        `inspect` tells. ImageMissing when absent, ImageInvalid when it is none of this backend's."""
        ...

    async def holders(self, image: str, *, timeout: float) -> tuple[Holder, ...]:
        """Who has it open for writing or locked, other than this process."""
        ...

    async def capacity(self, *, timeout: float) -> PoolCapacity: ...

    def close(self) -> None:
        """Let go of what it holds; calls under way may end with PoolUnavailable."""
        ...
