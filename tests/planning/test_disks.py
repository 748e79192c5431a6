"""What is done about each disk: an image that was there once is never made again."""

from __future__ import annotations

import pytest

from reconciler.planning.disks import (
    DiskView,
    Grow,
    Make,
    Template,
    Use,
    nvram_disk,
    plan_disk,
    template_place,
    writable_names,
)
from reconciler.resources.codec import decode
from reconciler.resources.errors import ImageMissing
from reconciler.resources.images import Blank, CloneOf, CopyOf, ImageInfo
from reconciler.resources.infrastructure import ImageSpec
from reconciler.resources.records import VolumeRecord
from reconciler.resources.virtualmachine import Disk, DiskFormat, VirtualMachineSpec

GIB = 2**30
RECORD = VolumeRecord(identity="fs/1", uid="u1", created="2026-01-01T00:00:00Z")


def info(size: int = GIB) -> ImageInfo:
    return ImageInfo(name="web.root", path="/p/web.root", identity="fs/1", size=size, format=DiskFormat.QCOW2)


def disk(**raw: object) -> Disk:
    return decode(Disk, {"name": "root", **raw})


def look(wanted: Disk, **changes: object) -> DiskView:
    fields: dict[str, object] = {"disk": wanted, "image": "web.root", "uid": "u1", "info": None}
    fields.update(changes)
    return DiskView(**fields)  # type: ignore[arg-type]


def test_a_new_disk_is_made_blank_at_its_size() -> None:
    assert plan_disk(look(disk(size="1Gi"))) == Make(content=Blank(size=GIB))


def test_an_image_that_was_there_before_is_never_made_again() -> None:
    with pytest.raises(ImageMissing) as error:
        plan_disk(look(disk(size="1Gi"), record=RECORD))
    assert "web.root" in str(error.value)
    assert error.value.cure


def test_the_record_of_an_earlier_vm_of_that_name_does_not_bar_a_new_one() -> None:
    assert isinstance(plan_disk(look(disk(size="1Gi"), record=RECORD, uid="u2")), Make)


def test_an_existing_image_is_used_whatever_its_source_says() -> None:
    assert plan_disk(look(disk(source={"blank": {}}), info=info())) == Use(info=info())


def test_an_image_grows_and_never_shrinks() -> None:
    assert plan_disk(look(disk(size="2Gi"), info=info())) == Grow(info=info(), size=2 * GIB)
    kept = plan_disk(look(disk(size="512Mi"), info=info()))
    assert isinstance(kept, Use)
    assert "never shrunk" in kept.note


def test_a_read_only_image_is_not_grown() -> None:
    assert isinstance(plan_disk(look(disk(size="2Gi", readOnly=True), info=info())), Use)


def test_templates_are_cloned_and_other_disks_copied() -> None:
    shared = Template(path="/t.qcow2", format=DiskFormat.QCOW2, identity="fs/9", shared=True)
    own = Template(path="/t.qcow2", format=DiskFormat.QCOW2, identity="fs/9", shared=False)
    wanted = disk(source={"image": "debian"})
    assert plan_disk(look(wanted, template=shared)) == Make(
        content=CloneOf(path="/t.qcow2", format=DiskFormat.QCOW2)
    )
    assert plan_disk(look(wanted, template=own)) == Make(content=CopyOf(path="/t.qcow2"))


def test_a_disk_of_nothing_says_what_to_give_it() -> None:
    with pytest.raises(ImageMissing, match="size"):
        plan_disk(look(disk()))


def test_an_unknown_template_names_the_known_ones() -> None:
    with pytest.raises(ImageMissing, match="debian12"):
        template_place(disk(source={"image": "debain12"}), {"debian12": ImageSpec(path="/x")}, "default")


def test_read_only_disks_are_not_claimed() -> None:
    spec = decode(
        VirtualMachineSpec,
        {
            "cpu": {"cores": 1},
            "memory": "1Gi",
            "disks": [{"name": "root"}, {"name": "iso", "readOnly": True}, {"name": "db", "pool": "fast"}],
        },
    )
    assert writable_names(spec.disks, "web", "default") == ("name/default/web.root", "name/fast/web.db")


OWN_UEFI = "<domain><os><loader type='pflash'>/fw/mine.fd</loader></os></domain>"


@pytest.mark.parametrize(
    ("fields", "pool"),
    [
        ({"firmware": "uefi", "disks": [{"name": "root", "pool": "ceph"}]}, "ceph"),
        ({"firmware": "uefi", "disks": [{"name": "cd", "pool": "iso", "readOnly": True}]}, "nfs"),
        ({"firmware": "uefi", "disks": [{"name": "root", "pool": "local"}]}, None),
        ({"firmware": "bios", "disks": [{"name": "root", "pool": "ceph"}]}, None),
        ({"firmware": "uefi", "disks": [{"name": "root", "pool": "ceph"}], "domainXML": OWN_UEFI}, None),
        ({"firmware": "uefi", "disks": [{"name": "root", "pool": "ceph"}], "domainXML": "<domain"}, None),
        ({"firmware": "uefi", "disks": [{"name": "nvram", "pool": "ceph"}]}, None),
    ],
)
def test_uefi_variables_go_where_every_node_sees_them(fields: dict[str, object], pool: str | None) -> None:
    vm = decode(VirtualMachineSpec, {"cpu": {"cores": 1}, "memory": "64Mi", **fields})
    found = nvram_disk(vm, {"ceph", "nfs", "iso"}, "nfs")
    assert (found.pool if found is not None else None) == pool
