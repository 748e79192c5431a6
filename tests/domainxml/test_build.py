"""What a VM without domainXML gets."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace

import pytest

from reconciler.domainxml.build import GuestPaths, HostProfile
from reconciler.domainxml.metadata import ownership
from reconciler.domainxml.read import describe_xml
from reconciler.resources.domains import AttachedDisk, Definition
from reconciler.resources.errors import StartFailed
from reconciler.resources.virtualmachine import (
    Boot,
    CloudInit,
    Cpu,
    Disk,
    DiskBus,
    DiskCache,
    DiskFormat,
    Firmware,
    Interface,
    NicModel,
    NicState,
)

Define = Callable[..., Definition]


def tree(definition: Definition) -> ET.Element:
    return ET.fromstring(definition.document)


def attributes(definition: Definition, path: str) -> list[dict[str, str]]:
    return [dict(element.attrib) for element in tree(definition).findall(path)]


def test_the_same_request_gives_the_same_bytes(define: Define) -> None:
    fields = {
        "disks": (Disk(name="root"),),
        "interfaces": (Interface(name="lan"),),
        "cloud_init": CloudInit(),
    }
    assert define(**fields) == define(**fields)


def test_the_domain_is_named_and_numbered_after_the_vm(define: Define) -> None:
    definition = define(name="db", uid="0c0ffee0-0000-4000-8000-000000000001")
    root = tree(definition)
    assert (root.findtext("name"), root.findtext("uuid")) == (definition.name, definition.uid)


def test_it_says_whose_it_is(define: Define) -> None:
    mark = ownership(define(cluster_uid="c9", node="r7", name="db", generation=12).document)
    assert mark is not None
    assert (mark.cluster_uid, mark.node, mark.name, mark.generation) == ("c9", "r7", "db", 12)


def test_vcl_decides_about_restarts_but_a_reboot_keeps_running(define: Define) -> None:
    root = tree(define())
    actions = [root.findtext(tag) for tag in ("on_poweroff", "on_reboot", "on_crash")]
    assert actions == ["destroy", "restart", "destroy"]


def test_memory_is_given_in_whole_mib(define: Define) -> None:
    facts = describe_xml(define(memory=(512 << 20) + 1).document)
    assert facts.memory == 513 << 20


@pytest.mark.parametrize(
    ("virtualization", "model", "mode"),
    [
        ("kvm", None, {"mode": "host-model"}),
        ("qemu", None, {"mode": "maximum"}),
        ("kvm", "host-passthrough", {"mode": "host-passthrough"}),
        ("qemu", "host-passthrough", {"mode": "maximum"}),
        ("qemu", "host-model", {"mode": "host-model"}),
        ("kvm", "Nehalem", {"mode": "custom", "match": "exact"}),
        ("qemu", "Nehalem", {"mode": "custom", "match": "exact", "check": "none"}),
    ],
)
def test_the_cpu_is_the_one_asked_for_as_far_as_the_host_has_one(
    define: Define, host: HostProfile, virtualization: str, model: str | None, mode: dict[str, str]
) -> None:
    on = replace(host, virtualization=virtualization)
    definition = define(on=on, cpu=Cpu(cores=2, model=model))
    assert attributes(definition, "cpu") == [mode]
    assert tree(definition).get("type") == virtualization


class TestMachine:
    """Which virtual hardware it is, for life."""

    def test_an_alias_becomes_the_version_that_the_host_means_by_it(self, define: Define) -> None:
        definition = define(machine="q35")
        assert definition.machine == "pc-q35-7.2"
        assert attributes(definition, "os/type") == [{"arch": "x86_64", "machine": "pc-q35-7.2"}]

    def test_the_version_of_the_first_start_stays_when_the_host_moves_on(self, define: Define) -> None:
        assert define(machine="q35", machine_pin="pc-q35-6.1").machine == "pc-q35-6.1"

    def test_another_family_in_the_manifest_replaces_the_pinned_one(self, define: Define) -> None:
        assert define(machine="pc", machine_pin="pc-q35-6.1").machine == "pc-i440fx-7.2"

    def test_a_version_in_the_manifest_is_the_users_own_pin(self, define: Define) -> None:
        assert define(machine="pc-q35-5.2", machine_pin="pc-q35-6.1").machine == "pc-q35-5.2"

    def test_a_pin_is_kept_when_the_host_tells_no_machine_types(
        self, define: Define, host: HostProfile
    ) -> None:
        on = replace(host, machine_types={})
        assert define(on=on, machine_pin="pc-q35-6.1").machine == "pc-q35-6.1"


class TestFirmware:
    def test_uefi_names_its_code_and_its_own_variables(self, define: Define, paths: GuestPaths) -> None:
        definition = define(firmware=Firmware.UEFI)
        facts = describe_xml(definition.document)
        assert (facts.firmware, facts.nvram) == ("uefi", paths.nvram)
        assert paths.nvram in definition.writable

    def test_without_uefi_firmware_on_the_host_it_says_what_to_install(
        self, define: Define, host: HostProfile
    ) -> None:
        with pytest.raises(StartFailed, match=r"no UEFI firmware is installed.*ovmf") as refused:
            define(on=replace(host, uefi=None), firmware=Firmware.UEFI)
        assert refused.value.reason == "FirmwareMissing"

    def test_a_kernel_is_booted_directly(self, define: Define) -> None:
        boot = Boot(kernel="/k", initrd="/i", cmdline='console=ttyS0 a="<b>&c"')
        facts = describe_xml(define(boot=boot).document)
        assert (facts.boot.kernel, facts.boot.initrd, facts.boot.cmdline) == ("/k", "/i", boot.cmdline)


class TestDisks:
    def test_targets_follow_the_order_of_the_spec(self, define: Define) -> None:
        names = [f"d{i}" for i in range(28)]
        facts = describe_xml(define(disks=tuple(Disk(name=name) for name in names)).document)
        assert [disk.name for disk in facts.disks] == names
        assert [disk.target for disk in facts.disks][-4:] == ["vdy", "vdz", "vdaa", "vdab"]

    def test_a_disk_is_what_the_spec_says(self, define: Define) -> None:
        disk = Disk(name="data", bus=DiskBus.SCSI, cache=DiskCache.WRITEBACK)
        attached = (AttachedDisk(name="data", path="/pool/x.img", format=DiskFormat.RAW),)
        definition = define(disks=(disk,), attached=attached)
        facts = describe_xml(definition.document).disks[0]
        assert (facts.source, facts.format, facts.bus, facts.cache) == (
            "/pool/x.img",
            "raw",
            "scsi",
            "writeback",
        )
        assert facts.serial == "data"
        assert attributes(definition, "devices/disk/driver")[0]["discard"] == "unmap"
        assert definition.writable == ("/pool/x.img",)

    def test_a_storage_error_pauses_the_guest(self, define: Define) -> None:
        driver = attributes(define(disks=(Disk(name="root"),)), "devices/disk/driver")[0]
        assert driver["error_policy"] == "stop"

    def test_a_block_device_is_one(self, define: Define) -> None:
        attached = (AttachedDisk(name="root", path="/dev/vg/root", format=DiskFormat.RAW),)
        definition = define(disks=(Disk(name="root"),), attached=attached)
        assert describe_xml(definition.document).disks[0].type == "block"
        assert definition.writable == ("/dev/vg/root",)

    def test_the_first_disk_is_booted_first(self, define: Define) -> None:
        definition = define(disks=(Disk(name="a"), Disk(name="b")))
        assert attributes(definition, "devices/disk/boot") == [{"order": "1"}, {"order": "2"}]

    @pytest.mark.parametrize("bus", list(DiskBus))
    def test_a_read_only_disk_is_never_written(self, define: Define, bus: DiskBus) -> None:
        definition = define(disks=(Disk(name="iso", bus=bus, read_only=True),))
        disk = describe_xml(definition.document).disks[0]
        assert disk.read_only
        assert disk.device == ("cdrom" if bus is DiskBus.SATA else "disk")
        assert definition.writable == ()

    def test_an_image_attached_read_only_is_read_only(self, define: Define) -> None:
        attached = (AttachedDisk(name="a", path="/a", format=DiskFormat.RAW, read_only=True),)
        assert define(disks=(Disk(name="a"),), attached=attached).writable == ()

    def test_scsi_disks_get_as_many_virtio_controllers_as_they_need(self, define: Define) -> None:
        disks = tuple(Disk(name=f"d{i}", bus=DiskBus.SCSI) for i in range(16))
        controllers = [
            c for c in attributes(define(disks=disks), "devices/controller") if c["type"] == "scsi"
        ]
        assert [(c["index"], c["model"]) for c in controllers] == [("0", "virtio-scsi"), ("1", "virtio-scsi")]

    def test_a_long_name_keeps_a_serial_of_its_own(self, define: Define) -> None:
        disks = (Disk(name="a" * 30 + "1"), Disk(name="a" * 30 + "2"))
        serials = [disk.serial for disk in describe_xml(define(disks=disks).document).disks]
        assert len(set(serials)) == 2
        assert all(len(serial) <= 20 for serial in serials)

    def test_a_disk_of_the_spec_that_is_not_attached_is_refused(self, define: Define) -> None:
        with pytest.raises(StartFailed, match="no image is attached for 'data'") as refused:
            define(disks=(Disk(name="root"), Disk(name="data")), attached=())
        assert refused.value.reason == "DiskMissing"

    def test_one_image_under_two_names_is_refused(self, define: Define) -> None:
        attached = tuple(
            AttachedDisk(name=name, path=path, format=DiskFormat.RAW)
            for name, path in (("a", "/pool/x"), ("b", "/pool/./x"))
        )
        with pytest.raises(StartFailed, match="/pool/x is attached 2 times") as refused:
            define(disks=(Disk(name="a"), Disk(name="b")), attached=attached)
        assert refused.value.reason == "DiskConflict"


class TestInterfaces:
    def test_each_is_on_its_bridge_its_network_or_behind_qemu(self, define: Define) -> None:
        interfaces = (
            Interface(name="a", bridge="br0", mac="52:54:00:AB:CD:EF"),
            Interface(name="b", network="lan", model=NicModel.E1000E),
            Interface(name="c"),
        )
        facts = describe_xml(define(interfaces=interfaces).document).interfaces
        assert [(nic.name, nic.type, nic.source, nic.model) for nic in facts] == [
            ("a", "bridge", "br0", "virtio"),
            ("b", "network", "lan", "e1000e"),
            ("c", "user", "", "virtio"),
        ]
        assert facts[0].mac == "52:54:00:ab:cd:ef"

    def test_a_mac_that_nobody_wrote_is_the_same_at_every_start(self, define: Define) -> None:
        first, again = (
            describe_xml(define(interfaces=nics, generation=generation, node=node).document).interfaces
            for nics, generation, node in (
                ((Interface(name="lan"),), 1, "r1"),
                ((Interface(name="wan"), Interface(name="lan")), 9, "r2"),
            )
        )
        assert first[0].mac == again[1].mac != again[0].mac
        assert first[0].mac.startswith("52:54:00:")

    def test_two_vms_get_two_macs(self, define: Define) -> None:
        macs = {
            describe_xml(define(uid=uid, interfaces=(Interface(name="lan"),)).document).interfaces[0].mac
            for uid in ("a", "b")
        }
        assert len(macs) == 2


class TestEssentials:
    def test_the_console_is_logged_where_the_adapter_says(self, define: Define, paths: GuestPaths) -> None:
        assert describe_xml(define().document).console_log == paths.console_log

    def test_the_agent_has_a_channel_unless_it_is_not_wanted(self, define: Define) -> None:
        assert describe_xml(define().document).agent == ""
        assert describe_xml(define(guest_agent=False).document).agent is None

    def test_the_screen_is_only_for_this_machine(self, define: Define) -> None:
        vnc = describe_xml(define().document).vnc
        assert vnc is not None
        assert (vnc.host, vnc.port) == ("127.0.0.1", None)

    @pytest.mark.parametrize("device", ["rng", "memballoon", "panic", "video", "input"])
    def test_it_has_what_guests_expect(self, define: Define, device: str) -> None:
        assert len(attributes(define(), f"devices/{device}")) == 1


class TestCloudInit:
    def test_the_seed_is_the_last_disk_and_read_only(self, define: Define, paths: GuestPaths) -> None:
        definition = define(
            disks=(Disk(name="cloud-init"),), cloud_init=CloudInit(user_data="#cloud-config\n")
        )
        disks = describe_xml(definition.document).disks
        assert [(disk.source, disk.target, disk.read_only) for disk in disks] == [
            ("/pool/cloud-init.qcow2", "vda", False),
            (paths.seed_image, "vdb", True),
        ]

    @pytest.mark.parametrize(
        ("bus", "device"), [(DiskBus.VIRTIO, "disk"), (DiskBus.SCSI, "disk"), (DiskBus.SATA, "cdrom")]
    )
    def test_it_is_on_the_bus_that_the_guest_boots_from(
        self, define: Define, bus: DiskBus, device: str
    ) -> None:
        definition = define(disks=(Disk(name="root", bus=bus),), cloud_init=CloudInit())
        seed = describe_xml(definition.document).disks[-1]
        assert (seed.bus, seed.device) == (bus.value, device)

    def test_the_instance_keeps_its_id_for_life(self, define: Define) -> None:
        definition = define(cloud_init=CloudInit(user_data="#!/bin/sh\n"))
        assert definition.seed == {
            "meta-data": f"instance-id: {definition.uid}\nlocal-hostname: web\n",
            "user-data": "#!/bin/sh\n",
        }

    def test_what_the_user_wrote_is_used(self, define: Define) -> None:
        cloud = CloudInit(meta_data="local-hostname: www\npublic-keys: []\n", network_config="version: 2\n")
        definition = define(cloud_init=cloud)
        assert definition.seed["meta-data"] == f"instance-id: {definition.uid}\n{cloud.meta_data}"
        assert definition.seed["network-config"] == "version: 2\n"

    def test_json_meta_data_is_left_alone(self, define: Define) -> None:
        assert (
            define(cloud_init=CloudInit(meta_data='{"instance-id": "i"}')).seed["meta-data"].startswith("{")
        )

    def test_without_cloud_init_there_is_no_seed(self, define: Define) -> None:
        definition = define()
        assert (definition.seed, describe_xml(definition.document).disks) == ({}, ())


class TestRoomForMore:
    def test_vcpus_up_to_the_maximum_can_come_later(self, define: Define) -> None:
        definition = define(cpu=Cpu(cores=2, max_cores=8))
        assert attributes(definition, "vcpu")[0]["current"] == "2"
        assert tree(definition).findtext("vcpu") == "8"
        assert describe_xml(definition.document).vcpus == 2

    def test_a_maximum_that_is_reached_leaves_nothing_to_say(self, define: Define) -> None:
        same = define(cpu=Cpu(cores=2, max_cores=2))
        assert "current" not in attributes(same, "vcpu")[0]

    def test_memory_that_may_come_is_not_given_at_the_start(self, define: Define) -> None:
        definition = define(memory=1 << 30, max_memory=(3 << 30) + 1, cpu=Cpu(cores=2, max_cores=4))
        root = tree(definition)
        room = 2 << 20  # in KiB
        assert root.findtext("devices/memory/target/size") == str(room + 2048)
        assert root.findtext("devices/memory/target/requested") == "0"
        assert root.findtext("memory") == root.findtext("maxMemory") == str((1 << 20) + room + 2048)
        assert root.findtext("currentMemory") == str(1 << 20)
        assert attributes(definition, "cpu/numa/cell")[0]["cpus"] == "0-3"
        assert describe_xml(definition.document).memory == 1 << 30

    def test_memory_that_has_come_counts(self, define: Define) -> None:
        text = define(memory=1 << 30, max_memory=2 << 30).document
        given = text.replace('<requested unit="KiB">0<', '<requested unit="KiB">524288<')
        assert given != text
        assert describe_xml(given).memory == (1 << 30) + (512 << 20)
        taken = given.replace("</requested>", '</requested><current unit="KiB">262144</current>')
        assert describe_xml(taken).memory == (1 << 30) + (256 << 20)

    def test_room_does_not_go_with_cells_of_ones_own(self, define: Define) -> None:
        own = (
            "<domain><memory unit='GiB'>1</memory><vcpu>2</vcpu><cpu><numa>"
            "<cell id='0' cpus='0' memory='512' unit='MiB'/><cell id='1' cpus='1' memory='512' unit='MiB'/>"
            "</numa></cpu></domain>"
        )
        with pytest.raises(StartFailed, match="maxMemory does not go with several NUMA cells") as refused:
            define(memory=1 << 30, max_memory=2 << 30, cpu=Cpu(cores=2), domain_xml=own)
        assert "line 1" in refused.value.message

    def test_a_q35_has_free_ports_for_disks_that_come_later(self, define: Define) -> None:
        def ports(**fields: object) -> int:
            found = attributes(define(**fields), "devices/controller")
            return sum(controller.get("model") == "pcie-root-port" for controller in found)

        two = (Disk(name="root"), Disk(name="scsi", bus=DiskBus.SCSI))
        assert ports(disks=two) == ports() + 2  # the disk's own, and the SCSI controller's
        assert ports(machine="pc") == 0

    @pytest.mark.parametrize("state", list(NicState))
    def test_a_cable_is_in_or_out_as_the_spec_says(self, define: Define, state: NicState) -> None:
        definition = define(interfaces=(Interface(name="lan", bridge="br0", state=state),))
        assert attributes(definition, "devices/interface/link") == [{"state": state.value}]
        assert attributes(define(interfaces=(Interface(name="lan"),)), "devices/interface/link") == []


def test_a_character_that_xml_cannot_hold_is_refused_by_name(define: Define) -> None:
    with pytest.raises(StartFailed, match=r"cmdline: the character U\+0007 cannot be written"):
        define(boot=Boot(kernel="/k", cmdline="bell \a"))
