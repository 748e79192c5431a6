"""What to do about each disk of a VM before it starts: use it, grow it, make it, or say why not.

Invariant (SAFETY rule 18): an image that was recorded once is never made again; missing is an error.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from reconciler.domainxml.machine import sets_up_uefi
from reconciler.resources.errors import ImageMissing, PoolUnavailable
from reconciler.resources.images import Blank, CloneOf, Content, CopyOf, ImageInfo
from reconciler.resources.infrastructure import ImageSpec
from reconciler.resources.quantity import format_bytes
from reconciler.resources.records import VolumeRecord
from reconciler.resources.virtualmachine import Disk, DiskFormat, VirtualMachineSpec

NVRAM = "nvram"
"""UEFI variables are a disk of this name, where they are in a pool."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A resolved source: an existing file on the node.

    `shared`: a template that nobody writes, so that clones may be built on top of it; another VM's disk is
    copied in full instead, because its owner goes on writing to it.
    """

    path: str
    format: DiskFormat | None
    identity: str
    shared: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """The image is ready. `note`: something the user should know, such as a size that is not shrunk to."""

    info: ImageInfo
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grow:
    info: ImageInfo
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Make:
    content: Content


DiskAction = Use | Grow | Make


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskView:
    """One disk as found. `record`: the store's note that it was created once; `template`: the resolved
    `source.image` or `source.clone`; `uid`: the VM's."""

    disk: Disk
    image: str
    uid: str
    info: ImageInfo | None
    record: VolumeRecord | None = None
    template: Template | None = None


def plan_disk(view: DiskView) -> DiskAction:
    """What to do about one disk. Raises ImageMissing with the cure when it cannot be had."""
    disk, image, record = view.disk, view.image, view.record
    if view.info is not None:
        return _existing(disk, view.info)
    if record is not None and record.uid == view.uid:
        raise ImageMissing(
            f"disk '{disk.name}': image '{image}' was there before ({record.created}) and is missing now",
            cure="bring it back (a backup, the pool's trash, a mount); vcl never replaces it with a new one. "
            "If its data may be lost, delete the VM and apply it again",
        )
    return Make(content=_content(disk, image, view.template))


def _existing(disk: Disk, info: ImageInfo) -> DiskAction:
    if disk.size is None or disk.size == info.size:
        return Use(info=info)
    if disk.size > info.size:
        if disk.read_only:
            return Use(info=info, note=f"disk '{disk.name}' is read-only and is not grown")
        return Grow(info=info, size=disk.size)
    note = (
        f"disk '{disk.name}' stays at {format_bytes(info.size)}: an image is never shrunk to "
        f"{format_bytes(disk.size)}"
    )
    return Use(info=info, note=note)


def _content(disk: Disk, image: str, template: Template | None) -> Content:
    source = disk.source
    if source is not None and source.import_path is not None:
        return CopyOf(path=source.import_path, size=disk.size)
    if template is not None and not template.shared:
        return CopyOf(path=template.path, size=disk.size)
    if template is not None:
        return CloneOf(path=template.path, format=template.format, size=disk.size)
    if disk.size is None:
        raise ImageMissing(
            f"disk '{disk.name}': there is no image '{image}' in its pool",
            cure="give the disk a `size` (an empty image is made) or a `source`",
        )
    return Blank(size=disk.size)


def pool_of(disk: Disk, default_pool: str) -> str:
    """The name of the pool a disk lives in."""
    return disk.pool or default_pool


def template_place(
    disk: Disk, images: Mapping[str, ImageSpec], default_pool: str
) -> tuple[str, str] | str | None:
    """Where a disk's template is: (pool, image), an absolute path, or None when it has none.

    Raises ImageMissing when the Image object does not exist.
    """
    source = disk.source
    if source is None:
        return None
    if source.clone is not None:
        return (source.clone.pool or pool_of(disk, default_pool), source.clone.image)
    if source.image is None:
        return None
    template = images.get(source.image)
    if template is None:
        known = ", ".join(sorted(images)) or "none"
        raise ImageMissing(
            f"disk '{disk.name}': there is no Image '{source.image}' (known: {known})",
            cure="apply a manifest of kind Image with that name",
        )
    if template.path is not None:
        return template.path
    return (template.pool or default_pool, template.image or source.image)


def nvram_disk(vm: VirtualMachineSpec, shared: Collection[str], default_pool: str) -> Disk | None:
    """The UEFI variables as a disk beside the first one that the guest may write, when every node sees that
    one's pool (`shared`): what is kept on a node dies with it. None when the controller keeps them."""
    home = next((pool_of(disk, default_pool) for disk in vm.disks if not disk.read_only), default_pool)
    if home not in shared or not sets_up_uefi(vm) or any(disk.name == NVRAM for disk in vm.disks):
        return None
    return Disk(name=NVRAM, pool=home)


def name_key(pool: str, image: str) -> str:
    """The `disk/` key that stands for a name in a pool, held from before the image exists."""
    return f"name/{pool}/{image}"


def writable_names(disks: Iterable[Disk], name: str, default_pool: str) -> tuple[str, ...]:
    """The name keys of those disks that the VM called `name` may write, sorted."""
    return tuple(
        sorted(
            name_key(pool_of(disk, default_pool), disk.image_name(name))
            for disk in disks
            if not disk.read_only
        )
    )


def require_pool(pool: str, pools: Mapping[str, object]) -> None:
    """Raises PoolUnavailable that names what exists."""
    if pool not in pools:
        known = ", ".join(sorted(pools)) or "none"
        raise PoolUnavailable(
            f"there is no storage pool '{pool}' on this node (known: {known})",
            cure=f"apply a StoragePool named '{pool}', or name another `pool` in the disk",
        )
