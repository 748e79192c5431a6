"""DiskBackend `rbd`: images in a Ceph pool, for VMs that can run on any node.

Invariant: nothing blocks the event loop, everything has a deadline, and what is unknown raises
PoolUnavailable. How images are made so that a name never means half of one: images.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, assert_never

import rados

from reconciler.adapters.blocking import Workers
from reconciler.adapters.directory_disks import whole_sectors, with_file
from reconciler.adapters.file_holders import holders as file_holders
from reconciler.adapters.file_identity import identity as file_identity
from reconciler.adapters.pool_directory import find_source
from reconciler.adapters.qemu_img import QemuImg
from reconciler.adapters.rbd import blocklist, guests
from reconciler.adapters.rbd.cluster import Clusters
from reconciler.adapters.rbd.copying import copy
from reconciler.adapters.rbd.errors import ceph_errors
from reconciler.adapters.rbd.images import Images
from reconciler.adapters.rbd.sources import OpenSource, file_source, image_source
from reconciler.ports.disks import NetworkImages, Progress
from reconciler.resources.domains import GuestKey
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
    RbdAccess,
    RbdIdentity,
    RbdName,
)
from reconciler.resources.infrastructure import RbdPool
from reconciler.resources.quantity import format_bytes
from reconciler.resources.virtualmachine import DiskFormat

T = TypeVar("T")

CALL_SECONDS = 60.0
"""For the short calls of `create`."""
LEFT_OVER_SECONDS = 45.0
"""How long an image that a daemon was building when it died may still count as open: Ceph's 30, and some."""
REFUSING = frozenset({"full", "full_quota"})
FILLING = frozenset({"nearfull", "backfillfull"}) | REFUSING
"""Flags of a Ceph pool."""


