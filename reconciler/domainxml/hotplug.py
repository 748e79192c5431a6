"""The XML of single devices, for a running domain: what is to come, what is to go, what is to be otherwise.

Pure: from the live XML and the wanted definition. Invariant: a device is recognised by vcl's own name for it
(its alias), never by its position.
"""

from __future__ import annotations

import copy
import xml.etree.ElementTree as ET
from dataclasses import dataclass

from reconciler.domainxml.capacity import BLOCK, MEMORY_ALIAS
from reconciler.domainxml.elements import child, children, drop, ensure, in_bytes, set_memory, whole_mib
from reconciler.domainxml.names import DISK_ALIAS, NIC_ALIAS, named_by, next_target
from reconciler.domainxml.parse import parse, serialize
from reconciler.domainxml.read import describe
from reconciler.resources.changes import Shape

PLUGGABLE = ("virtio", "scsi", "usb")
"""Buses that take a disk while the guest runs."""


class CannotPlug(Exception):
    """The running domain cannot take it; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryRoom:
    """Of the device that a running guest gets memory by. `device`: as it is to be. Bytes: `current` is what
    the guest has of it, `requested` what it was told to have, `target` what it is to have, `base` what it has
    beside it."""

    device: str
    base: int
    current: int
    requested: int
    target: int


def shape(live: str) -> Shape:
    """What a running domain has now. Raises DomainXmlInvalid."""
    facts = describe(parse(live).root)
    return Shape(
        vcpus=facts.vcpus,
        memory=facts.memory,
        disks={disk.name: disk.source for disk in facts.disks if disk.name},
    )


def most_vcpus(live: str) -> int:
    """How many a running domain can get. Raises DomainXmlInvalid."""
    return describe(parse(live).root).max_vcpus


def memory_room(live: str, size: int) -> MemoryRoom:
    """For a guest that is to have `size` bytes. Raises CannotPlug, DomainXmlInvalid."""
    root = parse(live).root
    device = _named(root, "memory", MEMORY_ALIAS)
    if device is None:
        raise CannotPlug("it was started without `maxMemory`")
    target = ensure(device, "target")
    room, requested = in_bytes(child(target, "size")) or 0, in_bytes(child(target, "requested")) or 0
    base = (in_bytes(child(root, "memory")) or 0) - room
    wanted = -(-(whole_mib(size) - base) // BLOCK) * BLOCK
    if whole_mib(size) < base:
        raise CannotPlug(f"it was started with {base >> 20} MiB, and keeps them until it is started again")
    if wanted > room:
        raise CannotPlug(f"it was started with room for {(base + room) >> 20} MiB (`maxMemory`)")
    current = in_bytes(child(target, "current")) or 0
    set_memory(ensure(target, "requested"), wanted)
    drop(target, "current")
    return MemoryRoom(
        device=serialize(device), base=base, current=current, requested=requested, target=wanted
    )


def disk_target(live: str, name: str) -> str:
    """The target, such as 'vdb', of the running domain's disk of that name; '' when it has none. Raises
    DomainXmlInvalid."""
    disk = _disk(parse(live).root, name)
    target = child(disk, "target") if disk is not None else None
    return target.get("dev", "") if target is not None else ""


def to_attach(live: str, wanted: str, name: str) -> tuple[str, ...]:
    """The devices to attach, in this order, for the running domain to have the disk of that name as the
    definition `wanted` has it. Raises CannotPlug, DomainXmlInvalid."""
    running, root = parse(live).root, parse(wanted).root
    disk = _disk(root, name)
    if disk is None:
        raise CannotPlug("domainXML has it under an alias of its own")
    target = ensure(disk, "target")
    _require_pluggable(disk)
    taken = {_attribute(each, "target", "dev") for each in children(child(running, "devices"), "disk")}
    if target.get("dev") in taken:
        target.attrib["dev"] = next_target(target.get("dev", "vda")[:2], taken)
    drop(disk, "boot", "address")  # what it boots from was decided when it started
    controllers = []
    if target.get("bus") == "scsi" and not _scsi(running):
        controllers = _scsi(root)[:1]
    return tuple(serialize(each) for each in (*controllers, disk))


def to_detach(live: str, name: str) -> str:
    """The running domain's disk of that name; '' when it has none. Raises CannotPlug, DomainXmlInvalid."""
    disk = _disk(parse(live).root, name)
    if disk is None:
        return ""
    _require_pluggable(disk)
    return serialize(disk)


def to_reconnect(live: str, wanted: str, name: str) -> str:
    """The running domain's interface of that name, connected as in the definition `wanted`. Raises
    CannotPlug, DomainXmlInvalid."""
    running = _interface(parse(live).root, name)
    new = _interface(parse(wanted).root, name)
    if running is None or new is None:
        raise CannotPlug("domainXML has it under an alias of its own")
    kinds = running.get("type", ""), new.get("type", "")
    if kinds[0] != kinds[1] and "user" in kinds:
        raise CannotPlug("between QEMU's user-mode network and another it changes only at a start")
    if not _same_source(running, new):
        running.attrib["type"] = kinds[1]
        drop(running, "source")
        source = child(new, "source")
        if source is not None:
            running.insert(0, copy.deepcopy(source))
    ensure(running, "link").attrib["state"] = _attribute(new, "link", "state") or "up"
    return serialize(running)


def _same_source(one: ET.Element, other: ET.Element) -> bool:
    kind = one.get("type", "")
    same = kind == other.get("type") and _attribute(one, "source", kind) == _attribute(other, "source", kind)
    return same


def _require_pluggable(disk: ET.Element) -> None:
    bus = _attribute(disk, "target", "bus")
    if bus not in PLUGGABLE or disk.get("device", "disk") not in ("disk", "lun"):
        raise CannotPlug(f"a disk on the bus '{bus or disk.get('device')}' comes and goes only at a start")


def _scsi(root: ET.Element) -> list[ET.Element]:
    return [c for c in children(child(root, "devices"), "controller") if c.get("type") == "scsi"]


def _disk(root: ET.Element, name: str) -> ET.Element | None:
    return _by_name(root, "disk", DISK_ALIAS, name)


def _interface(root: ET.Element, name: str) -> ET.Element | None:
    return _by_name(root, "interface", NIC_ALIAS, name)


def _by_name(root: ET.Element, tag: str, prefix: str, name: str) -> ET.Element | None:
    for device in children(child(root, "devices"), tag):
        if named_by(_attribute(device, "alias", "name"), prefix) == name:
            return device
    return None


def _named(root: ET.Element, tag: str, alias: str) -> ET.Element | None:
    for device in children(child(root, "devices"), tag):
        if _attribute(device, "alias", "name") == alias:
            return device
    return None


def _attribute(device: ET.Element, tag: str, name: str) -> str:
    element = child(device, tag)
    return element.get(name, "") if element is not None else ""
