"""What a domain's XML says, as plain facts: of a running domain, a user's definition, or one of ours.

Used to adopt, to compare (RestartRequired) and to know every image a guest may write (SAFETY rule 6).
Invariant: any well-formed <domain> can be read. Whatever is missing or makes no sense is empty or None, and
a disk that may be writable counts as writable.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass

from reconciler.domainxml import metadata
from reconciler.domainxml.elements import child, children, in_bytes, number, text_of
from reconciler.domainxml.essentials import agent_target
from reconciler.domainxml.metadata import Ownership
from reconciler.domainxml.names import DISK_ALIAS, NIC_ALIAS, named_by
from reconciler.domainxml.parse import parse


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskFacts:
    """One disk. `name`: vcl's name of it, '' for another's; `type` is libvirt's (file, block, network, ...).

    `source`: a path; 'rbd:POOL/IMAGE' (protocol:name) for a network disk; 'volume:POOL/VOLUME';
    '' for an empty drive. `writable`: every source the guest may write through this disk, in the same form;
    it has more than one while a block job copies the disk.
    """

    name: str = ""
    target: str = ""
    bus: str = ""
    device: str = "disk"
    type: str = ""
    source: str = ""
    protocol: str = ""
    config: str = ""
    hosts: tuple[str, ...] = ()
    format: str = ""
    cache: str = ""
    serial: str = ""
    alias: str = ""
    read_only: bool = False
    shareable: bool = False
    writable: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class InterfaceFacts:
    """One NIC. `name`: vcl's name of it or ''; `source`: the bridge, network or device it is on."""

    name: str = ""
    type: str = ""
    source: str = ""
    mac: str = ""
    model: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BootFacts:
    """Direct kernel boot; all empty when the guest boots from a device."""

    kernel: str = ""
    initrd: str = ""
    cmdline: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class VncFacts:
    """Where the VNC server listens. `port` is None while it has none; `socket`: a UNIX socket instead."""

    host: str = ""
    port: int | None = None
    socket: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainFacts:
    """`memory` in bytes; `virtualization` 'kvm' or 'qemu'; `firmware` 'bios' or 'uefi'.

    `agent`: None without an agent channel, else 'connected', 'disconnected' or '' (not said).
    `writable`: disks, NVRAM and file-backed memory that the guest may write, sorted, with repetitions
    when one image is attached twice. `host_devices`: devices of the host that pin the guest to it.
    """

    name: str = ""
    uuid: str = ""
    virtualization: str = ""
    architecture: str = ""
    machine: str = ""
    vcpus: int = 0
    max_vcpus: int = 0
    memory: int = 0
    cpu_mode: str = ""
    cpu_model: str = ""
    firmware: str = "bios"
    loader: str = ""
    nvram: str = ""
    boot: BootFacts = BootFacts()
    disks: tuple[DiskFacts, ...] = ()
    interfaces: tuple[InterfaceFacts, ...] = ()
    writable: tuple[str, ...] = ()
    console_log: str = ""
    vnc: VncFacts | None = None
    agent: str | None = None
    host_devices: int = 0
    ownership: Ownership | None = None

    @property
    def agent_connected(self) -> bool | None:
        """As `Observed` wants it: None without a channel."""
        return None if self.agent is None else self.agent == "connected"


def describe_xml(xml_text: str) -> DomainFacts:
    """The facts of a domain XML of any age. Raises DomainXmlInvalid when it is not well-formed XML with the
    root <domain> (which says nothing about the domain: unknown, not stopped), and nothing else."""
    return describe(parse(xml_text).root)


def describe(root: ET.Element) -> DomainFacts:
    """Like `describe_xml`, from a tree."""
    devices, os = child(root, "devices"), child(root, "os")
    kind, cpu, vcpu = child(os, "type"), child(root, "cpu"), child(root, "vcpu")
    disks = tuple(_disk(disk) for disk in children(devices, "disk"))
    nvram = _source(child(os, "nvram", "source")) or text_of(child(os, "nvram"))
    most = number(text_of(vcpu)) or 1
    current = number(vcpu.get("current")) if vcpu is not None else None
    return DomainFacts(
        name=text_of(child(root, "name")),
        uuid=text_of(child(root, "uuid")).lower(),
        virtualization=root.get("type", ""),
        architecture=_get(kind, "arch"),
        machine=_get(kind, "machine"),
        vcpus=current or most,
        max_vcpus=most,
        memory=(in_bytes(child(root, "memory")) or 0) - sum(_not_given(devices)),
        cpu_mode=_get(cpu, "mode"),
        cpu_model=text_of(child(cpu, "model")),
        firmware=_firmware(os),
        loader=text_of(child(os, "loader")),
        nvram=nvram,
        boot=BootFacts(**{tag: text_of(child(os, tag)) for tag in ("kernel", "initrd", "cmdline")}),
        disks=disks,
        interfaces=tuple(_interface(nic) for nic in children(devices, "interface")),
        writable=tuple(sorted(_writable(root, disks, nvram))),
        console_log=_console_log(devices),
        vnc=_vnc(devices),
        agent=_agent(root),
        host_devices=sum(1 for _ in children(devices, "hostdev")),
        ownership=metadata.find(root),
    )


