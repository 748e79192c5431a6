"""Reading a header agrees with qemu-img, for every way of making an image."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.adapters.image_headers import Header, read_header, suffix_format
from reconciler.resources.errors import ImageInvalid
from reconciler.resources.virtualmachine import DiskFormat

MIB = 1 << 20


def header(path: Path) -> Header:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(descriptor).st_size
        return read_header(descriptor, str(path), size=size, format=suffix_format(path.name))
    finally:
        os.close(descriptor)


def qemu_img(*words: object) -> str:
    done = subprocess.run(["qemu-img", *map(str, words)], check=True, capture_output=True, text=True)
    return done.stdout


@pytest.mark.parametrize(
    "options",
    [
        "compat=0.10",
        "compat=1.1",
        "cluster_size=512",
        "cluster_size=2M",
        "lazy_refcounts=on",
        "extended_l2=on",
        "compression_type=zstd",
        "preallocation=metadata",
    ],
)
@pytest.mark.parametrize("size", [512, MIB, 3 * MIB + 512, 1 << 33])
def test_a_qcow2_header_says_what_qemu_img_says(tmp_path: Path, options: str, size: int) -> None:
    path = tmp_path / "a.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", "-o", options, path, size)
    told = json.loads(qemu_img("info", "--output=json", path))
    assert header(path) == Header(format=DiskFormat.QCOW2, size=told["virtual-size"])


@pytest.mark.parametrize("compat", ["0.10", "1.1"])
def test_a_backing_file_is_read_with_its_format(tmp_path: Path, compat: str) -> None:
    base, path = tmp_path / "the base.raw", tmp_path / "a.qcow2"
    base.write_bytes(bytes(MIB))
    qemu_img("create", "-q", "-f", "qcow2", "-o", f"compat={compat}", "-b", base, "-F", "raw", path)
    assert header(path) == Header(format=DiskFormat.QCOW2, size=MIB, backing=str(base), backing_format="raw")


@pytest.mark.parametrize(("byte", "value", "message"), [(35, 2, "encrypted"), (79, 2, "marked as corrupt")])
def test_what_vcl_cannot_use_is_refused(tmp_path: Path, byte: int, value: int, message: str) -> None:
    path = tmp_path / "a.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", path, MIB)
    content = bytearray(path.read_bytes())
    content[byte] |= value
    path.write_bytes(content)
    with pytest.raises(ImageInvalid, match=message):
        header(path)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("clone")
    base, path = directory / "base.raw", directory / "a.qcow2"
    base.write_bytes(bytes(MIB))
    qemu_img("create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", path)
    return path


@settings(max_examples=300)
@given(at=st.integers(min_value=4, max_value=700), damage=st.binary(min_size=1, max_size=16))
def test_no_damage_gives_anything_but_a_header_or_a_clear_refusal(
    clone: Path, at: int, damage: bytes
) -> None:
    content = bytearray(clone.read_bytes())
    content[at : at + len(damage)] = damage
    damaged = clone.with_name("damaged.qcow2")
    damaged.write_bytes(content)
    refusal = None
    try:
        header(damaged)
    except ImageInvalid as error:
        refusal = error
    assert refusal is None or str(damaged) in refusal.message


@pytest.mark.parametrize(
    ("name", "format"),
    [("a.qcow2", DiskFormat.QCOW2), ("a.raw", DiskFormat.RAW), ("a.img", None), ("qcow2", None)],
)
def test_a_suffix_says_the_format(name: str, format: DiskFormat | None) -> None:
    assert suffix_format(name) is format
