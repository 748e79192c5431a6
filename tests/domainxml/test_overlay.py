"""The spec over a user's own domainXML: what is asked for holds, everything else stays."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest

from reconciler.domainxml.build import GuestPaths, HostProfile
from reconciler.domainxml.metadata import NAMESPACE, ownership
from reconciler.domainxml.read import describe_xml
from reconciler.resources.domains import Definition
from reconciler.resources.errors import StartFailed
from reconciler.resources.virtualmachine import (
    CloudInit,
    Cpu,
    Disk,
    DiskBus,
    DiskCache,
    Firmware,
    Interface,
    NicModel,
)

Define = Callable[..., Definition]
NAMES = [
    "i440fx-ide-2011",
    "kernel-boot-tcg",
    "memory-devices",
    "multi-nic-cdrom",
    "numa-hugepages",
    "passthrough-hostdev",
    "rbd-secret",
    "shared-and-luks",
    "virt-manager-q35-uefi",
    "windows-spice-sata",
]
"""Checked against the directory by a test below."""


def amounts(text: str) -> dict[str, Any]:
    """The spec that a user writes next to this XML: the same CPUs and memory."""
    facts = describe_xml(text)
    return {"cpu": Cpu(cores=facts.vcpus), "memory": facts.memory, "domain_xml": text}


def rich(text: str) -> dict[str, Any]:
    """A spec that adds and overlays nearly everything."""
    return amounts(text) | {
        "disks": (Disk(name="system"), Disk(name="vda"), Disk(name="extra", bus=DiskBus.SCSI)),
        "interfaces": (Interface(name="nat"), Interface(name="b", bridge="br9", mac="52:54:00:aa:00:02")),
        "cloud_init": CloudInit(),
    }


def domain(inner: str = "", attributes: str = "type='kvm'", devices: str = "") -> str:
    """A small definition of a user's."""
    kind = "" if "<os" in inner else "<os><type arch='x86_64' machine='q35'>hvm</type></os>"
    return (
        f"<domain {attributes}>\n<name>mine</name><memory>2097152</memory><vcpu>2</vcpu>\n{kind}{inner}\n"
        f"<devices>{devices}</devices></domain>"
    )


def tree(definition: Definition) -> ET.Element:
    return ET.fromstring(definition.document)


def shape(element: ET.Element) -> tuple[Any, ...]:
    """An element without the indentation around it."""
    return (
        element.tag,
        tuple(sorted(element.attrib.items())),
        (element.text or "").strip(),
        tuple(shape(child) for child in element),
    )


def test_the_list_of_samples_is_complete(samples: dict[str, str]) -> None:
    assert sorted(samples) == NAMES


@pytest.mark.libvirt
@pytest.mark.parametrize("name", NAMES)
def test_every_sample_stays_valid_under_the_spec(
    define: Define,
    host: HostProfile,
    samples: dict[str, str],
    validate: Callable[[Iterable[str]], None],
    name: str,
) -> None:
    text = samples[name]
    hosts = (host, replace(host, virtualization="qemu"))
    definitions = [define(on=on, **fields(text)) for on in hosts for fields in (amounts, rich)]
    validate([text, *(definition.document for definition in definitions)])


@pytest.mark.parametrize("name", NAMES)
def test_devices_that_the_spec_does_not_name_stay_as_they_are(
    define: Define, samples: dict[str, str], name: str
) -> None:
    before = ET.fromstring(samples[name]).find("devices")
    after = tree(define(**amounts(samples[name]))).find("devices")
    assert before is not None
    assert after is not None
    kept = [shape(device) for device in after]
    changed = [
        device.tag
        for device in before
        if shape(device) not in kept and device.tag not in ("serial", "console", "emulator")
    ]
    assert changed == []


@pytest.mark.parametrize("name", NAMES)
def test_laying_the_spec_over_the_result_again_changes_nothing(
    define: Define, samples: dict[str, str], name: str
) -> None:
    fields = rich(samples[name])
    once = define(**fields)
    twice = define(**(fields | {"domain_xml": once.document}))
    first, second = ownership(once.document), ownership(twice.document)
    assert first is not None
    assert second is not None
    assert first.spec == second.spec


@pytest.mark.parametrize("name", NAMES)
def test_what_the_guest_may_write_is_all_named(define: Define, samples: dict[str, str], name: str) -> None:
    definition = define(**rich(samples[name]))
    assert set(definition.writable) == set(describe_xml(definition.document).writable)
    assert {"/pool/system.qcow2", "/pool/vda.qcow2", "/pool/extra.qcow2"} <= set(definition.writable)


