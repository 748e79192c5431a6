"""Names a file itself, whatever paths lead to it: the key of an image's claim (SAFETY rule 6).

Invariant: one file has one identity on every node, through every symbolic and hard link, and after a reboot.
Device numbers change with a reboot, so the file system is named by what it has on disk (docs/decisions has
the reasons): XFS by its UUID, the others by the `f_fsid` that the kernel derives from theirs, and those
without one (NFS, FUSE) by what was mounted. A block device is named by its own persistent id.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import uuid
from pathlib import Path

from reconciler.adapters.local_files import MOUNTS
from reconciler.resources.errors import ImageInvalid

_XFS_FSGEOMETRY = 0x80705864  # _IOR('X', 100, 112 bytes); the UUID is at byte 64 (xfs_fs.h)
_XFS_GEOMETRY_BYTES, _XFS_UUID_AT = 112, 64
_SPACE = uuid.UUID("5f3b3f0c-6a3e-4d3b-9a55-3f1c2b7f8a10")


def identity(descriptor: int, path: str) -> str:
    """`<file system>/<inode>` of an open file, or `block/<id>` of a block device. Raises OSError.

    Raises ImageInvalid for anything that is neither.
    """
    found = os.fstat(descriptor)
    if stat.S_ISBLK(found.st_mode):
        return f"block/{_device_id(found.st_rdev)}"
    if not stat.S_ISREG(found.st_mode):
        raise ImageInvalid(f"{path} is no file and no block device: it cannot be a disk image")
    return f"{filesystem(descriptor)}/{found.st_ino}"


def filesystem(descriptor: int) -> str:
    """The id of the file system that an open file is on."""
    xfs = _xfs_uuid(descriptor)
    if xfs is not None:
        return str(xfs)
    fsid = os.fstatvfs(descriptor).f_fsid
    if fsid:
        return f"{fsid & 0xFFFFFFFFFFFFFFFF:016x}"
    return str(uuid.uuid5(_SPACE, _mounted(descriptor)))


def _xfs_uuid(descriptor: int) -> uuid.UUID | None:
    """The UUID when the file is on XFS, whose f_fsid is only the device number."""
    try:
        geometry = fcntl.ioctl(descriptor, _XFS_FSGEOMETRY, bytes(_XFS_GEOMETRY_BYTES))
    except OSError as error:
        if error.errno in (errno.ENOTTY, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            return None
        raise
    return uuid.UUID(bytes=geometry[_XFS_UUID_AT : _XFS_UUID_AT + 16])


def _mounted(descriptor: int) -> str:
    """Type and source of the mount that an open file is on: the kernel says which (mnt_id), not a path."""
    info = Path(f"/proc/self/fdinfo/{descriptor}").read_text(encoding="ascii")
    wanted = next(line.split()[1] for line in info.splitlines() if line.startswith("mnt_id:"))
    for line in MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        before, _, after = line.partition(" - ")
        if before.split(" ", 1)[0] == wanted:
            kind, source = after.split(" ")[:2]
            return f"{kind}:{source}"
    raise OSError(errno.ENODEV, "the kernel does not say what is mounted there")


def _device_id(device: int) -> str:
    major, minor = os.major(device), os.minor(device)
    root = Path(f"/sys/dev/block/{major}:{minor}")
    for name in ("dm/uuid", "wwid", "device/wwid", "serial", "device/serial"):
        try:
            value = (root / name).read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            continue
        if value:
            return value.replace("/", "_").replace(" ", "_")
    return f"{major}:{minor}"


def device_size(descriptor: int) -> int:
    """The size of an open block device, in bytes (BLKGETSIZE64)."""
    return int(struct.unpack("Q", fcntl.ioctl(descriptor, 0x80081272, bytes(8)))[0])
