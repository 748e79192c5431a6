"""What kind of image a file is, from its first bytes: a few microseconds, and nothing else is ever opened.

`qemu-img info` opens the file as a disk, follows what it refers to and takes 20 ms of CPU; with 1,000 VMs
that is twenty times the budget of a resync, and its probing is what makes a hostile image dangerous.
Invariant: the format of a disk is never guessed from what its guest can write (see `read_header`).
The layout: docs/interop/qcow2.txt of QEMU.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass

from reconciler.resources.errors import ImageInvalid
from reconciler.resources.virtualmachine import DiskFormat

MAGIC = b"QFI\xfb"
_BASE = struct.Struct(">4sIQIIQIIQQIIQ")
_FEATURES = struct.Struct(">QQQII")
_CORRUPT, _DATA_FILE = 1 << 1, 1 << 2
_BACKING_FORMAT = 0xE2792ACA
_LONGEST_BACKING = 1023
_FIRST_READ = 4096

_OTHERS = {
    b"KDMV": "VMDK",
    b"vhdxfile": "VHDX",
    b"QED\0": "QED",
    b"conectix": "VHD",
    b"<<< ": "VDI",
    b"LUKS\xba\xbe": "LUKS",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """`size`: what the guest sees, in bytes. `backing`: as written in the header, or None."""

    format: DiskFormat
    size: int
    backing: str | None = None
    backing_format: str | None = None


def suffix_format(name: str) -> DiskFormat | None:
    """What a file's name says about its format: `.qcow2` and `.raw` decide, `.img` can be anything."""
    if name.endswith(".qcow2"):
        return DiskFormat.QCOW2
    return DiskFormat.RAW if name.endswith(".raw") else None


def read_header(descriptor: int, path: str, *, size: int, format: DiskFormat | None) -> Header:
    """The header of an open file of `size` bytes; `format` is what its name or its owner says.

    Raises ImageInvalid when the two disagree in a way that would harm.
    """
    start = os.pread(descriptor, _FIRST_READ, 0)
    looks = DiskFormat.QCOW2 if start.startswith(MAGIC) else DiskFormat.RAW
    if format is DiskFormat.RAW:
        return Header(format=DiskFormat.RAW, size=size)
    if format is DiskFormat.QCOW2:
        if looks is not DiskFormat.QCOW2:
            raise ImageInvalid(f"{path} is no qcow2 image", cure="name it .raw if it is a raw one")
        return _qcow2(descriptor, path, start, size)
    if looks is DiskFormat.QCOW2:
        raise ImageInvalid(
            f"{path} looks like a qcow2 image, but its name does not say so, and the guest of a raw disk "
            "could have written this",
            cure=f"rename it to {path}.qcow2, or to {path}.raw if it really is a raw disk",
        )
    return Header(format=DiskFormat.RAW, size=size)


def read_source(descriptor: int, path: str, *, size: int, format: DiskFormat | None) -> Header:
    """As `read_header`, for a file that a person asks to copy or clone: its content may decide, since what
    is made of it gets a name that says the format. Other hypervisors' formats are refused by name."""
    start = os.pread(descriptor, _FIRST_READ, 0)
    if format is DiskFormat.RAW and start.startswith(MAGIC) and not path.endswith(".raw"):
        raise ImageInvalid(f"{path} is said to be raw, but is a qcow2 image", cure="say `format: qcow2`")
    if format is None and start.startswith(MAGIC):
        format = DiskFormat.QCOW2
    for magic, name in _OTHERS.items():
        if start.startswith(magic) and format is None:
            cure = f"convert it: qemu-img convert -O qcow2 {path} {path}.qcow2"
            raise ImageInvalid(f"{path} is a {name} image, which vcl does not read", cure=cure)
    return read_header(descriptor, path, size=size, format=format or DiskFormat.RAW)


def _qcow2(descriptor: int, path: str, start: bytes, size: int) -> Header:
    if len(start) < _BASE.size:
        raise ImageInvalid(f"{path} is cut off: it has no complete qcow2 header")
    (_, version, at, length, bits, virtual, crypt, l1_size, l1_at, _, _, _, _) = _BASE.unpack_from(start)
    if version not in (2, 3) or not 9 <= bits <= 21 or length > _LONGEST_BACKING or virtual >= 1 << 63:
        raise ImageInvalid(f"{path} has a damaged qcow2 header", cure=f"look at it: qemu-img check {path}")
    if crypt:
        raise ImageInvalid(f"{path} is encrypted, which vcl does not support")
    extensions_at = 72
    if version == 3:
        if len(start) < _BASE.size + _FEATURES.size:
            raise ImageInvalid(f"{path} is cut off: it has no complete qcow2 header")
        incompatible, _, _, _, extensions_at = _FEATURES.unpack_from(start, _BASE.size)
        _refuse_features(path, incompatible)
    if size < l1_at + 8 * l1_size:
        raise ImageInvalid(f"{path} is cut off: its tables are missing", cure="copy it again")
    backing = _backing_name(descriptor, path, at, length, size) if at and length else None
    return Header(
        format=DiskFormat.QCOW2,
        size=virtual,
        backing=backing,
        backing_format=_extension(start, extensions_at, _BACKING_FORMAT),
    )


def _backing_name(descriptor: int, path: str, at: int, length: int, size: int) -> str:
    name = os.pread(descriptor, length, at) if at + length <= size else b""
    if len(name) != length or b"\0" in name:
        raise ImageInvalid(f"{path} has a damaged qcow2 header: its backing file cannot be read")
    return name.decode("utf-8", "surrogateescape")


def _refuse_features(path: str, incompatible: int) -> None:
    if incompatible & _CORRUPT:
        raise ImageInvalid(
            f"{path} is marked as corrupt", cure=f"make a copy of it, then: qemu-img check -r all {path}"
        )
    if incompatible & _DATA_FILE:
        raise ImageInvalid(
            f"{path} keeps its data in another file, and so could show a guest any file of this host",
            cure=f"convert it: qemu-img convert -O qcow2 {path} NEW.qcow2",
        )


def _extension(start: bytes, at: int, wanted: int) -> str | None:
    while at + 8 <= len(start):
        kind, length = struct.unpack_from(">II", start, at)
        if kind == 0:
            return None
        if kind == wanted:
            return start[at + 8 : at + 8 + length].decode("ascii", "replace")
        at += 8 + (length + 7) // 8 * 8
    return None
