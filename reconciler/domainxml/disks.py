"""Disks: those of the spec into the tree, over the user's own of the same name, or added.

Invariants: no two disks of the final definition write to one image; targets (vda, vdb, ...) follow the
order of the spec; every disk of the spec carries an alias by which it is recognised later.
"""

from __future__ import annotations

import posixpath
import xml.etree.ElementTree as ET
from dataclasses import dataclass

from reconciler.domainxml.draft import Draft
from reconciler.domainxml.elements import add, child, children, drop, ensure, put, text_of
from reconciler.domainxml.names import disk_alias, disk_serial, next_target, target_index
from reconciler.domainxml.sources import place_of, put_local, put_rbd
from reconciler.resources.domains import AttachedDisk
from reconciler.resources.images import RbdAccess
from reconciler.resources.virtualmachine import Disk, DiskBus, DiskCache, DiskFormat

_PREFIX = {"virtio": "vd", "scsi": "sd", "sata": "sd", "usb": "sd", "ide": "hd", "fdc": "fd"}
_DISKS_PER_SCSI_CONTROLLER = 15
"""libvirt's: 16 units, of which number 7 is the controller."""

SEED_ALIAS = "ua-cloud-init"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """One disk to lay over or add. `name` of the spec; `serial` and `alias` inside the domain. The seed has
    neither name nor serial: no disk of the user's is ever taken for it by those."""

    name: str
    serial: str
    alias: str
    path: str
    format: DiskFormat
    read_only: bool
    bus: str
    cache: DiskCache | None
    access: RbdAccess | None = None


def overlay_disks(draft: Draft) -> None:
    """All disks of the request, in its order. Raises StartFailed when one of the spec is not attached."""
    specs = {disk.name: disk for disk in draft.spec.disks}
    missing = sorted(specs.keys() - {disk.name for disk in draft.request.disks})
    if missing:
        raise draft.refuse(f"spec.disks: no image is attached for '{missing[0]}'", reason="DiskMissing")
    ordered = _orders_itself(draft)
    used: set[ET.Element] = set()
    for position, attached in enumerate(draft.request.disks, start=1):
        wanted = _wanted(attached, specs.get(attached.name) or Disk(name=attached.name))
        found = _find(draft, wanted, used)
        if found is None:
            found = _append(draft, wanted)
            if not ordered:
                add(found, "boot", {"order": str(position)})
        else:
            _lay_over(draft, found, wanted)
        used.add(found)
    _add_scsi_controllers(draft)


def add_seed(draft: Draft) -> None:
    """The cloud-init image, last, read-only. cloud-init looks at every disk labelled 'cidata': on the bus of
    the first disk, for which the guest surely has a driver (many cloud kernels have none for SATA)."""
    if draft.spec.cloud_init is None:
        return
    fixed = (disk for disk in children(draft.devices, "disk") if disk.get("device", "disk") == "disk")
    bus = next((_attribute(disk, "target", "bus") for disk in fixed), None)
    wanted = _Wanted(
        name="",
        serial="",
        alias=SEED_ALIAS,
        path=draft.paths.seed_image,
        format=DiskFormat.RAW,
        read_only=True,
        bus=bus if bus in ("scsi", "sata", "ide") else "virtio",
        cache=None,  # it may lie on a tmpfs, which has no direct I/O
    )
    found = _find(draft, wanted, set())
    if found is None:
        _append(draft, wanted)
    else:
        _lay_over(draft, found, wanted)
    _add_scsi_controllers(draft)


def _wanted(attached: AttachedDisk, disk: Disk) -> _Wanted:
    return _Wanted(
        name=disk.name,
        serial=disk_serial(disk.name),
        alias=disk_alias(disk.name),
        path=attached.path,
        format=attached.format,
        read_only=attached.read_only or disk.read_only,
        bus=disk.bus.value,
        cache=disk.cache,
        access=attached.access,
    )


def _orders_itself(draft: Draft) -> bool:
    """Whether the user's XML already says what to boot from; then added disks come after it."""
    if not draft.own:
        return False
    devices = draft.devices
    per_device = any(child(device, "boot") is not None for device in devices)
    return per_device or child(draft.root, "os", "boot") is not None or child(devices, "disk") is not None


def _find(draft: Draft, wanted: _Wanted, used: set[ET.Element]) -> ET.Element | None:
    """The user's own disk that is meant: the best match, the first of equals."""
    disks = [disk for disk in children(draft.devices, "disk") if disk not in used]
    ranked = [(_match(disk, wanted), i) for i, disk in enumerate(disks)]
    rank, index = min(ranked, default=(_NO_MATCH, 0))
    return disks[index] if rank < _NO_MATCH else None