def test_the_fields_of_the_spec_hold(define: Define, samples: dict[str, str]) -> None:
    text = samples["i440fx-ide-2011"]
    definition = define(name="web", cpu=Cpu(cores=3), memory=3 << 30, domain_xml=text)
    facts, root = describe_xml(definition.document), tree(definition)
    assert (facts.name, facts.uuid, facts.vcpus, facts.memory) == ("web", definition.uid, 3, 3 << 30)
    assert root.findtext("currentMemory") == root.findtext("memory")
    assert [root.findtext(tag) for tag in ("on_poweroff", "on_reboot", "on_crash")] == [
        "destroy",
        "restart",
        "destroy",
    ]
    assert root.get("id") is None


def test_fields_left_at_their_default_do_not_overrule_the_users_xml(
    define: Define, samples: dict[str, str]
) -> None:
    definition = define(**amounts(samples["i440fx-ide-2011"]))
    facts = describe_xml(definition.document)
    assert definition.machine == "pc-i440fx-2.1"
    assert [disk.bus for disk in facts.disks] == ["ide", "ide", "fdc"]
    assert facts.vnc is not None
    assert (facts.vnc.host, facts.vnc.port) == ("0.0.0.0", 5907)
    assert tree(definition).findtext("currentMemory") == "524288"


def test_comments_unknown_elements_and_other_namespaces_survive(define: Define) -> None:
    text = domain(
        "<!-- why -->\n<future-thing level='9'><a/></future-thing>"
        "<metadata><x:note xmlns:x='urn:x'>hi</x:note></metadata>"
        "<q:commandline><q:arg value='-nodefaults'/></q:commandline>",
        attributes="type='kvm' xmlns:q='http://libvirt.org/schemas/domain/qemu/1.0'",
    )
    document = define(domain_xml=text).document
    for kept in ("<!-- why -->", '<future-thing level="9">', '<x:note xmlns:x="urn:x">hi', "<q:arg value="):
        assert kept in document


def test_an_old_mark_of_vcl_is_replaced_whatever_its_prefix(define: Define) -> None:
    text = domain(f"<metadata><own:domain xmlns:own='{NAMESPACE}' cluster='a' node='b' uid='c'/></metadata>")
    document = define(cluster_uid="c1", domain_xml=text).document
    mark = ownership(document)
    assert mark is not None
    assert mark.cluster_uid == "c1"
    assert document.count(NAMESPACE) == 1


class TestMachine:
    def test_xml_without_a_machine_means_what_libvirt_means_by_it(self, define: Define) -> None:
        text = domain("<os><type>hvm</type></os>")
        assert define(domain_xml=text).machine == "pc-i440fx-7.2"

    def test_xml_without_an_os_gets_vcls(self, define: Define) -> None:
        text = "<domain><memory>1</memory></domain>"
        definition = define(domain_xml=text)
        assert definition.machine == "pc-q35-7.2"
        assert tree(definition).find("features/acpi") is not None

    def test_a_machine_in_the_spec_holds(self, define: Define) -> None:
        assert define(machine="pc", domain_xml=domain()).machine == "pc-i440fx-7.2"

    @pytest.mark.parametrize(
        "path", ["/usr/bin/kvm", "/usr/libexec/qemu-kvm", "/usr/bin/qemu-system-x86_64", None]
    )
    def test_another_distributions_qemu_becomes_this_hosts(
        self, define: Define, host: HostProfile, path: str | None
    ) -> None:
        devices = "" if path is None else f"<emulator>{path}</emulator>"
        definition = define(on=replace(host, emulator="/opt/qemu"), domain_xml=domain(devices=devices))
        assert tree(definition).findtext("devices/emulator") == "/opt/qemu"

    def test_a_qemu_of_the_users_own_stays(self, define: Define) -> None:
        text = domain(devices="<emulator>/opt/qemu-9/bin/qemu-system-x86_64</emulator>")
        path = tree(define(domain_xml=text)).findtext("devices/emulator")
        assert path == "/opt/qemu-9/bin/qemu-system-x86_64"

    def test_the_smbios_uuid_follows_the_domains(self, define: Define, samples: dict[str, str]) -> None:
        definition = define(**amounts(samples["passthrough-hostdev"]))
        entries = {e.get("name"): e.text for e in tree(definition).findall("sysinfo/system/entry")}
        assert entries == {"manufacturer": "Example", "uuid": definition.uid}

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("<domain type='xen'/>", "line 1: <domain type='xen'>: vcl runs only"),
            (
                "<domain>\n<os><type>linux</type></os></domain>",
                "line 2: <os><type>linux: vcl runs only 'hvm'",
            ),
            ("<domain>\n<oops></domain>", "spec.domainXML: line 2: not well-formed XML"),
        ],
    )
    def test_what_vcl_cannot_run_is_refused_with_its_line(self, define: Define, text: str, said: str) -> None:
        with pytest.raises(StartFailed) as refused:
            define(domain_xml=text)
        assert said in refused.value.message
        assert refused.value.reason == "InvalidDomainXML"


