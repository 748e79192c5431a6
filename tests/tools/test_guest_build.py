"""The guest's image: what is in it, and that it is not built twice."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

builder: Any = sys.modules["vcl_guest_builder"]


@pytest.mark.libvirt
def test_an_image_has_all_that_the_guest_needs(guest_image: Any, tmp_path: Path) -> None:
    archive = gzip.decompress(Path(guest_image.initrd).read_bytes())
    done = subprocess.run(
        [builder._busybox(), "cpio", "-i", "-d"],
        input=archive,
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for path in ("init", "bin/busybox", "sbin/shutdown", "etc/udhcpc", "usr/sbin/qemu-ga", "modules/order"):
        assert (tmp_path / path).is_file(), path
    order = (tmp_path / "modules/order").read_text().split()
    assert order.index("virtio_pci.ko") < order.index("virtio_blk.ko") < order.index("virtio_console.ko")
    assert {f"modules/{name}" for name in order} <= {
        f"modules/{p.name}" for p in (tmp_path / "modules").iterdir()
    }


@pytest.mark.libvirt
def test_it_is_built_again_only_when_its_recipe_changes(guest_image: Any) -> None:
    initrd = Path(guest_image.initrd)
    before = initrd.stat().st_mtime_ns
    builder.build(initrd.parent, initrd.parent / "cache")
    assert initrd.stat().st_mtime_ns == before


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(builder.BuildFailed, match="install busybox-static"):
        builder.build(tmp_path / "out", tmp_path / "cache")


def test_the_archive_pads_and_ends_as_the_kernel_wants_it() -> None:
    archive = builder.cpio([builder.Entry(path="a", data=b"abc")])
    assert archive.startswith(b"070701")
    assert len(archive) % 4 == 0
    assert b"TRAILER!!!\0" in archive
    assert b"abc\0" in archive
