"""Is this path on a file system of this machine alone? SqliteStore may live nowhere else (SAFETY rule 3).

A network file system lies about locks and about what is on disk: two nodes would each believe that they
hold the store. The answer comes from the kernel's table of mounts, and what it does not say is a no.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from reconciler.resources.errors import StoreUnavailable

MOUNTS = Path("/proc/self/mountinfo")

SHARED = frozenset(
    {"9p", "afs", "autofs", "beegfs", "ceph", "cifs", "coda", "fuse", "gfs", "gfs2", "glusterfs", "gpfs"}
    | {"lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "pvfs2", "smb3", "smbfs", "vboxsf", "virtiofs"}
)
"""Types that other machines may reach too. FUSE (`fuse.anything`) can be anything, so it counts as shared."""

_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One line of the kernel's table: where it is mounted, and its type (ext4, nfs4, fuse.sshfs)."""

    point: str
    type: str

    @property
    def shared(self) -> bool:
        """True when another machine may write to it."""
        return self.type in SHARED or self.type.startswith("fuse.")


def mount_of(path: str, mountinfo: str) -> Mount | None:
    """The mount that an absolute path without symlinks lies on; None when the table does not say.

    Of mounts on top of each other the last one counts. The format: proc_pid_mountinfo(5).
    """
    best: Mount | None = None
    for line in mountinfo.splitlines():
        mount = _parse(line)
        if mount and _within(path, mount.point) and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    return best


def require_local(path: Path, *, mounts: Path = MOUNTS) -> None:
    """Raise StoreUnavailable unless the file (which may not exist yet) would be on a local file system."""
    cure = "put the store on a local disk of this node, for example below /var/lib/vcl"
    try:
        table = mounts.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise StoreUnavailable(
            f"cannot tell which file system {path} is on: {mounts}: {error.strerror}", cure=cure
        ) from error
    mount = mount_of(str(path.resolve()), table)
    if mount is None:
        raise StoreUnavailable(f"cannot tell which file system {path} is on: {mounts} names none", cure=cure)
    if mount.shared:
        raise StoreUnavailable(
            f"{path} is on a network or shared file system ({mount.type} at {mount.point}),"
            " where SQLite's locks prove nothing",
            cure=cure,
        )


def _parse(line: str) -> Mount | None:
    before, separator, after = line.partition(" - ")
    fields, kind = before.split(" "), after.split(" ")[0]
    if not separator or len(fields) < 6 or not kind:
        return None
    return Mount(point=_OCTAL.sub(lambda found: chr(int(found[1], 8)), fields[4]), type=kind)


def _within(path: str, point: str) -> bool:
    return point == "/" or path == point or path.startswith(f"{point}/")