class TestFirmware:
    def test_the_users_uefi_stays_and_its_variables_too(
        self, define: Define, samples: dict[str, str]
    ) -> None:
        definition = define(firmware=Firmware.UEFI, **amounts(samples["virt-manager-q35-uefi"]))
        assert "/var/lib/libvirt/qemu/nvram/fedora38_VARS.fd" in definition.writable

    def test_variables_that_libvirt_would_place_are_placed_by_the_adapter(
        self, define: Define, samples: dict[str, str], paths: GuestPaths
    ) -> None:
        definition = define(**amounts(samples["windows-spice-sata"]))
        assert paths.nvram in definition.writable

    def test_uefi_can_be_asked_for_on_top_of_bios_xml(self, define: Define, paths: GuestPaths) -> None:
        text = domain("<os><type machine='q35'>hvm</type><loader type='rom'>/bios.bin</loader></os>")
        facts = describe_xml(define(firmware=Firmware.UEFI, domain_xml=text).document)
        assert (facts.firmware, facts.nvram) == ("uefi", paths.nvram)

    def test_a_stateless_firmware_has_no_variables(self, define: Define) -> None:
        loader = "<loader readonly='yes' type='pflash' stateless='yes'>/fw.fd</loader>"
        text = domain(f"<os><type machine='q35'>hvm</type>{loader}</os>")
        assert define(domain_xml=text).writable == ()


class TestCapacity:
    def test_room_for_hot_plug_stays(self, define: Define) -> None:
        text = domain("<vcpus/>").replace("<vcpu>2", "<vcpu current='2'>8")
        facts = describe_xml(define(cpu=Cpu(cores=4), domain_xml=text).document)
        assert (facts.vcpus, facts.max_vcpus) == (4, 8)

    def test_a_topology_is_fitted_or_dropped(self, define: Define) -> None:
        text = domain("<cpu mode='host-model'><topology sockets='1' cores='1' threads='2'/></cpu>")
        fitted = tree(define(cpu=Cpu(cores=6), domain_xml=text)).find("cpu/topology")
        assert fitted is not None
        assert fitted.get("cores") == "3"
        assert tree(define(cpu=Cpu(cores=3), domain_xml=text)).find("cpu/topology") is None

    def test_a_single_numa_cell_grows_with_the_spec(self, define: Define) -> None:
        text = domain("<cpu><numa><cell id='0' cpus='0' memory='1' unit='GiB'/></numa></cpu>")
        cell = tree(define(cpu=Cpu(cores=4), memory=3 << 30, domain_xml=text)).find("cpu/numa/cell")
        assert cell is not None
        assert (cell.get("cpus"), cell.get("memory"), cell.get("unit")) == ("0-3", "3145728", "KiB")

    def test_cells_that_contradict_the_spec_are_refused_with_their_line(
        self, define: Define, samples: dict[str, str]
    ) -> None:
        fields = amounts(samples["numa-hugepages"])
        with pytest.raises(
            StartFailed, match=r"line 30: NUMA cells.* add up to 8Gi, not to spec.memory, 4Gi"
        ):
            define(**(fields | {"memory": 4 << 30}))
        text = samples["numa-hugepages"].replace(" current='4'>8<", ">4<")
        with pytest.raises(StartFailed, match=r"line 31: a NUMA cell has CPU 7, but spec\.cpu\.cores is 4"):
            define(**(fields | {"domain_xml": text, "cpu": Cpu(cores=4)}))

    def test_memory_devices_count_as_memory(self, define: Define, samples: dict[str, str]) -> None:
        fields = amounts(samples["memory-devices"]) | {"memory": 3 << 30}
        cell = tree(define(**fields)).find("cpu/numa/cell")
        assert cell is not None
        assert cell.get("memory") == str((3 << 20) - 524288)

    def test_passthrough_of_a_cpu_is_given_up_under_emulation(
        self, define: Define, host: HostProfile, samples: dict[str, str]
    ) -> None:
        on = replace(host, virtualization="qemu")
        cpu = tree(define(on=on, **amounts(samples["passthrough-hostdev"]))).find("cpu")
        assert cpu is not None
        assert cpu.get("mode") == "maximum"
        assert [child.tag for child in cpu] == ["topology", "feature"]

    def test_a_cpu_in_the_spec_replaces_the_model_and_keeps_the_topology(self, define: Define) -> None:
        text = domain(
            "<cpu mode='custom'><model>kvm64</model><feature name='x2apic'/>"
            "<topology sockets='1' cores='2' threads='1'/></cpu>"
        )
        cpu = tree(define(cpu=Cpu(cores=2, model="host-passthrough"), domain_xml=text)).find("cpu")
        assert cpu is not None
        assert (cpu.attrib, [child.tag for child in cpu]) == ({"mode": "host-passthrough"}, ["topology"])


