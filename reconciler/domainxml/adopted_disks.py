"""Which StoragePool a disk of an existing domain belongs to, and what of it the fields of a spec can say.

Invariant: a disk is given to a pool only when vcl would attach the very same image in the same format; every
other one stays in domainXML as it is, and the remark says why.
"""

from __future__ import annotations

import posixpath
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from reconciler.domainxml.elements import child, children, drop
from reconciler.domainxml.names import DISK_ALIAS, named_by
from reconciler.domainxml.read import DiskFacts, describe
from reconciler.resources.images import RbdName
from reconciler.resources.infrastructure import StoragePoolSpec
from reconciler.resources.virtualmachine import DiskBus, DiskCache, DiskFormat

_IMAGE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,254}")
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?")
_WAY = ("host", "config", "auth")
"""What an RBD source says of the way to the image: a pool knows its own."""
_REMOVABLE = ("cdrom", "floppy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """The StoragePools of the cluster by name, and which one a disk is in that names none."""

    pools: Mapping[str, StoragePoolSpec] = field(default_factory=dict)
    default: str = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """One thing that a person should know of an adopted VM. `pins`: it keeps the VM on its host."""

    about: str
    text: str
    pins: bool = False

    def __str__(self) -> str:
        return f"{self.about}: {self.text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AdoptedDisk:
    """What became of one disk: its entry in `spec.disks` (None: it stays in domainXML), and remarks."""

    entry: Mapping[str, Any] | None
    remarks: tuple[Remark, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Match:
    """Where a disk is: pool and image; or, without a pool, why not."""

    pool: str = ""
    image: str = ""
    why: str = ""
    pins: bool = False


def take_disks(root: ET.Element, vm: str, places: Places) -> tuple[AdoptedDisk, ...]:
    """What the fields say of each disk. What they say of its source is taken out of the tree."""
    facts = describe(root).disks
    elements = children(child(root, "devices"), "disk")
    return tuple(_take(element, disk, vm, places) for element, disk in zip(elements, facts, strict=True))


def _take(element: ET.Element, disk: DiskFacts, vm: str, places: Places) -> AdoptedDisk:
    about = f"disk {disk.target or disk.name or '?'}"
    if disk.device in _REMOVABLE:
        return AdoptedDisk(entry=None, remarks=tuple(_medium(about, disk)))
    match = _match(element, disk, places)
    name = named_by(disk.alias, DISK_ALIAS) or disk.target
    if match.pool and _NAME.fullmatch(name) is None:
        match = _Match(why=f"'{name}' cannot be the name of a disk")
    if not match.pool:
        remark = Remark(about=about, text=f"{match.why}; it stays in domainXML", pins=match.pins)
        return AdoptedDisk(entry=None, remarks=(remark, *_foreign_secret(about, element)))
    remarks = tuple(_ways(about, element, disk, match))
    _take_source(element, disk)
    return AdoptedDisk(entry=_entry(disk, name, vm, match, places), remarks=remarks)


def _medium(about: str, disk: DiskFacts) -> Iterator[Remark]:
    if disk.source:
        text = f"the medium {disk.source} has to be on every node that may run the VM, or be taken out"
        yield Remark(about=about, text=text)


def _entry(disk: DiskFacts, name: str, vm: str, match: _Match, places: Places) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": name}
    if match.pool != places.default:
        entry["pool"] = match.pool
    if match.image != f"{vm}.{name}":
        entry["image"] = match.image
    if disk.bus in (DiskBus.SCSI, DiskBus.SATA):
        entry["bus"] = disk.bus
    if disk.cache in set(DiskCache) - {DiskCache.NONE}:
        entry["cache"] = disk.cache
    if disk.read_only:
        entry["readOnly"] = True
    return entry


def _match(element: ET.Element, disk: DiskFacts, places: Places) -> _Match:
    if disk.protocol == "rbd":
        return _match_rbd(element, disk, places)
    if disk.type == "network":
        return _Match(why=f"its image {disk.source or '?'} is on a storage that no StoragePool is for")
    if disk.type == "file" and disk.source:
        return _match_file(disk, places)
    if disk.type == "volume":
        return _Match(why=f"{disk.source} is in a storage pool of libvirt, which every node has to have")
    if not disk.source:
        return _Match(why="it has no source that vcl knows", pins=True)
    return _Match(why=f"{disk.source} is a device of the host, so the VM can run only there", pins=True)


def _match_rbd(element: ET.Element, disk: DiskFacts, places: Places) -> _Match:
    name = RbdName.parse(disk.source)
    if name is None or _IMAGE.fullmatch(name.image) is None:
        return _Match(why=f"'{disk.source}' is not the plain name of an RBD image")
    source = child(element, "source")
    inside = () if source is None else tuple(source)
    extra = sorted({str(element.tag) for element in inside} - {*_WAY})
    if extra:
        return _Match(why=f"a StoragePool cannot say its <{extra[0]}>")
    if disk.format not in ("", DiskFormat.RAW):
        return _Match(why=f"it keeps a {disk.format} image inside of an RBD image, vcl's are raw")
    found = [
        pool
        for pool, spec in sorted(places.pools.items())
        if spec.rbd is not None and (spec.rbd.pool, spec.rbd.namespace) == (name.pool, name.namespace)
    ]
    where = f"the Ceph pool {name.pool}" + (f", namespace {name.namespace}" if name.namespace else "")
    if not found:
        return _Match(why=f"no StoragePool is for {where}; apply one, then adopt again")
    if len(found) > 1:
        return _Match(why=f"the StoragePools {' and '.join(found)} are both for {where}; choose one yourself")
    return _Match(pool=found[0], image=name.image)


def _match_file(disk: DiskFacts, places: Places) -> _Match:
    folder, file = posixpath.split(posixpath.normpath(disk.source))
    found = [
        (pool, spec.directory)
        for pool, spec in sorted(places.pools.items())
        if spec.directory is not None and posixpath.normpath(spec.directory.path) == folder
    ]
    local = f"{disk.source} is a file of the host"
    if not found:
        why = f"{local}, and no StoragePool is for {folder}: without one the VM can run only there"
        return _Match(why=why, pins=True)
    stem, _, suffix = file.rpartition(".")
    format = disk.format or DiskFormat.RAW
    if suffix in set(DiskFormat):
        if suffix != format:
            return _Match(why=f"{local} that is used as {format}, against its name; rename it", pins=True)
        file = stem
    elif format not in set(DiskFormat):
        return _Match(why=f"{local} in the format {format}; vcl's are qcow2 and raw", pins=True)
    elif format != DiskFormat.RAW:
        return _Match(why=f"{local}; in a pool its name has to end in .{format}; rename it", pins=True)
    if _IMAGE.fullmatch(file) is None:
        return _Match(why=f"{local}, and '{file}' cannot be the name of an image; rename it", pins=True)
    return _Match(pool=found[0][0], image=file)


def _ways(about: str, element: ET.Element, disk: DiskFacts, match: _Match) -> Iterator[Remark]:
    """What the pool replaces: people compare whether it is the same Ceph, and the right user."""
    if disk.protocol != "rbd":
        return
    text = f"taken to be in StoragePool '{match.pool}', by the names of the Ceph pool and namespace"
    if disk.hosts:
        text += f"; its monitors were {', '.join(disk.hosts)}"
    auth = _auth(element)
    if auth is not None:
        text += f"; Ceph user {auth.get('username', '?')}"
        secret = child(auth, "secret")
        known = "" if secret is None else secret.get("uuid") or secret.get("usage") or ""
        text += f" with libvirt's secret {known}" if known else ""
        text += " gives way to the pool's qemuUser"
    yield Remark(about=about, text=text)


def _auth(element: ET.Element) -> ET.Element | None:
    """libvirt takes it in the disk and in its source."""
    outside = child(element, "auth")
    return outside if outside is not None else child(element, "source", "auth")


def _foreign_secret(about: str, element: ET.Element) -> Iterator[Remark]:
    for secret in element.iter("secret"):
        name = secret.get("uuid") or secret.get("usage") or "?"
        yield Remark(about=about, text=f"libvirt's secret {name} has to be defined on every node")


def _take_source(element: ET.Element, disk: DiskFacts) -> None:
    """Out of the tree what the pool says of the image; more than that (a label, a key) stays."""
    source = child(element, "source")
    if disk.protocol == "rbd":
        drop(element, "source", "auth", "backingStore")
    elif source is not None and not len(source) and set(source.attrib) == {"file"}:
        chain = child(element, "backingStore")
        if chain is None or not len(chain):
            drop(element, "source", "backingStore")
