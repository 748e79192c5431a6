"""The XML of single devices for a running domain, and what a running domain cannot take."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable
from typing import Any

import pytest

from reconciler.domainxml import hotplug
from reconciler.domainxml.hotplug import CannotPlug
from reconciler.resources.domains import Definition
from reconciler.resources.virtualmachine import Cpu, Disk, DiskBus, Interface, NicState

Define = Callable[..., Definition]
MIB = 1 << 20
LAN = Interface(name="lan", bridge="br0")


def live(define: Define, **fields: Any) -> str:
    """As libvirt would report it, as far as it matters here."""
    return define(**fields).document


def test_the_shape_is_what_it_has_now(define: Define) -> None:
    text = live(define, cpu=Cpu(cores=2, max_cores=4), memory=64 * MIB, disks=(Disk(name="root"),))
    found = hotplug.shape(text)
    assert (found.vcpus, found.memory, dict(found.disks)) == (2, 64 * MIB, {"root": "/pool/root.qcow2"})
    assert hotplug.most_vcpus(text) == 4


@pytest.mark.parametrize(
    ("size", "requested"), [(64 * MIB, 0), (65 * MIB, 2 * MIB), (96 * MIB, 32 * MIB), (128 * MIB, 64 * MIB)]
)
def test_memory_comes_in_whole_blocks(define: Define, size: int, requested: int) -> None:
    room = hotplug.memory_room(live(define, memory=64 * MIB, max_memory=128 * MIB), size)
    assert (room.base, room.requested, room.current, room.target) == (64 * MIB, 0, 0, requested)
    target = ET.fromstring(room.device).find("target")
    assert target is not None
    assert target.findtext("requested") == str(requested // 1024)
    assert target.findtext("size") == str(64 << 10)


@pytest.mark.parametrize(
    ("most", "size", "says"),
    [
        (None, 128 * MIB, "without `maxMemory`"),
        (128 * MIB, 129 * MIB, "room for 128 MiB"),
        (128 * MIB, 63 * MIB, "started with 64 MiB"),
    ],
)
def test_memory_that_there_is_no_room_for_is_refused(
    define: Define, most: int | None, size: int, says: str
) -> None:
    with pytest.raises(CannotPlug, match=says):
        hotplug.memory_room(live(define, memory=64 * MIB, max_memory=most), size)


def test_a_disk_that_comes_takes_a_free_target_and_no_part_in_booting(define: Define) -> None:
    running = live(define, disks=(Disk(name="root"), Disk(name="last")))
    wanted = define(disks=(Disk(name="new"),)).document
    (device,) = hotplug.to_attach(running, wanted, "new")
    disk = ET.fromstring(device)
    target = disk.find("target")
    assert target is not None
    assert target.get("dev") == "vdc"
    assert disk.find("boot") is None
    assert hotplug.disk_target(running, "last") == "vdb"
    assert hotplug.disk_target(running, "new") == ""


def test_the_first_disk_on_scsi_brings_its_controller(define: Define) -> None:
    scsi = Disk(name="new", bus=DiskBus.SCSI)
    wanted = define(disks=(scsi,)).document
    devices = hotplug.to_attach(live(define), wanted, "new")
    assert [ET.fromstring(device).tag for device in devices] == ["controller", "disk"]
    running = live(define, disks=(Disk(name="old", bus=DiskBus.SCSI),))
    (only,) = hotplug.to_attach(running, wanted, "new")
    target = ET.fromstring(only).find("target")
    assert target is not None
    assert target.get("dev") == "sdb"


def test_a_disk_on_sata_neither_comes_nor_goes(define: Define) -> None:
    sata = live(define, disks=(Disk(name="old", bus=DiskBus.SATA),))
    with pytest.raises(CannotPlug, match="the bus 'sata' comes and goes only at a start"):
        hotplug.to_attach(live(define), sata, "old")
    with pytest.raises(CannotPlug, match="only at a start"):
        hotplug.to_detach(sata, "old")


def test_a_disk_that_goes_is_named_as_it_runs(define: Define) -> None:
    running = live(define, disks=(Disk(name="root"), Disk(name="data")))
    disk = ET.fromstring(hotplug.to_detach(running, "data"))
    source = disk.find("source")
    assert source is not None
    assert source.get("file") == "/pool/data.qcow2"
    assert hotplug.to_detach(running, "none") == ""


def test_a_cable_goes_out_and_in_without_another_change(define: Define) -> None:
    running = live(define, interfaces=(LAN,))
    out = define(interfaces=(Interface(name="lan", bridge="br0", state=NicState.DOWN),)).document
    pulled = ET.fromstring(hotplug.to_reconnect(running, out, "lan"))
    before = ET.fromstring(running).find("devices/interface")
    assert before is not None
    assert pulled.find("link") is not None
    assert [e.attrib for e in pulled if e.tag != "link"] == [e.attrib for e in before]
    back = ET.fromstring(hotplug.to_reconnect(out, running, "lan")).find("link")
    assert back is not None
    assert back.get("state") == "up"


def test_a_cable_goes_to_another_bridge_or_network(define: Define) -> None:
    running = live(define, interfaces=(LAN,))
    for wanted, kind, name in (
        (Interface(name="lan", bridge="br1"), "bridge", "br1"),
        (Interface(name="lan", network="default"), "network", "default"),
    ):
        moved = ET.fromstring(hotplug.to_reconnect(running, define(interfaces=(wanted,)).document, "lan"))
        source = moved.find("source")
        assert source is not None
        assert (moved.get("type"), source.get(kind)) == (kind, name)


def test_qemus_own_network_is_for_life(define: Define) -> None:
    own = live(define, interfaces=(Interface(name="lan"),))
    with pytest.raises(CannotPlug, match="only at a start"):
        hotplug.to_reconnect(own, live(define, interfaces=(LAN,)), "lan")


def test_what_has_another_name_in_a_users_xml_is_not_guessed(define: Define) -> None:
    running = live(define, interfaces=(LAN,)).replace("ua-nic-lan", "ua-mine")
    with pytest.raises(CannotPlug, match="an alias of its own"):
        hotplug.to_reconnect(running, live(define, interfaces=(LAN,)), "lan")
    disk = define(disks=(Disk(name="new"),)).document.replace("ua-disk-new", "ua-mine")
    with pytest.raises(CannotPlug, match="an alias of its own"):
        hotplug.to_attach(running, disk, "new")