class TestDisks:
    ROOT = (
        "<disk type='network' device='disk'><driver name='qemu' type='raw' cache='writeback'/>"
        "<source protocol='rbd' name='p/i'><host name='a'/></source><target dev='vda' bus='virtio'/>"
        "<iotune><total_iops_sec>9</total_iops_sec></iotune>{}</disk>"
    )

    @pytest.mark.parametrize(
        ("name", "inner"),
        [("vda", ""), ("root", "<serial>root</serial>"), ("root", "<alias name='ua-disk-root'/>")],
    )
    def test_a_disk_of_the_same_target_serial_or_alias_is_overlaid(
        self, define: Define, name: str, inner: str
    ) -> None:
        text = domain(devices=self.ROOT.format(inner))
        definition = define(disks=(Disk(name=name),), domain_xml=text)
        (disk,) = describe_xml(definition.document).disks
        assert (disk.type, disk.source, disk.format) == ("file", f"/pool/{name}.qcow2", "qcow2")
        assert (disk.cache, disk.target, disk.hosts) == ("writeback", "vda", ())
        assert tree(definition).findtext("devices/disk/iotune/total_iops_sec") == "9"

    def test_a_disk_of_the_same_file_is_the_same_disk(self, define: Define) -> None:
        text = domain(
            devices="<disk type='file'><source file='/pool/../pool/root.qcow2'/>"
            "<target dev='sdb' bus='sata'/></disk>"
        )
        (disk,) = describe_xml(define(disks=(Disk(name="root"),), domain_xml=text).document).disks
        assert (disk.source, disk.target, disk.serial) == ("/pool/root.qcow2", "sdb", "root")

    def test_another_disk_is_added_on_a_free_target(self, define: Define) -> None:
        text = domain(devices=self.ROOT.format(""))
        disks = describe_xml(define(disks=(Disk(name="data"),), domain_xml=text).document).disks
        assert [(disk.target, disk.source) for disk in disks] == [
            ("vda", "rbd:p/i"),
            ("vdb", "/pool/data.qcow2"),
        ]

    def test_bus_and_cache_of_the_spec_hold_unless_they_are_the_default(self, define: Define) -> None:
        text = domain(devices=self.ROOT.format("<address type='pci' bus='0x01' slot='0x00'/>"))
        changed = Disk(name="vda", bus=DiskBus.SATA, cache=DiskCache.UNSAFE)
        definition = define(disks=(changed,), domain_xml=text)
        (disk,) = describe_xml(definition.document).disks
        assert (disk.bus, disk.target, disk.cache) == ("sata", "sda", "unsafe")
        assert tree(definition).find("devices/disk/address") is None

    def test_the_boot_order_of_the_users_xml_stays(self, define: Define, samples: dict[str, str]) -> None:
        definition = define(**rich(samples["multi-nic-cdrom"]))
        orders = [boot.get("order") for boot in tree(definition).findall("devices/disk/boot")]
        assert orders == ["2", "1"]

    def test_disks_added_to_xml_without_any_are_booted(self, define: Define) -> None:
        definition = define(disks=(Disk(name="root"),), domain_xml=domain())
        assert tree(definition).find("devices/disk/boot") is not None

    def test_a_passed_through_lun_becomes_a_disk_when_its_image_is_a_file(
        self, define: Define, samples: dict[str, str]
    ) -> None:
        definition = define(disks=(Disk(name="sda"),), **amounts(samples["passthrough-hostdev"]))
        assert describe_xml(definition.document).disks[0].device == "disk"

    def test_an_image_that_the_users_xml_attaches_twice_is_refused(self, define: Define) -> None:
        disk = "<disk type='file'><source file='/x'/><target dev='{}'/></disk>"
        text = domain(devices=disk.format("vda") + disk.format("vdb"))
        with pytest.raises(StartFailed, match="/x is attached 2 times"):
            define(domain_xml=text)

    def test_the_seed_goes_where_the_guest_has_a_driver(
        self, define: Define, samples: dict[str, str], paths: GuestPaths
    ) -> None:
        fields = amounts(samples["windows-spice-sata"])
        seed = describe_xml(define(cloud_init=CloudInit(), **fields).document).disks[-1]
        assert (seed.source, seed.bus, seed.device) == (paths.seed_image, "sata", "cdrom")