_NO_MATCH = 4


def _match(disk: ET.Element, wanted: _Wanted) -> int:
    """How well a disk answers to a name: alias, then target, then serial, then the very same file."""
    serial = text_of(child(disk, "serial"))
    if _attribute(disk, "alias", "name") == wanted.alias:
        return 0
    if wanted.name and _attribute(disk, "target", "dev") == wanted.name:
        return 1
    if serial and serial in (wanted.name, wanted.serial):
        return 2
    return 3 if place_of(disk) == posixpath.normpath(wanted.path) else _NO_MATCH


def _attribute(disk: ET.Element, tag: str, name: str) -> str | None:
    element = child(disk, tag)
    return None if element is None else element.get(name)


def _append(draft: Draft, wanted: _Wanted) -> ET.Element:
    disk = ET.Element("disk", {"type": "file", "device": "disk"})
    driver = add(disk, "driver", {"name": "qemu", "type": wanted.format.value})
    if wanted.cache is not None:
        driver.attrib["cache"] = wanted.cache.value
    if not wanted.read_only:
        driver.attrib["discard"] = "unmap"
    driver.attrib["error_policy"] = "stop"  # a storage stall pauses the guest, it does not break its files
    add(disk, "source")
    taken = {_attribute(other, "target", "dev") or "" for other in children(draft.devices, "disk")}
    dev = next_target(_PREFIX[wanted.bus], taken)
    add(disk, "target", {"dev": dev, "bus": wanted.bus})
    _insert(draft, disk, "disk")
    _lay_over(draft, disk, wanted)
    return disk


def _insert(draft: Draft, element: ET.Element, tag: str) -> None:
    """After the last of its kind, else after the emulator: where a reader looks for it."""
    devices = draft.devices
    places = [i for i, device in enumerate(devices) if device.tag in (tag, "emulator")]
    devices.insert(places[-1] + 1 if places else 0, element)


def _lay_over(draft: Draft, disk: ET.Element, wanted: _Wanted) -> None:
    """What the spec says of this disk; everything else about it stays."""
    if wanted.access is not None:
        put_rbd(disk, wanted.path, wanted.access)
    else:
        put_local(disk, wanted.path)
    driver = ensure(disk, "driver")
    driver.attrib.update({"name": "qemu", "type": wanted.format.value})
    if wanted.cache not in (None, DiskCache.NONE):
        driver.attrib["cache"] = wanted.cache.value
    _set_bus(draft, disk, wanted)
    if wanted.serial and child(disk, "serial") is None:
        put(disk, "serial", wanted.serial)
    if not (_attribute(disk, "alias", "name") or "").startswith("ua-"):
        ensure(disk, "alias").attrib["name"] = wanted.alias
    if wanted.read_only:
        ensure(disk, "readonly")
        if _attribute(disk, "target", "bus") in ("sata", "ide") and disk.get("device", "disk") == "disk":
            disk.attrib["device"] = "cdrom"  # libvirt has no read-only disks on these


def _set_bus(draft: Draft, disk: ET.Element, wanted: _Wanted) -> None:
    """A bus other than the default overrules the user's XML; its address belonged to the old one."""
    target = ensure(disk, "target")
    if wanted.bus == DiskBus.VIRTIO or target.get("bus") == wanted.bus:
        return
    others = {_attribute(d, "target", "dev") or "" for d in children(draft.devices, "disk") if d is not disk}
    prefix = _PREFIX[wanted.bus]
    if not target.get("dev", "").startswith(prefix):
        target.attrib["dev"] = next_target(prefix, others)
    target.attrib["bus"] = wanted.bus
    drop(disk, "address")


def _add_scsi_controllers(draft: Draft) -> None:
    """As many virtio-scsi controllers as the disks need; libvirt would add old LSI ones by itself."""
    devices = draft.devices
    highest = -1
    for disk in children(devices, "disk"):
        if _attribute(disk, "target", "bus") == "scsi" and child(disk, "address") is None:
            index = target_index(_attribute(disk, "target", "dev") or "")
            highest = max(highest, index // _DISKS_PER_SCSI_CONTROLLER)
    present = [c for c in children(devices, "controller") if c.get("type") == "scsi"]
    if any(controller.get("model") != "virtio-scsi" for controller in present):
        return  # the user's own choice of controller, for all disks on it
    have = {c.get("index", str(i)) for i, c in enumerate(present)}
    for index in range(highest + 1):
        if str(index) not in have:
            controller = ET.Element("controller", {"type": "scsi", "index": str(index)})
            controller.attrib["model"] = "virtio-scsi"
            _insert(draft, controller, "controller")
