"""Takes out of a running domain's XML what libvirt wrote into it for this one run.

`virsh dumpxml` of a running domain (without --inactive) shows ids, aliases, ports, pseudo terminals and
security labels that the next start chooses anew. A definition that kept them would not start twice.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable

from reconciler.domainxml.elements import child, children, drop

_MADE_UP_TAPS = ("vnet", "macvtap", "macvlan")
"""libvirt's own names for a guest's end of a network; a name of the user's starts otherwise."""
_SOCKETS = ("/var/lib/libvirt/qemu/", "/run/libvirt/qemu/", "/var/run/libvirt/qemu/")


def strip_run(root: ET.Element) -> bool:
    """Change the tree to what would define the domain again. False, and nothing done, when it is not that of
    a run: the root has no id."""
    if root.attrib.pop("id", None) is None:
        return False
    _drop_if(root, "seclabel", lambda label: label.get("type") == "dynamic")
    partition = child(root, "resource", "partition")
    if partition is not None and (partition.text or "").strip() == "/machine":
        drop(root, "resource")
    devices = child(root, "devices")
    for device in () if devices is None else devices:
        _drop_if(device, "alias", lambda alias: not alias.get("name", "").startswith("ua-"))
        match device.tag:
            case "disk":
                _disk(device)
            case "interface":
                _interface(device)
            case "serial" | "console" | "parallel" | "channel":
                _character_device(device)
            case "graphics":
                _graphics(device)
            case "vsock":
                _vsock(device)
    return True


def _drop_if(parent: ET.Element, tag: str, wrong: Callable[[ET.Element], bool]) -> None:
    for element in list(children(parent, tag)):
        if wrong(element):
            parent.remove(element)


def _disk(disk: ET.Element) -> None:
    drop(disk, "backingStore")  # the chain as QEMU opened it: the images' own headers say the same
    source = child(disk, "source")
    if source is not None:
        source.attrib.pop("index", None)


def _interface(nic: ET.Element) -> None:
    target, source = child(nic, "target"), child(nic, "source")
    if target is not None and target.get("dev", "").startswith(_MADE_UP_TAPS):
        del target.attrib["dev"]
        if not target.attrib:
            nic.remove(target)
    if source is not None and nic.get("type") == "network":
        for name in ("portid", "bridge", "dev", "mode"):
            source.attrib.pop(name, None)


def _character_device(device: ET.Element) -> None:
    device.attrib.pop("tty", None)
    target = child(device, "target")
    if target is not None:
        target.attrib.pop("state", None)
    for source in list(children(device, "source")):
        made_up = source.get("path", "").startswith(_SOCKETS)
        if device.get("type") == "pty" or (device.get("type") == "unix" and made_up):
            device.remove(source)


def _graphics(graphics: ET.Element) -> None:
    if graphics.get("autoport") == "yes":
        graphics.attrib.pop("tlsPort", None)
        if "port" in graphics.attrib:
            graphics.attrib["port"] = "-1"
    for listen in children(graphics, "listen"):
        if listen.get("type") == "network":
            listen.attrib.pop("address", None)


def _vsock(vsock: ET.Element) -> None:
    cid = child(vsock, "cid")
    if cid is not None and cid.get("auto") == "yes":
        cid.attrib.pop("address", None)