class TestInterfaces:
    NIC = (
        "<interface type='bridge'><mac address='52:54:00:AA:00:09'/><source bridge='br0'/>"
        "<model type='e1000'/><vlan><tag id='7'/></vlan></interface>"
    )

    def test_one_of_the_same_mac_is_overlaid(self, define: Define) -> None:
        wanted = Interface(name="lan", network="prod", mac="52:54:00:aa:00:09")
        definition = define(interfaces=(wanted,), domain_xml=domain(devices=self.NIC))
        (nic,) = describe_xml(definition.document).interfaces
        assert (nic.name, nic.type, nic.source, nic.model) == ("lan", "network", "prod", "e1000")
        assert tree(definition).find("devices/interface/vlan/tag") is not None

    def test_a_model_other_than_the_default_holds(self, define: Define) -> None:
        wanted = Interface(name="lan", mac="52:54:00:aa:00:09", model=NicModel.RTL8139)
        (nic,) = describe_xml(
            define(interfaces=(wanted,), domain_xml=domain(devices=self.NIC)).document
        ).interfaces
        assert (nic.type, nic.source, nic.model) == ("bridge", "br0", "rtl8139")

    def test_others_are_added(self, define: Define) -> None:
        definition = define(interfaces=(Interface(name="nat"),), domain_xml=domain(devices=self.NIC))
        assert [nic.type for nic in describe_xml(definition.document).interfaces] == ["bridge", "user"]


class TestEssentials:
    def test_missing_ones_are_added(self, define: Define, paths: GuestPaths) -> None:
        facts = describe_xml(define(domain_xml=domain()).document)
        assert (facts.console_log, facts.agent) == (paths.console_log, "")

    def test_the_users_console_gets_a_log(
        self, define: Define, samples: dict[str, str], paths: GuestPaths
    ) -> None:
        for name in ("i440fx-ide-2011", "virt-manager-q35-uefi", "numa-hugepages"):
            definition = define(**amounts(samples[name]))
            assert describe_xml(definition.document).console_log == paths.console_log
            assert len(tree(definition).findall("devices/serial")) <= 1

    def test_a_log_of_the_users_own_stays(self, define: Define, samples: dict[str, str]) -> None:
        document = define(**amounts(samples["kernel-boot-tcg"])).document
        assert describe_xml(document).console_log == "/srv/tiny/own-console.log"

    def test_a_console_that_is_a_file_is_its_own_log(self, define: Define, samples: dict[str, str]) -> None:
        root = tree(define(**amounts(samples["rbd-secret"])))
        assert [s.get("type") for s in root.findall("devices/serial")] == ["file"]

    def test_an_agent_channel_that_is_there_is_enough(self, define: Define, samples: dict[str, str]) -> None:
        root = tree(define(**amounts(samples["virt-manager-q35-uefi"])))
        names = [t.get("name") for t in root.findall("devices/channel/target")]
        assert names.count("org.qemu.guest_agent.0") == 1

    def test_a_crash_dump_that_the_user_wants_is_made(self, define: Define, samples: dict[str, str]) -> None:
        assert tree(define(**amounts(samples["rbd-secret"]))).findtext("on_crash") == "coredump-destroy"
