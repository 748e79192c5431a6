"""The XML of typical VMs, to be read by people: golden/NAME.xml.

A difference is a change of the virtual hardware that every user gets at the next start. If that is meant,
run this file's tests with VCL_UPDATE_GOLDEN=1 and say so in the changelog.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reconciler.domainxml.build import HostProfile
from reconciler.resources.domains import Definition
from reconciler.resources.virtualmachine import (
    Boot,
    CloudInit,
    Cpu,
    Disk,
    DiskBus,
    DiskCache,
    Firmware,
    Interface,
    NicModel,
)

GOLDEN = Path(__file__).parent / "golden"
OWN = """\
<domain type="kvm" xmlns:qemu="http://libvirt.org/schemas/domain/qemu/1.0">
  <name>brought-along</name>
  <!-- a comment of the user's -->
  <memory unit="GiB">1</memory>
  <vcpu>1</vcpu>
  <os><type arch="x86_64" machine="pc">hvm</type><boot dev="hd"/></os>
  <devices>
    <disk type="file" device="disk">
      <source file="/srv/old.img"/>
      <target dev="hda" bus="ide"/>
    </disk>
    <watchdog model="i6300esb" action="reset"/>
  </devices>
  <qemu:commandline><qemu:arg value="-no-hpet"/></qemu:commandline>
</domain>
"""
SPECS: dict[str, dict[str, Any]] = {
    "smallest": {},
    "web-server": {
        "disks": (Disk(name="root"), Disk(name="data", cache=DiskCache.WRITEBACK)),
        "interfaces": (Interface(name="lan", bridge="br0"),),
        "cloud_init": CloudInit(user_data="#cloud-config\npackages: [nginx]\n"),
    },
    "windows-uefi": {
        "cpu": Cpu(cores=4, model="host-passthrough"),
        "memory": 8 << 30,
        "firmware": Firmware.UEFI,
        "disks": (Disk(name="c", bus=DiskBus.SATA), Disk(name="iso", bus=DiskBus.SATA, read_only=True)),
        "interfaces": (Interface(name="lan", network="default", model=NicModel.E1000E),),
    },
    "kernel-boot-emulated": {
        "cpu": Cpu(cores=1),
        "memory": 128 << 20,
        "boot": Boot(kernel="/srv/vmlinuz", initrd="/srv/initrd", cmdline="console=ttyS0 quiet"),
        "interfaces": (Interface(name="nat"),),
        "guest_agent": False,
    },
    "many-scsi-disks": {"disks": tuple(Disk(name=f"d{i:02}", bus=DiskBus.SCSI) for i in range(17))},
    "own-domain-xml": {
        "disks": (Disk(name="data"),),
        "interfaces": (Interface(name="lan", bridge="br0", mac="52:54:00:12:34:56"),),
        "domain_xml": OWN,
    },
}


def document(name: str, define: Callable[..., Definition], host: HostProfile) -> str:
    on = replace(host, virtualization="qemu") if name.endswith("emulated") else host
    return define(on=on, **SPECS[name]).document


@pytest.mark.parametrize("name", SPECS)
def test_a_typical_vm_gets_the_hardware_that_was_agreed(
    define: Callable[..., Definition], host: HostProfile, name: str
) -> None:
    path, made = GOLDEN / f"{name}.xml", document(name, define, host)
    if os.environ.get("VCL_UPDATE_GOLDEN") == "1":
        path.write_text(made)
    assert made == path.read_text()


@pytest.mark.libvirt
def test_libvirts_schema_accepts_them(
    define: Callable[..., Definition], host: HostProfile, validate: Callable[[Iterable[str]], None]
) -> None:
    validate([document(name, define, host) for name in SPECS])


def test_there_is_no_golden_file_without_a_spec() -> None:
    assert {path.stem for path in GOLDEN.glob("*.xml")} == set(SPECS)
