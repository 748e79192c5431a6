"""Only file systems of this machine alone are taken for local."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.adapters.local_files import Mount, mount_of, require_local
from reconciler.resources.errors import StoreUnavailable

TABLE = """\
23 28 0:21 / /proc rw,nosuid - proc proc rw
28 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
40 28 0:40 / /srv rw,relatime shared:9 - nfs4 server:/export rw,vers=4.2
41 40 254:1 / /srv/local rw,relatime - xfs /dev/vdb rw
42 28 0:42 / /mnt/my\\040share rw - cifs //server/share rw
43 28 0:43 / /home rw - fuse.sshfs host:/ rw
44 28 0:44 / /data rw - ext4 /dev/vdc rw
45 28 0:45 / /data rw - ceph mon:/ rw
46 28 0:46 / /ntfs rw - fuseblk /dev/vdd rw
broken line
"""


@pytest.mark.parametrize(
    ("path", "point", "type"),
    [
        ("/var/lib/vcl/store.db", "/", "ext4"),
        ("/srv/store.db", "/srv", "nfs4"),
        ("/srvother/store.db", "/", "ext4"),
        ("/srv/local/a/b", "/srv/local", "xfs"),
        ("/mnt/my share/x", "/mnt/my share", "cifs"),
        ("/data/x", "/data", "ceph"),
    ],
)
def test_the_innermost_and_latest_mount_counts(path: str, point: str, type: str) -> None:
    assert mount_of(path, TABLE) == Mount(point=point, type=type)


def test_a_table_without_the_path_says_nothing() -> None:
    assert mount_of("/anything", "") is None


@pytest.mark.parametrize("path", ["/srv/x", "/mnt/my share/x", "/home/me/x", "/data/x"])
def test_a_shared_file_system_is_refused_with_its_type_and_a_cure(path: str, tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(TABLE)
    with pytest.raises(StoreUnavailable, match=r"shared file system \((nfs4|cifs|fuse.sshfs|ceph) at"):
        require_local(Path(path), mounts=mounts)


@pytest.mark.parametrize("path", ["/var/x", "/srv/local/x", "/ntfs/x"])
def test_a_local_file_system_is_accepted(path: str, tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(TABLE)
    assert require_local(Path(path), mounts=mounts) is None


def test_what_the_kernel_does_not_say_is_a_no(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    with pytest.raises(StoreUnavailable, match="cannot tell which file system"):
        require_local(tmp_path, mounts=mounts)
    mounts.write_text("")
    with pytest.raises(StoreUnavailable, match="cannot tell which file system"):
        require_local(tmp_path, mounts=mounts)


def test_a_symlink_to_a_share_does_not_help(tmp_path: Path) -> None:
    (tmp_path / "share").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "share")
    mounts = tmp_path / "mountinfo"
    share = str(tmp_path / "share")
    mounts.write_text(f"1 0 8:0 / / rw - ext4 /dev/sda rw\n2 1 0:9 / {share} rw - nfs server:/ rw\n")
    with pytest.raises(StoreUnavailable, match=r"\(nfs at"):
        require_local(tmp_path / "link" / "store.db", mounts=mounts)
