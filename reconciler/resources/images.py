"""Disk images as values: what exists in a pool, and what a new image is made from."""

from __future__ import annotations

from dataclasses import dataclass

from reconciler.resources.virtualmachine import DiskFormat


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
    """A copy-on-write clone of a template that nobody writes; `format` of the template, None: its header
    decides (it is a file that a person named as a template, never one that a guest wrote)."""

    path: str
    format: DiskFormat | None = None
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
