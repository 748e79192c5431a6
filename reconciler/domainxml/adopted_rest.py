"""What ties an existing domain to its host, or means something else under vcl: remarks for a person.

Nothing is decided here. Each remark says what it is and what to do; `pins` marks what keeps a live migration
and a failover from working at all.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator

from reconciler.domainxml.adopted_disks import Remark
from reconciler.domainxml.elements import child, children, text_of
from reconciler.domainxml.read import describe

_QEMU = "http://libvirt.org/schemas/domain/qemu/1.0"
_ENDS = {"on_poweroff": ("destroy",), "on_reboot": ("restart",), "on_crash": ("destroy", "coredump-destroy")}


def remarks(root: ET.Element) -> Iterator[Remark]:
    """Of everything but disks, in the order of the domain's parts."""
    yield from _endings(root)
    yield from _processor(root)
    yield from _firmware(root)
    devices = child(root, "devices")
    for device in () if devices is None else devices:
        yield from _device(device)
    if child(root, "launchSecurity") is not None:
        yield _pinned("launchSecurity", "encrypted memory does not move to another host")
    for element in root:
        name = str(element.tag)
        if name.endswith(":commandline"):
            text = "vcl does not see what QEMU opens by it: no second VM may use the same files"
            yield Remark(about=name, text=text)


def _pinned(about: str, text: str) -> Remark:
    return Remark(about=about, text=text, pins=True)


def _endings(root: ET.Element) -> Iterator[Remark]:
    for tag, usual in _ENDS.items():
        said = text_of(child(root, tag))
        if said and said not in usual:
            yield Remark(about=tag, text=f"'{said}' becomes '{usual[0]}'; runStrategy decides what follows")


def _processor(root: ET.Element) -> Iterator[Remark]:
    cpu, vcpu = child(root, "cpu"), child(root, "vcpu")
    pinned = child(root, "cputune", "vcpupin") is not None or (vcpu is not None and "cpuset" in vcpu.attrib)
    if pinned or child(root, "numatune") is not None:
        yield Remark(about="CPU pinning", text="it means CPU and NUMA numbers that every node has to have")
    if cpu is not None and cpu.get("mode") == "host-passthrough":
        yield Remark(about="cpu", text="host-passthrough: live migration needs hosts with the same CPU")
    if child(root, "memoryBacking", "hugepages") is not None:
        yield Remark(about="huge pages", text="every node that may run the VM has to have them reserved")


def _firmware(root: ET.Element) -> Iterator[Remark]:
    facts = describe(root)
    if facts.boot.kernel:
        yield Remark(about="boot", text="kernel and initrd have to be on every node that may run the VM")
    if facts.nvram.startswith("/"):
        text = f"the UEFI variables {facts.nvram} are a file of the host; they do not follow the VM"
        yield Remark(about="nvram", text=text)
    elif facts.firmware == "uefi" and not facts.nvram:
        yield Remark(about="nvram", text="where libvirt would put the UEFI variables, vcl chooses the place")


def _device(device: ET.Element) -> Iterator[Remark]:
    kind = device.get("type", "")
    match device.tag:
        case "hostdev":
            yield _pinned(f"hostdev {kind}".strip(), f"a device of the host ({_address(device)})")
        case "interface":
            yield from _interface(device, kind)
        case "filesystem":
            where = child(device, "source")
            path = "" if where is None else where.get("dir") or where.get("file") or where.get("name") or ""
            yield _pinned("filesystem", f"it shows the guest {path or 'a directory'} of the host")
        case "tpm":
            yield from _tpm(device)
        case "serial" | "parallel" | "console" if kind in ("dev", "pipe"):
            yield _pinned(str(device.tag), f"it is connected to a {kind} of the host")
        case "input" if kind in ("passthrough", "evdev"):
            yield _pinned("input", "an input device of the host")
        case "memory" if text_of(child(device, "source", "path")):
            yield _pinned("memory", f"{text_of(child(device, 'source', 'path'))} is a file of the host")
        case "vsock":
            cid = child(device, "cid")
            if cid is not None and cid.get("auto") != "yes":
                yield Remark(about="vsock", text="its fixed cid must be free on every node")


def _interface(nic: ET.Element, kind: str) -> Iterator[Remark]:
    source, mac = child(nic, "source"), child(nic, "mac")
    about = "interface" if mac is None else f"interface {mac.get('address', '?')}"
    match kind:
        case "bridge" | "network" | "user":
            if mac is None:
                yield Remark(about=about, text="it has no MAC address written down; it gets a lasting one")
        case "direct":
            dev = "" if source is None else source.get("dev", "")
            yield Remark(about=about, text=f"every node has to have the network device {dev}")
        case "hostdev" | "vdpa" | "vhostuser":
            yield _pinned(about, f"type '{kind}': a device of the host")
        case _:
            yield Remark(about=about, text=f"type '{kind}' stays in domainXML")


def _tpm(device: ET.Element) -> Iterator[Remark]:
    backend = child(device, "backend")
    kind = "" if backend is None else backend.get("type", "")
    if kind == "passthrough":
        yield _pinned("tpm", "the TPM of the host")
    elif kind == "emulator":
        yield _pinned("tpm", "libvirt keeps its state on the host; it does not follow the VM")


def _address(device: ET.Element) -> str:
    source = child(device, "source")
    found = child(source, "address")
    if found is not None and "bus" in found.attrib:
        parts = (found.get(name, "") for name in ("domain", "bus", "slot", "function", "device", "uuid"))
        return ":".join(part.removeprefix("0x") for part in parts if part)
    if found is not None and "uuid" in found.attrib:
        return found.get("uuid", "")
    ids = [e.get("id", "") for tag in ("vendor", "product") for e in children(source, tag)]
    return ":".join(part.removeprefix("0x") for part in ids) or "see domainXML"
