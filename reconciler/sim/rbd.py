"""The twin of the rbd backend: images of a `SimCeph`, with the same rules about names, holders and fences.

Tests make trouble through the `ceph`: `available`, `total`, clients that open images; `copy_seconds` is how
long a copy takes. Files to import come from a `SimFiles`.
Invariant: an image that is being made is not there until it is complete.
"""

from __future__ import annotations

import asyncio

from reconciler.ports.disks import NetworkImages, Progress
from reconciler.resources.domains import GuestKey
from reconciler.resources.errors import (
    AlreadyExists,
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
    RbdAccess,
    RbdIdentity,
    RbdName,
)
from reconciler.resources.quantity import format_bytes
from reconciler.resources.virtualmachine import DiskFormat
from reconciler.sim.ceph import SimCeph, SimImage
from reconciler.sim.disks import SimFiles, whole_sectors

ACCESS = RbdAccess(monitors=("10.77.0.1:6789",), user="qemu", secret="5157a111-0000-4000-8000-000000000002")
FEATURES = ("layering", "exclusive-lock")


class SimRbd:
    """`DiskBackend` and `NetworkImages` on a `SimCeph`."""

    def __init__(self, ceph: SimCeph, pool: str = "vms", *, files: SimFiles | None = None) -> None:
        self.ceph = ceph
        self.files = files or SimFiles()
        self.pool = pool
        self.copy_seconds = 0.0

    @property
    def network(self) -> NetworkImages | None:
        return self

    async def inspect(self, image: str, *, timeout: float) -> ImageInfo | None:
        await self._answers(timeout)
        found = self.ceph.images.get(self._name(image))
        return None if found is None else self._info(image, found)

    async def create(
        self, image: str, content: Content, *, format: DiskFormat | None, operation: str, progress: Progress
    ) -> ImageInfo:
        await self._answers(60.0)
        name = self._name(image)
        if format not in (None, DiskFormat.RAW):
            raise ImageInvalid(f"the image '{image}' cannot be {format}: images of an RBD pool are raw")
        made = self._make(content)
        if name not in self.ceph.images and isinstance(content, CopyOf):
            progress(0.5)
            await asyncio.sleep(self.copy_seconds)
            await self._answers(60.0)
        if name in self.ceph.images:
            raise AlreadyExists(f"the image '{image}' exists already in {self.pool}")
        self.ceph.images[name] = made
        progress(1.0)
        return self._info(image, made)

    async def grow(self, image: str, size: int, *, timeout: float) -> ImageInfo:
        await self._answers(timeout)
        found, size = self.ceph.find(self._name(image)), whole_sectors(size)
        if size < found.size:
            raise ShrinkRefused(
                f"the image '{image}' has {format_bytes(found.size)}: never shrunk to {format_bytes(size)}"
            )
        if size > found.size:
            self._refuse_held(image, found)
            found.size = size
        return self._info(image, found)

    async def trash(self, image: str, *, timeout: float) -> None:
        await self._answers(timeout)
        name = self._name(image)
        found = self.ceph.images.get(name)
        if found is None:
            return
        self._refuse_held(image, found)
        clones = sorted(n.image for n, other in self.ceph.images.items() if other.parent == name.path)
        if clones:
            raise ImageInUse(f"the image '{image}' is the template of {', '.join(clones)}")
        self.ceph.trash.append((name, self.ceph.images.pop(name)))

    async def identify(self, path: str, *, timeout: float) -> str:
        await self._answers(timeout)
        name = RbdName.parse(path)
        if name is None:
            return f"{self.files.fsid}/{self.files.get(path).inode}"
        if name.pool != self.pool:
            raise ImageInvalid(f"{path} is not in {self.pool}")
        return self._identity(self.ceph.find(name))

    async def holders(self, image: str, *, timeout: float) -> tuple[Holder, ...]:
        await self._answers(timeout)
        found = self.ceph.images.get(self._name(image))
        return () if found is None else self._who(found)

    async def capacity(self, *, timeout: float) -> PoolCapacity:
        await self._answers(timeout)
        return PoolCapacity(total=self.ceph.total, free=self.ceph.free)

    def close(self) -> None:
        """Holds nothing."""

    # NetworkImages.

    async def holders_of(self, identity: str, *, timeout: float) -> tuple[Holder, ...] | None:
        parsed = RbdIdentity.parse(identity)
        if parsed is None or (parsed.fsid, parsed.pool) != (self.ceph.fsid, self.pool):
            return None
        await self._answers(timeout)
        found = self.ceph.by_id(parsed)
        return () if found is None else self._who(found)

    async def cut_off(self, holders: tuple[Holder, ...], identity: str, *, timeout: float) -> None:
        await self._answers(timeout)
        parsed = RbdIdentity.parse(identity)
        found = self.ceph.by_id(parsed) if parsed is not None else None
        for holder in holders:
            self.ceph.block(holder.client)
            if found is not None and found.lock == holder.client:
                found.lock = None

    async def guest_key(self, *, timeout: float) -> GuestKey | None:
        await self._answers(timeout)
        return GuestKey(secret=ACCESS.secret, usage=f"vcl client.{ACCESS.user}", value="a2V5")

    # Parts.

    async def _answers(self, timeout: float) -> None:
        await asyncio.sleep(0)
        if not self.ceph.available:
            raise PoolUnavailable(f"the Ceph pool {self.pool} did not answer within {timeout:g} s")

    def _name(self, image: str) -> RbdName:
        if not image or image.startswith(".") or not image.isprintable() or set(image) & set("/@"):
            raise ImageInvalid(f"'{image}' cannot name an image")
        return RbdName(pool=self.pool, image=image)

    def _identity(self, image: SimImage) -> str:
        return str(RbdIdentity(fsid=self.ceph.fsid, pool=self.pool, namespace="", id=image.id))

    def _info(self, image: str, found: SimImage) -> ImageInfo:
        return ImageInfo(
            name=image,
            path=self._name(image).path,
            identity=self._identity(found),
            size=found.size,
            format=DiskFormat.RAW,
            backing=found.parent,
            access=ACCESS,
            features=FEATURES,
        )

    def _who(self, image: SimImage) -> tuple[Holder, ...]:
        clients = sorted({*image.watchers, *([image.lock] if image.lock else [])})
        return tuple(
            Holder(
                client=client,
                description=f"the RBD client {client}",
                entity=f"client.{client.rpartition('/')[2]}",
                watching=client in image.watchers,
                lock=image.cookie if client == image.lock else "",
                tag="internal" if client == image.lock else "",
                fenced=self.ceph.blocked(client),
            )
            for client in clients
        )

    def _refuse_held(self, image: str, found: SimImage) -> None:
        if held := self._who(found):
            raise ImageInUse(f"the image '{image}' is held by {held[0].description}")

    def _make(self, content: Content) -> SimImage:
        id = f"{self.ceph.next_number():x}"
        if isinstance(content, Blank):
            if content.size <= 0:
                raise ImageInvalid(f"an image of {content.size} bytes cannot be made")
            return SimImage(id=id, size=whole_sectors(content.size))
        name, least = RbdName.parse(content.path), whole_sectors(content.size or 0)
        if name is None:
            size, allocated = self._file(content)
        else:
            source = self.ceph.find(name)
            self._refuse_held(name.spec, source)
            size, allocated = source.size, source.allocated
        clone = name is not None and isinstance(content, CloneOf)
        if allocated > self.ceph.free and not clone:
            raise NoSpace(f"{self.pool} has {format_bytes(self.ceph.free)} left", cure="free some space")
        return SimImage(
            id=id,
            size=max(size, least),
            allocated=0 if clone else allocated,
            parent=content.path if clone else None,
        )

    def _file(self, content: CopyOf | CloneOf) -> tuple[int, int]:
        if content.path not in self.files.files:
            raise ImageMissing(f"there is no file {content.path}")
        file = self.files.get(content.path)
        if self.files.opened_by.get(content.path):
            raise ImageInUse(f"{content.path} is being written")
        if isinstance(content, CloneOf) and content.format not in (None, file.format):
            raise ImageInvalid(f"{content.path} is said to be {content.format}, but is not")
        return file.size, file.allocated
