"""RestartRequired: names the fields that only a restart changes, and nothing that libvirt did by itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from reconciler.domainxml.build import HostProfile
from reconciler.domainxml.changes import pending_restart
from reconciler.resources.domains import AttachedDisk, Definition
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
    RunStrategy,
)

Define = Callable[..., Definition]
FIRST: dict[str, Any] = {
    "disks": (Disk(name="root"), Disk(name="data")),
    "interfaces": (Interface(name="lan", bridge="br0"),),
    "cloud_init": CloudInit(user_data="#cloud-config\n"),
}
OWN = "<domain><os><type machine='q35'>hvm</type></os><devices>{}</devices></domain>"


def libvirt_adds(document: str) -> str:
    """Some of what libvirt puts into the XML of a running domain."""
    return (
        document.replace('<source file="', '<source index="3" file="')
        .replace("</disk>", '<backingStore/><address type="pci" bus="0x05"/></disk>')
        .replace('mode="host-model"', 'mode="custom" match="exact" check="full"')
        .replace("<vcpu placement", "<resource><partition>/machine</partition></resource><vcpu placement")
        .replace('<source bridge="br0" />', '<source bridge="br0"/><target dev="vnet0"/>')
        .replace('port="-1"', 'port="5901"')
        .replace("</devices>", '<input type="mouse" bus="ps2"/></devices><seclabel type="none"/>')
    )


def test_what_libvirt_adds_is_no_change(define: Define) -> None:
    definition = define(**FIRST)
    assert pending_restart(libvirt_adds(definition.document), definition) == ()


@pytest.mark.parametrize(
    "fields",
    [
        {"run_strategy": RunStrategy.MANUAL},
        {"priority": 9},
        {"generation": 9},
        {"node": "r2"},
        {"termination_grace_period_seconds": 1},
        {"memory": (2 << 30) - 5},
    ],
)
def test_what_the_guest_does_not_see_needs_no_restart(define: Define, fields: dict[str, Any]) -> None:
    assert pending_restart(define(**FIRST).document, define(**(FIRST | fields))) == ()


def test_another_nodes_paths_and_qemu_need_no_restart(define: Define, host: HostProfile) -> None:
    other = replace(host, emulator="/usr/bin/kvm", uefi=None)
    assert pending_restart(define(**FIRST).document, define(on=other, **FIRST)) == ()


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"cpu": Cpu(cores=4)}, "cpu.cores"),
        ({"cpu": Cpu(cores=2, model="Nehalem")}, "cpu.model"),
        ({"memory": 4 << 30}, "memory"),
        ({"machine": "pc"}, "machine"),
        ({"firmware": Firmware.UEFI}, "firmware"),
        ({"boot": Boot(kernel="/k")}, "boot"),
        ({"guest_agent": False}, "guestAgent"),
        ({"cloud_init": None}, "cloudInit"),
        ({"cloud_init": CloudInit(user_data="#cloud-config\nhostname: x\n")}, "cloudInit"),
        ({"disks": (Disk(name="root"),)}, "disks[data]"),
        ({"disks": (*FIRST["disks"], Disk(name="more"))}, "disks[more]"),
        ({"disks": (Disk(name="root"), Disk(name="data", bus=DiskBus.SCSI))}, "disks[data]"),
        ({"disks": (Disk(name="root"), Disk(name="data", cache=DiskCache.UNSAFE))}, "disks[data]"),
        ({"disks": (Disk(name="root"), Disk(name="data", read_only=True))}, "disks[data]"),
        ({"interfaces": ()}, "interfaces[lan]"),
        ({"interfaces": (Interface(name="lan", bridge="br1"),)}, "interfaces[lan]"),
        ({"interfaces": (Interface(name="lan", network="br0"),)}, "interfaces[lan]"),
        ({"interfaces": (*FIRST["interfaces"], Interface(name="two"))}, "interfaces[two]"),
        (
            {"interfaces": (Interface(name="lan", bridge="br0", model=NicModel.E1000E),)},
            "interfaces[lan]",
        ),
        (
            {"interfaces": (Interface(name="lan", bridge="br0", mac="52:54:00:00:00:01"),)},
            "interfaces[lan]",
        ),
        ({"domain_xml": OWN.format("")}, "domainXML"),
    ],
)
def test_a_changed_field_is_named(define: Define, fields: dict[str, Any], named: str) -> None:
    running = libvirt_adds(define(**FIRST).document)
    assert named in pending_restart(running, define(**(FIRST | fields)))


def test_all_changes_are_named_in_order(define: Define) -> None:
    wanted = define(**(FIRST | {"cpu": Cpu(cores=1), "memory": 1 << 30, "disks": (Disk(name="root"),)}))
    assert pending_restart(define(**FIRST).document, wanted) == ("cpu.cores", "disks[data]", "memory")


def test_another_image_for_a_disk_is_named(define: Define) -> None:
    moved = tuple(
        AttachedDisk(name=name, path=f"/other/{name}.qcow2", format=DiskFormat.QCOW2)
        for name in ("root", "data")
    )
    wanted = define(attached=moved, **FIRST)
    assert pending_restart(define(**FIRST).document, wanted) == ("disks[data]", "disks[root]")


def test_a_cd_that_the_guest_ejected_is_no_change(define: Define) -> None:
    definition = define(disks=(Disk(name="iso", bus=DiskBus.SATA, read_only=True),))
    ejected = definition.document.replace('<source file="/pool/iso.qcow2" />', "")
    assert pending_restart(ejected, definition) == ()


class TestUsersXml:
    DISK = "<disk type='file'><source file='{}'/><target dev='vda'/></disk>"

    def test_indentation_and_comments_are_no_change(self, define: Define) -> None:
        before = define(domain_xml=OWN.format(self.DISK.format("/a")))
        after = define(domain_xml=OWN.format("\n  <!-- mine -->\n  " + self.DISK.format("/a")))
        assert pending_restart(before.document, after) == ()

    def test_any_other_edit_of_it_is_named_once(self, define: Define) -> None:
        before = define(domain_xml=OWN.format(self.DISK.format("/a")))
        after = define(domain_xml=OWN.format(self.DISK.format("/b")))
        assert pending_restart(before.document, after) == ("domainXML",)


class TestAdopted:
    """A running domain that carries no mark yet, and a spec whose domainXML was taken from it."""

    def test_it_runs_as_asked(self, define: Define, samples: dict[str, str]) -> None:
        text = samples["multi-nic-cdrom"].replace("<interface type='user'/>", "")
        wanted = define(cpu=Cpu(cores=1), memory=512 << 20, guest_agent=False, domain_xml=text)
        running = text.replace("machine='pc'", "machine='pc-i440fx-7.2'")
        assert pending_restart(running, wanted) == ()

    def test_a_disk_that_it_lacks_is_named_by_its_target(
        self, define: Define, samples: dict[str, str]
    ) -> None:
        text = samples["kernel-boot-tcg"]
        disk = "<devices><disk type='file'><source file='/x'/><target dev='vda'/></disk>"
        wanted = define(cpu=Cpu(cores=1), memory=128 << 20, domain_xml=text.replace("<devices>", disk))
        assert "disks[vda]" in pending_restart(text, wanted)
