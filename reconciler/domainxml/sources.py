"""The <source> of a disk: a file, a block device, or an RBD image on the network.

Invariant: a network source is written whole, with all monitors and vcl's own key, whatever a user's XML said
of hosts, keys and snapshots: those belonged to another way to the image.
"""

from __future__ import annotations

import posixpath
import xml.etree.ElementTree as ET

from reconciler.domainxml.elements import add, child, drop, ensure, put
from reconciler.resources.domains import AttachedDisk
from reconciler.resources.images import RBD, RbdAccess


def place_of(disk: ET.Element) -> str | None:
    """What a disk shows: the normalised path of a file or device, or `rbd:POOL/IMAGE`; None for others."""
    source = child(disk, "source")
    if source is None:
        return None
    if source.get("protocol") == "rbd":
        return RBD + source.get("name", "")
    path = source.get("file") or source.get("dev")
    return posixpath.normpath(path) if path else None


def put_local(disk: ET.Element, path: str) -> None:
    """A file or a block device of the host."""
    kind, key = ("block", "dev") if path.startswith("/dev/") else ("file", "file")
    if place_of(disk) != posixpath.normpath(path):
        _renew(disk)
    source = ensure(disk, "source")
    source.attrib.pop("index", None)
    source.attrib.pop("dev" if key == "file" else "file", None)
    disk.attrib["type"] = kind
    source.attrib[key] = path
    if kind == "file":
        _no_passthrough(disk)


def put_rbd(disk: ET.Element, path: str, access: RbdAccess) -> None:
    """An RBD image by way of all its monitors, as the guests' own Ceph user."""
    source = _renew(disk)
    disk.attrib["type"] = "network"
    _no_passthrough(disk)
    _reach(source, path, access)
    auth = _auth(access)
    if auth is not None:
        disk.insert(list(disk).index(source), auth)


def put_nvram(os: ET.Element, image: AttachedDisk, *, code_format: str) -> None:
    """UEFI variables that are an image in a pool: there before the guest starts, so without a template.
    The format is said only where it is not all raw: libvirt 9.0 has no such attribute."""
    variables = put(os, "nvram", "")
    if not image.format.value == code_format == "raw":
        variables.attrib["format"] = image.format.value
    if image.access is None:
        variables.text = image.path
        return
    variables.text = None
    variables.attrib["type"] = "network"
    source = add(variables, "source", {})
    _reach(source, image.path, image.access)
    auth = _auth(image.access)
    if auth is not None:
        source.append(auth)


def _reach(source: ET.Element, path: str, access: RbdAccess) -> None:
    source.attrib.update({"protocol": "rbd", "name": path.removeprefix(RBD)})
    for monitor in access.monitors:
        name, _, port = monitor.rpartition(":")
        add(source, "host", {"name": name.strip("[]"), "port": port})
    if access.config:
        add(source, "config", {"file": access.config})


def _auth(access: RbdAccess) -> ET.Element | None:
    """None where the storage asks for no key."""
    if not access.secret:
        return None
    auth = ET.Element("auth", {"username": access.user})
    add(auth, "secret", {"type": "ceph", "uuid": access.secret})
    return auth


def _renew(disk: ET.Element) -> ET.Element:
    """An empty <source> in the place of all that was said of the old one."""
    drop(disk, "source", "backingStore", "mirror", "auth")
    source = ET.Element("source")
    disk.insert(1, source)
    return source


def _no_passthrough(disk: ET.Element) -> None:
    """SCSI passthrough needs a block device."""
    if disk.get("device") == "lun":
        disk.attrib["device"] = "disk"
        for name in ("sgio", "rawio"):
            disk.attrib.pop(name, None)
