"""Disks in a Ceph pool: what libvirt is told of them, and that it reads back the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest

from reconciler.domainxml.parse import parse
from reconciler.domainxml.read import describe_xml
from reconciler.resources.domains import AttachedDisk, Definition
from reconciler.resources.images import RbdAccess
from reconciler.resources.virtualmachine import Disk, DiskFormat, Firmware

SECRET = "22222222-2222-4333-8444-555555555503"
ACCESS = RbdAccess(
    monitors=("192.0.2.11:6789", "192.0.2.12:6789", "[2001:db8::13]:6789"),
    user="qemu",
    secret=SECRET,
    config="/var/lib/vcl/ceph/f1-qemu.conf",
)


def attached(path: str = "rbd:vms/tenant1/web.root", access: RbdAccess = ACCESS) -> AttachedDisk:
    return AttachedDisk(name="root", path=path, format=DiskFormat.RAW, access=access)


@pytest.fixture
def rbd(define: Callable[..., Definition]) -> Callable[..., Definition]:
    def make(disk: AttachedDisk | None = None, **fields: object) -> Definition:
        return define(disks=(Disk(name="root"),), attached=(disk or attached(),), **fields)

    return make


def test_a_disk_names_all_monitors_the_key_and_the_image_in_its_namespace(
    rbd: Callable[..., Definition], validate: Callable[[Iterable[str]], None]
) -> None:
    made = rbd()
    validate([made.document])
    (disk,) = describe_xml(made.document).disks
    assert (disk.type, disk.source, disk.format) == ("network", "rbd:vms/tenant1/web.root", "raw")
    assert disk.hosts == ("192.0.2.11:6789", "192.0.2.12:6789", "2001:db8::13:6789")
    assert (disk.config, disk.cache, disk.name) == (ACCESS.config, "none", "root")
    assert made.writable == ("rbd:vms/tenant1/web.root",)
    element = parse(made.document).root.find("devices/disk")
    assert element is not None
    driver, secret = element.find("driver"), element.find("auth[@username='qemu']/secret[@type='ceph']")
    assert driver is not None
    assert (driver.get("discard"), driver.get("error_policy")) == ("unmap", "stop")
    assert secret is not None
    assert secret.get("uuid") == SECRET


def test_without_cephx_and_a_configuration_nothing_is_said_of_them(
    rbd: Callable[..., Definition], validate: Callable[[Iterable[str]], None]
) -> None:
    made = rbd(attached(access=replace(ACCESS, secret="", config="")))
    validate([made.document])
    assert "<auth" not in made.document
    assert "<config" not in made.document


@pytest.mark.parametrize(
    "source",
    [
        "<source file='/pool/web.qcow2'/><backingStore type='file'><format type='raw'/></backingStore>",
        "<auth username='old'><secret type='ceph' usage='x'/></auth><source protocol='rbd' "
        "name='vms/tenant1/web.root'><host name='old'/><snapshot name='gold'/></source>",
        "<source protocol='rbd' name='other/image'><host name='old'/></source>",
    ],
)
def test_a_users_own_disk_gets_this_source_and_keeps_the_rest(
    rbd: Callable[..., Definition], validate: Callable[[Iterable[str]], None], source: str
) -> None:
    xml = f"""
      <domain type='kvm'><name>x</name><memory>1</memory><os><type>hvm</type></os><devices>
        <disk type='network' device='disk'><driver name='qemu' type='qcow2' cache='writeback'/>{source}
        <target dev='vdc' bus='virtio'/><serial>root</serial>
        <iotune><total_iops_sec>9</total_iops_sec></iotune>
        </disk></devices></domain>"""
    made = rbd(domain_xml=xml)
    validate([made.document])
    (disk,) = describe_xml(made.document).disks
    assert disk.source == "rbd:vms/tenant1/web.root"
    assert (disk.target, disk.cache, disk.format) == ("vdc", "writeback", "raw")
    assert "old" not in made.document
    assert "<snapshot" not in made.document
    assert "total_iops_sec" in made.document


def test_a_disk_that_moves_from_ceph_to_a_file_leaves_nothing_of_ceph_behind(
    define: Callable[..., Definition], rbd: Callable[..., Definition]
) -> None:
    before = rbd().document
    made = define(disks=(Disk(name="root"),), domain_xml=before)
    (disk,) = describe_xml(made.document).disks
    assert (disk.type, disk.source, disk.hosts) == ("file", "/pool/root.qcow2", ())
    assert "ceph" not in made.document


def test_one_image_by_two_disks_is_refused(define: Callable[..., Definition]) -> None:
    disks = (Disk(name="root"), Disk(name="data"))
    both = (attached(), replace(attached(), name="data"))
    with pytest.raises(Exception, match="attached 2 times"):
        define(disks=disks, attached=both)


def test_uefi_variables_in_a_pool_are_a_network_image_without_a_template(
    rbd: Callable[..., Definition], validate: Callable[[Iterable[str]], None]
) -> None:
    made = rbd(firmware=Firmware.UEFI, variables=attached("rbd:vms/web.nvram"))
    validate([made.document])
    facts = describe_xml(made.document)
    assert (facts.firmware, facts.nvram) == ("uefi", "rbd:vms/web.nvram")
    assert made.writable == ("rbd:vms/tenant1/web.root", "rbd:vms/web.nvram")
    variables = parse(made.document).root.find("os/nvram")
    assert variables is not None
    assert variables.attrib == {"type": "network"}
    assert variables.find("source/auth[@username='qemu']/secret") is not None


def test_uefi_variables_in_a_shared_directory_are_a_file(rbd: Callable[..., Definition]) -> None:
    file = AttachedDisk(name="nvram", path="/srv/nfs/web.nvram.qcow2", format=DiskFormat.QCOW2)
    made = rbd(firmware=Firmware.UEFI, variables=file)
    assert describe_xml(made.document).nvram == file.path
    assert file.path in made.writable
