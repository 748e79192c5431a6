"""What libvirt itself makes of our XML: it takes it, keeps it, and what it adds is no change.

No guest boots here: the definitions are stored and read back, and one machine without a system on its disks
is started, which is enough to see what libvirt writes into the XML of a running domain.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import libvirt
import pytest

from reconciler.domainxml.build import GuestPaths, HostProfile, build
from reconciler.domainxml.changes import pending_restart
from reconciler.domainxml.read import describe_xml
from reconciler.resources.domains import AttachedDisk, Definition, StartRequest
from reconciler.resources.virtualmachine import (
    CloudInit,
    Cpu,
    Disk,
    DiskBus,
    DiskCache,
    DiskFormat,
    Firmware,
    Interface,
    NicModel,
)

pytestmark = pytest.mark.libvirt


@pytest.fixture
def connection(private_libvirtd: Any) -> Iterator[libvirt.virConnect]:
    """To the run's own libvirtd."""
    private_libvirtd.start()
    opened = libvirt.open(private_libvirtd.uri)
    yield opened
    opened.close()


@pytest.fixture
def emulated(host: HostProfile) -> HostProfile:
    return replace(host, virtualization="qemu")


def without_tpm(text: str) -> str:
    """The same without a TPM: libvirt refuses a definition with one where swtpm is not installed."""
    return re.sub(r"<tpm .*?</tpm>", "", text, flags=re.DOTALL)


def test_every_sample_is_stored_and_comes_back_unchanged(
    connection: libvirt.virConnect,
    define: Callable[..., Definition],
    emulated: HostProfile,
    samples: dict[str, str],
) -> None:
    changed = {}
    for name, text in samples.items():
        facts = describe_xml(text)
        wanted = define(
            on=emulated,
            name=name,
            uid=str(uuid.uuid5(uuid.NAMESPACE_URL, name)),
            cpu=Cpu(cores=facts.vcpus),
            memory=facts.memory,
            disks=(Disk(name="system"), Disk(name="vda"), Disk(name="extra", bus=DiskBus.SCSI)),
            interfaces=(Interface(name="nat"), Interface(name="b", bridge="br9", mac="52:54:00:aa:00:02")),
            cloud_init=CloudInit(),
            domain_xml=without_tpm(text),
        )
        domain = connection.defineXMLFlags(wanted.document, libvirt.VIR_DOMAIN_DEFINE_VALIDATE)
        stored = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM)
        assert describe_xml(stored).ownership == describe_xml(wanted.document).ownership
        assert describe_xml(stored).writable == wanted.writable
        changed[name] = pending_restart(stored, wanted)
    assert changed == dict.fromkeys(samples, ())


@pytest.fixture
def rich(
    request_for: Callable[..., StartRequest], emulated: HostProfile, tmp_path: Path
) -> tuple[StartRequest, Definition]:
    """A VM with one of nearly everything, its files made."""
    disks = (
        Disk(name="root"),
        Disk(name="data", bus=DiskBus.SCSI, cache=DiskCache.WRITEBACK),
        Disk(name="iso", bus=DiskBus.SATA, read_only=True),
    )
    attached = tuple(
        AttachedDisk(name=disk.name, path=str(tmp_path / disk.name), format=DiskFormat.RAW) for disk in disks
    )
    request = request_for(
        name="dx-rich",
        uid=str(uuid.uuid4()),
        cpu=Cpu(cores=2),
        memory=(128 << 20) + 5,
        firmware=Firmware.UEFI,
        disks=disks,
        attached=attached,
        interfaces=(Interface(name="nat"), Interface(name="two", model=NicModel.E1000E)),
        cloud_init=CloudInit(),
    )
    paths = GuestPaths(
        console_log=str(tmp_path / "console.log"),
        seed_image=str(tmp_path / "seed.img"),
        nvram=str(tmp_path / "nvram.fd"),
    )
    for path in (*(disk.path for disk in attached), paths.seed_image):
        Path(path).write_bytes(bytes(1 << 20))
    return request, build(request, emulated, paths)


def test_what_libvirt_adds_to_a_running_domain_is_no_change(
    connection: libvirt.virConnect, rich: tuple[StartRequest, Definition], tmp_path: Path
) -> None:
    request, definition = rich
    flags = (
        libvirt.VIR_DOMAIN_START_PAUSED
        | libvirt.VIR_DOMAIN_START_AUTODESTROY
        | libvirt.VIR_DOMAIN_START_VALIDATE
    )
    domain = connection.createXML(definition.document, flags)
    try:
        running = domain.XMLDesc(0)
    finally:
        domain.destroy()
    assert pending_restart(running, definition) == ()
    facts = describe_xml(running)
    assert facts.writable == definition.writable
    assert (facts.vcpus, facts.machine) == (2, definition.machine)
    assert (facts.agent_connected, facts.console_log) == (False, str(tmp_path / "console.log"))
    assert facts.vnc is not None
    assert facts.vnc.port is not None
    assert [disk.name for disk in facts.disks if disk.name] != []
    assert facts.ownership is not None
    assert facts.ownership.uid == request.uid