def _not_given(devices: ET.Element | None) -> Iterator[int]:
    """What the guest does not have of each device whose memory it gets by and by."""
    for device in children(devices, "memory"):
        if device.get("model") == "virtio-mem":
            target = child(device, "target")
            given = in_bytes(child(target, "current"))
            given = in_bytes(child(target, "requested")) if given is None else given
            yield (in_bytes(child(target, "size")) or 0) - (given or 0)


def _get(element: ET.Element | None, name: str) -> str:
    return "" if element is None else element.get(name, "")


def _firmware(os: ET.Element | None) -> str:
    flash = _get(child(os, "loader"), "type") == "pflash"
    return "uefi" if flash or _get(os, "firmware") == "efi" else "bios"


def _agent(root: ET.Element) -> str | None:
    target = agent_target(root)
    return None if target is None else target.get("state", "")


def _disk(disk: ET.Element) -> DiskFacts:
    source, driver, target = child(disk, "source"), child(disk, "driver"), child(disk, "target")
    device = disk.get("device", "disk")
    alias = _get(child(disk, "alias"), "name")
    read_only = device == "cdrom" or child(disk, "readonly") is not None
    places = [source, child(source, "dataStore", "source"), child(disk, "mirror", "source")]
    found = [place for place in map(_source, places) if place]
    return DiskFacts(
        name=named_by(alias, DISK_ALIAS),
        target=_get(target, "dev"),
        bus=_get(target, "bus"),
        device=device,
        type=disk.get("type", ""),
        source=_source(source),
        protocol=_get(source, "protocol"),
        config=_get(child(source, "config"), "file"),
        hosts=tuple(_host(host) for host in children(source, "host")),
        format=_get(driver, "type"),
        cache=_get(driver, "cache"),
        serial=text_of(child(disk, "serial")),
        alias=alias,
        read_only=read_only,
        shareable=child(disk, "shareable") is not None,
        writable=() if read_only else tuple(found),
    )


def _source(source: ET.Element | None) -> str:
    """A <source> of any disk type as one word; see DiskFacts."""
    if source is None:
        return ""
    if "protocol" in source.attrib:
        return f"{source.get('protocol')}:{source.get('name', '')}"
    if "pool" in source.attrib:
        return f"volume:{source.get('pool')}/{source.get('volume', '')}"
    paths = (source.get(attribute) or "" for attribute in ("file", "dev", "dir", "path"))
    path = next(filter(None, paths), "")
    if path:
        return path
    if source.get("type") == "pci":  # an NVMe disk of the host
        address = child(source, "address")
        parts = [_get(address, name) for name in ("domain", "bus", "slot", "function")]
        return f"nvme:{':'.join(parts)}/{source.get('namespace', '')}"
    return ""


def _host(host: ET.Element) -> str:
    name, port = host.get("name", "") or host.get("socket", ""), host.get("port", "")
    return f"{name}:{port}" if port else name


def _writable(root: ET.Element, disks: tuple[DiskFacts, ...], nvram: str) -> Iterator[str]:
    for disk in disks:
        yield from disk.writable
    if nvram:
        yield nvram
    for memory in children(child(root, "devices"), "memory"):
        if memory.get("model") in ("nvdimm", "virtio-pmem") and child(memory, "target", "readonly") is None:
            path = text_of(child(memory, "source", "path"))
            if path:
                yield path


def _interface(nic: ET.Element) -> InterfaceFacts:
    source = child(nic, "source")
    kind = nic.get("type", "")
    wanted = {"network": "network", "bridge": "bridge", "direct": "dev", "vdpa": "dev"}.get(kind, "")
    return InterfaceFacts(
        name=named_by(_get(child(nic, "alias"), "name"), NIC_ALIAS),
        type=kind,
        source=_get(source, wanted),
        mac=_get(child(nic, "mac"), "address").lower(),
        model=_get(child(nic, "model"), "type"),
    )


def _console_log(devices: ET.Element | None) -> str:
    for tag in ("serial", "console"):
        for element in children(devices, tag):
            if path := _get(child(element, "log"), "file"):
                return path
    return ""


def _vnc(devices: ET.Element | None) -> VncFacts | None:
    for graphics in children(devices, "graphics"):
        if graphics.get("type") == "vnc":
            listen = child(graphics, "listen")
            return VncFacts(
                host=_get(listen, "address") or graphics.get("listen", ""),
                port=number(graphics.get("port")) or None,
                socket=_get(listen, "socket") or graphics.get("socket", ""),
            )
    return None