class RbdBackend:
    """The pool of `spec`. `cluster_uid` is vcl's; `state`: a directory for what guests' QEMU reads.
    Constructing it does no I/O. It is a NetworkImages too."""

    def __init__(self, spec: RbdPool, *, clusters: Clusters, cluster_uid: str, state: Path) -> None:
        self._spec = spec
        self._clusters = clusters
        self._cluster = clusters.get(spec.conf, spec.user)
        self._images = Images(cluster=self._cluster, pool=spec.pool, namespace=spec.namespace)
        self._cluster_uid = cluster_uid
        self._state = state
        self._qemu_img = QemuImg()
        self._workers = Workers(f"rbd-{spec.pool}")
        self._copiers = Workers(f"rbd-copy-{spec.pool}")
        self._publishing = asyncio.Lock()
        self._closed = False

    @property
    def network(self) -> NetworkImages | None:
        return self

    async def inspect(self, image: str, *, timeout: float) -> ImageInfo | None:
        def look() -> ImageInfo | None:
            info = self._images.inspect(image)
            return None if info is None else replace(info, access=self._access())

        return await self._call(look, timeout)

    async def create(
        self, image: str, content: Content, *, format: DiskFormat | None, operation: str, progress: Progress
    ) -> ImageInfo:
        if format not in (None, DiskFormat.RAW):
            raise ImageInvalid(
                f"the image '{image}' cannot be {format}: images of an RBD pool are raw",
                cure="leave `format` out; snapshots and clones are RBD's own",
            )
        partial = await self._begin(image, operation)
        try:
            await self._fill(partial, content, progress)
            async with self._publishing:
                await self._call(lambda: self._images.publish(partial, image))
        except BaseException:
            with contextlib.suppress(DiskError):
                await asyncio.shield(self._call(lambda: self._images.discard(partial)))
            raise
        progress(1.0)
        return await self._existing(image, CALL_SECONDS)

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
        found = await self.holders(image, timeout=timeout)
        if found:
            raise ImageInUse(
                f"the image '{image}' cannot be grown: {found[0].description}", cure="stop that first"
            )
        await self._call(lambda: self._images.resize(image, size), timeout)
        return await self._existing(image, timeout)

    async def trash(self, image: str, *, timeout: float) -> None:
        if await self.inspect(image, timeout=timeout) is not None:
            await self._call(lambda: self._images.trash(image), timeout)

    async def identify(self, path: str, *, timeout: float) -> str:
        name = RbdName.parse(path)
        if name is not None:
            self._require_ours(name)
            return await self._call(lambda: self._images.identity(name), timeout)
        if not path.startswith("/"):
            raise ImageInvalid(f"'{path}' is neither an absolute path nor rbd:POOL/IMAGE")
        return await self._call(lambda: with_file(path, lambda fd: file_identity(fd, path)), timeout)

    async def holders(self, image: str, *, timeout: float) -> tuple[Holder, ...]:
        return await self._call(lambda: self._images.holders(image), timeout)

    async def capacity(self, *, timeout: float) -> PoolCapacity:
        return await self._call(self._capacity, timeout)

    def close(self) -> None:
        """Let go of the worker threads and of the connection."""
        if not self._closed:
            self._closed = True
            self._workers.close()
            self._copiers.close()
            self._clusters.give_back(self._cluster)

    # NetworkImages.

    async def holders_of(self, identity: str, *, timeout: float) -> tuple[Holder, ...] | None:
        parsed = RbdIdentity.parse(identity)
        if parsed is None:
            return None
        return await self._call(lambda: self._images.holders_by_id(parsed), timeout)

    async def cut_off(self, holders: tuple[Holder, ...], identity: str, *, timeout: float) -> None:
        parsed = RbdIdentity.parse(identity)
        if parsed is None or not holders:
            return

        def cut() -> None:
            with self._answers():
                blocklist.add(self._cluster, (holder.client for holder in holders))
            self._images.break_locks(parsed, holders)

        await self._call(cut, timeout)

    async def guest_key(self, *, timeout: float) -> GuestKey | None:
        user = self._spec.qemu_user

        def find() -> GuestKey:
            self._conf()
            with self._answers():
                value = guests.find_key(self._cluster, user, self._spec.qemu_keyring)
                usage = f"vcl client.{user} {self._cluster.fsid()} {self._cluster_uid}"
                return GuestKey(secret=self._secret(), usage=usage, value=value)

        return await self._call(find, timeout)

    # Parts.

    def _secret(self) -> str:
        """The same on all nodes and for ever, for this cluster's guests and their Ceph user."""
        name = f"vcl/{self._cluster_uid}/{self._cluster.fsid()}/client.{self._spec.qemu_user}"
        return str(uuid.uuid5(uuid.NAMESPACE_OID, name))

    def _access(self) -> RbdAccess:
        """How guests reach the pool. Blocks."""
        conf = self._conf()
        with self._answers():
            monitors = self._cluster.monitors()
        return RbdAccess(monitors=monitors, user=self._spec.qemu_user, secret=self._secret(), config=conf)

    def _conf(self) -> str:
        """The guests' configuration of Ceph, made unless the pool names one. Blocks."""
        if self._spec.qemu_conf is not None:
            return self._spec.qemu_conf
        made = self._state / f"{self._cluster.fsid()}-{self._spec.qemu_user}.conf"
        guests.write_conf(self._spec.conf, made, self._spec.qemu_user)
        return str(made)

    def _require_ours(self, name: RbdName) -> None:
        if (name.pool, name.namespace) != (self._spec.pool, self._spec.namespace):
            raise ImageInvalid(f"{name.path} is not in {self._images.where}")

    async def _begin(self, image: str, operation: str) -> str:
        """The name to build under. A left-over that still counts as open is waited for."""
        deadline = time.monotonic() + LEFT_OVER_SECONDS
        while True:
            try:
                return await self._call(lambda: self._images.begin(image, operation), None)
            except ImageInUse:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(1.0)

    async def _fill(self, partial: str, content: Content, progress: Progress) -> None:
        match content:
            case Blank(size=size):
                if size <= 0:
                    raise ImageInvalid(f"an image of {size} bytes cannot be made")
                rounded = whole_sectors(size)
                await self._call(lambda: self._images.create(partial, rounded))
            case CopyOf(path=origin, size=size):
                await self._copy(partial, origin, None, size, progress)
            case CloneOf(path=origin, format=said, size=size):
                template = RbdName.parse(origin)
                if template is None:  # RBD clones RBD images only
                    await self._copy(partial, origin, said, size, progress)
                    return
                found = await self._call(lambda: self._images.clone(partial, template))
                least = whole_sectors(size or 0)
                if least > found:
                    await self._call(lambda: self._images.resize(partial, least))
            case _:
                assert_never(content)

    async def _copy(
        self, partial: str, origin: str, said: DiskFormat | None, size: int | None, progress: Progress
    ) -> None:
        name = RbdName.parse(origin)
        if name is not None:
            await self._copiers.call_to_the_end(
                lambda stop: self._copy_image(name, partial, size, progress, stop)
            )
            return
        source = await self._call(lambda: find_source(origin, said))
        writers = await self._call(lambda: with_file(origin, file_holders))
        if writers:
            raise ImageInUse(
                f"{origin} is being written by {writers[0].description}",
                cure="wait until that is done, or stop it",
            )
        async with file_source(source, self._qemu_img, lambda work: self._call(work)) as opened:
            await self._copiers.call_to_the_end(
                lambda stop: self._write(opened, origin, partial, size, progress, stop)
            )

    def _copy_image(
        self, name: RbdName, partial: str, size: int | None, progress: Progress, stop: threading.Event
    ) -> None:
        with self._answers(name.spec), self._cluster.pool(name.pool, name.namespace) as context:
            opened, source = image_source(context, name.image)
            with contextlib.closing(opened):
                self._images.refuse_writers(name.spec, opened)
                self._write(source, name.spec, partial, size, progress, stop)

    def _write(
        self,
        source: OpenSource,
        origin: str,
        partial: str,
        size: int | None,
        progress: Progress,
        stop: threading.Event,
    ) -> None:
        """Make the image with the source's content. Blocks for as long as it takes."""
        free = self._capacity().free
        if free and source.needed > free:
            raise NoSpace(
                f"a copy of {origin} takes {format_bytes(source.needed)}, and {self._images.where} has "
                f"{format_bytes(free)} left",
                cure="free some space, raise the pool's quota, or use another pool",
            )
        self._images.create(partial, max(whole_sectors(size or 0), whole_sectors(source.size)))
        with self._images.writable(partial) as target:
            copy(source.reader, source.extents, target, progress, stop)

    def _capacity(self) -> PoolCapacity:
        """What the pool holds and may still take; nothing but the quota is known while no manager runs."""
        with self._answers():
            with self._images.context() as context, contextlib.suppress(rados.ObjectNotFound):
                context.stat("rbd_directory")  # the monitors answer also when no OSD does
            pools = self._cluster.command(prefix="df")[0]["pools"]
            ours = [pool["stats"] for pool in pools if pool["name"] == self._spec.pool]
            osds = self._cluster.command(prefix="osd dump")[0]
        pool: dict[str, Any] = next(
            (each for each in osds["pools"] if each["pool_name"] == self._spec.pool), {}
        )
        quota = pool.get("quota_max_bytes", 0)
        flags = FILLING & set(str(pool.get("flags_names", "")).split(","))
        stats: dict[str, int] = ours[0] if ours else {}
        used, left = int(stats.get("stored", 0)), int(stats.get("max_avail", 0))
        if quota:
            allowed = max(0, int(quota) - used)
            left = min(left, allowed) if stats else allowed
        full = ", ".join(sorted(flags))
        return PoolCapacity(total=used + left, free=left, full=full, refuses=bool(flags & REFUSING))

    async def _existing(self, image: str, timeout: float) -> ImageInfo:
        info = await self.inspect(image, timeout=timeout)
        if info is None:
            raise ImageMissing(f"there is no image '{image}' in {self._images.where}")
        return info

    def _answers(self, where: str = "") -> contextlib.AbstractContextManager[None]:
        return ceph_errors(where or self._images.where, user=self._spec.user, pool=self._spec.pool)

    async def _call(self, work: Callable[[], T], timeout: float | None = CALL_SECONDS) -> T:
        if self._closed:
            raise PoolUnavailable(f"{self._images.where} is closed")
        try:
            return await self._workers.call(work, timeout=timeout)
        except TimeoutError as error:
            raise PoolUnavailable(
                f"{self._images.where} did not answer within {timeout:g} s", cure="look at `ceph status`"
            ) from error
