"""What of an existing domain becomes a field, what a person is told, and what vcl cannot take."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.domainxml.adopt import Adopted, Places, adopt, suggest_name
from reconciler.domainxml.parse import DomainXmlInvalid
from reconciler.domainxml.read import describe_xml
from reconciler.resources.errors import InvalidInput
from reconciler.resources.infrastructure import DirectoryPool, PoolType, RbdPool, StoragePoolSpec
from reconciler.resources.virtualmachine import RunStrategy

HERE = Path(__file__).parent
CEPH = StoragePoolSpec(type=PoolType.RBD, rbd=RbdPool(pool="vms"))
TENANT = StoragePoolSpec(type=PoolType.RBD, rbd=RbdPool(pool="vms", namespace="tenant1"))
FILES = StoragePoolSpec(type=PoolType.DIRECTORY, directory=DirectoryPool(path="/srv/images"))
PLACES = Places(pools={"ceph": CEPH, "tenant": TENANT, "local": FILES}, default="local")


def take(name: str, places: Places = PLACES, **more: str) -> Adopted:
    return adopt((HERE / "fixtures" / f"{name}.xml").read_text(encoding="utf-8"), places, **more)


def domain(name: str = "web", devices: str = "", inner: str = "") -> str:
    memory = "" if "<memory" in inner else "<memory unit='GiB'>1</memory>"
    system = "" if "<os" in inner else "<os><type>hvm</type></os>"
    return (
        f"<domain type='kvm'><name>{name}</name>{memory}{system}{inner}<devices>{devices}</devices></domain>"
    )


def told(found: Adopted) -> str:
    return "\n".join(map(str, found.remarks))


class TestDisks:
    def test_an_rbd_image_is_found_by_its_ceph_pool_and_namespace(self) -> None:
        disks = take("hugepages-pinning-numa").spec["disks"]
        assert disks == [
            {"name": "vda", "pool": "ceph", "image": "oracle-root"},
            {"name": "vdb", "pool": "tenant", "image": "oracle-data"},
        ]

    def test_its_monitors_user_and_secret_are_told_and_not_kept(self) -> None:
        found = take("pacemaker-virtualdomain")
        for word in ("10.0.0.1:6789", "Ceph user admin", "secret b0000000-0000-4000-8000-000000000004"):
            assert word in told(found)
        assert "b0000000" not in found.spec["domainXML"]
        assert describe_xml(found.spec["domainXML"]).disks[0].source == ""

    def test_the_default_pool_and_the_usual_name_of_an_image_are_left_out(self) -> None:
        assert take("hotplug-room", Places(pools={"ceph": CEPH}, default="ceph")).spec["disks"] == [
            {"name": "vda"}
        ]

    def test_a_file_is_found_by_its_directory_and_its_suffix(self) -> None:
        assert take("scsi-controllers").spec["disks"] == [
            {"name": "sda", "image": "scsi-a", "bus": "scsi", "cache": "directsync"},
            {"name": "sdb", "image": "scsi-b", "bus": "scsi", "cache": "unsafe", "readOnly": True},
        ]

    def test_of_two_pools_for_one_ceph_pool_none_is_guessed(self) -> None:
        found = take("pacemaker-virtualdomain", Places(pools={"a": CEPH, "b": CEPH}))
        assert "disks" not in found.spec
        assert "the StoragePools a and b are both for the Ceph pool vms" in told(found)
        assert "rbd" in found.spec["domainXML"]

    def test_what_no_pool_is_for_stays_as_it_is_and_is_told(self) -> None:
        found = take("rbd-not-for-a-pool")
        assert "disks" not in found.spec
        for word in (
            "<encryption>",
            "<snapshot>",
            "qcow2 image inside",
            "strange@gold",
            "iscsi:",
            "backup key",
        ):
            assert word in told(found)
        sources = [disk.source for disk in describe_xml(found.spec["domainXML"]).disks]
        assert sources[:2] == ["rbd:vms/strange", "rbd:backup/strange"]

    def test_a_disk_that_only_its_host_has_pins_the_vm(self) -> None:
        pinned = "\n".join(map(str, take("block-devices").pinned))
        assert "disk vda: /dev/vg0/lvm-root is a device of the host" in pinned
        assert "disk vdb" not in pinned

    @pytest.mark.parametrize(
        ("file", "kind", "said"),
        [
            ("/srv/images/a.img", "qcow2", "its name has to end in .qcow2"),
            ("/srv/images/a.qcow2", "raw", "against its name"),
            ("/srv/images/a.vmdk", "vmdk", "in the format vmdk"),
            ("/srv/images/a b.qcow2", "qcow2", "'a b' cannot be the name of an image"),
            ("/elsewhere/a.qcow2", "qcow2", "no StoragePool is for /elsewhere"),
        ],
    )
    def test_a_file_that_a_pool_would_read_otherwise_is_not_given_to_it(
        self, file: str, kind: str, said: str
    ) -> None:
        disk = f"<disk type='file'><driver type='{kind}'/><source file='{file}'/><target dev='vda'/></disk>"
        found = adopt(domain(devices=disk), PLACES)
        assert "disks" not in found.spec
        assert said in told(found)


class TestRemarks:
    def test_devices_of_the_host_are_named(self) -> None:
        pinned = [remark.about for remark in take("hostdev-pci-usb-mdev").pinned]
        assert pinned == ["interface 52:54:00:00:01:08", "hostdev pci", "hostdev usb", "hostdev mdev"]

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("virtiofs-9p", "filesystem: it shows the guest /srv/share of the host"),
            ("secure-boot-tpm", "tpm: libvirt keeps its state on the host"),
            ("tpm-passthrough-uefi-raw", "tpm: the TPM of the host"),
            ("secure-boot-tpm", "the UEFI variables /var/lib/libvirt/qemu/nvram/win11-sb_VARS.fd"),
            ("hugepages-pinning-numa", "CPU pinning: it means CPU and NUMA numbers"),
            ("hugepages-pinning-numa", "huge pages: every node"),
            ("hugepages-pinning-numa", "host-passthrough: live migration needs"),
            ("nics-of-every-type", "every node has to have the network device enp3s0"),
            ("cdrom-floppy-media", "disk hdc: the medium /srv/images/debian-12.iso has to be on every node"),
            ("qemu-commandline", "qemu:commandline: vcl does not see what QEMU opens by it"),
            ("usb-serial-passthrough", "serial: it is connected to a dev of the host"),
            ("nvdimm", "memory: /srv/pmem/a.img is a file of the host"),
            ("sev-guest", "launchSecurity: encrypted memory"),
            ("ide-2009", "on_reboot: 'destroy' becomes 'restart'"),
            ("direct-kernel-tcg", "boot: kernel and initrd have to be on every node"),
        ],
    )
    def test_what_ties_a_vm_to_its_host_or_changes_is_said(self, name: str, said: str) -> None:
        assert said in told(take(name))

    def test_a_plain_vm_on_ceph_is_tied_to_nothing(self) -> None:
        assert take("pacemaker-virtualdomain").pinned == ()


class TestRun:
    def test_xml_of_a_running_domain_is_known_and_loses_what_was_its_runs(self) -> None:
        found = take("ubuntu-utopic-live")
        assert found.running
        text = found.spec["domainXML"]
        for gone in (
            "vnet3",
            "/dev/pts",
            "virtio-disk0",
            "apparmor",
            "5903",
            "/machine",
            "base.qcow2",
            "id=",
        ):
            assert gone not in text

    def test_firmware_that_libvirt_chose_is_written_down_as_what_it_became(self) -> None:
        features = "<firmware><feature enabled='no' name='secure-boot'/></firmware>"
        wish = f"<os firmware='efi'><type>hvm</type>{features}"
        loader = "<loader readonly='yes' type='pflash'>/fw.fd</loader>"
        chosen = (
            f"{loader}<nvram template='/t.fd'>/n/web.fd</nvram></os><features><smm state='on'/></features>"
        )
        running = domain(inner=f"{wish}{chosen}")
        for found in (
            adopt(domain(inner=f"{wish}</os>"), PLACES, live=running),
            adopt(running, PLACES),
        ):
            text = found.spec["domainXML"]
            assert "firmware=" not in text
            assert "<feature " not in text
            assert ">/fw.fd</loader>" in text
            assert ">/n/web.fd</nvram>" in text
            assert '<smm state="on" />' in text
            assert found.spec["firmware"] == "uefi"

    def test_it_stays_off_until_somebody_starts_it_unless_told_otherwise(self) -> None:
        text = domain()
        assert adopt(text, PLACES).spec["runStrategy"] == "Manual"
        assert "runStrategy" not in adopt(text, PLACES, run_strategy=RunStrategy.ALWAYS).spec

    def test_a_mark_of_vcl_is_told_and_not_kept(self) -> None:
        found = take("made-by-vcl")
        assert found.owner is not None
        assert (found.owner.cluster_uid, found.owner.node) == ("c9", "r9")
        assert "urn:vcl:domain:1" not in found.spec["domainXML"]
        assert found.spec["disks"] == [{"name": "root", "pool": "ceph"}]
        assert found.spec["interfaces"][0]["name"] == "lan"


class TestRefused:
    @pytest.mark.parametrize("name", ["web 1", "a/b", "web_1", "-x", "ü", "x" * 64])
    def test_a_name_that_no_vm_can_have_comes_with_one_that_it_can(self, name: str) -> None:
        with pytest.raises(InvalidInput) as refused:
            adopt(domain(name), PLACES)
        assert f"--rename '{name}={suggest_name(name)}'" in str(refused.value)
        assert adopt(domain(name), PLACES, name=suggest_name(name)).domain == name

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("<domain type='lxc'><name>c</name><memory>1</memory></domain>", "of type 'lxc'"),
            ("<domain type='xen'><name>c</name><memory>1</memory></domain>", "of type 'xen'"),
            (domain(inner="<os><type>exe</type></os>"), "<os><type>exe"),
            (domain(inner="<memory>lots</memory>"), "no <memory>"),
        ],
    )
    def test_a_domain_that_vcl_cannot_run_is_refused(self, text: str, said: str) -> None:
        with pytest.raises(InvalidInput, match=said):
            adopt(text, PLACES)

    def test_a_disk_that_a_block_job_copies_is_refused(self) -> None:
        text = (HERE / "samples" / "memory-devices.xml").read_text(encoding="utf-8")
        with pytest.raises(InvalidInput, match="virsh blockjob pmem vda --abort"):
            adopt(text, PLACES)

    @pytest.mark.parametrize("text", ["", "<network/>", "<domain>", "<!DOCTYPE x []><domain/>", "no XML"])
    def test_what_is_no_domain_xml_is_refused(self, text: str) -> None:
        with pytest.raises(DomainXmlInvalid):
            adopt(text, PLACES)
