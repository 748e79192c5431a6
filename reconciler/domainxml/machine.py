"""Name, UUID, machine type, firmware and direct kernel boot.

Invariants: the UUID is the VM's uid; a guest's poweroff and crash end the domain, so that vcl decides about
the restart, and its reboot does not; a machine type alias never reaches libvirt, so that a VM keeps its
virtual hardware for life.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping

from reconciler.domainxml.draft import Draft
from reconciler.domainxml.elements import child, children, drop, ensure, fill, put, section
from reconciler.domainxml.parse import DomainXmlInvalid, parse
from reconciler.domainxml.sources import put_nvram
from reconciler.resources.virtualmachine import Boot, Firmware, VirtualMachineSpec

DEFAULT_MACHINE = VirtualMachineSpec.__dataclass_fields__["machine"].default
_CRASH_ACTIONS = ("destroy", "coredump-destroy")
_STOCK_EMULATOR = re.compile(r"/usr/(bin|libexec)/(kvm|kvm-spice|qemu|qemu-kvm|qemu-system-(x86_64|i386))")
"""Where distributions put QEMU: such a path tells where the XML comes from, not what the user wants."""


def identify(draft: Draft) -> None:
    """Name, UUID, domain type, and what happens when the guest ends."""
    root, request = draft.root, draft.request
    kind = root.get("type", draft.host.virtualization)
    if kind not in ("kvm", "qemu"):
        raise draft.refuse(f"<domain type='{kind}'>: vcl runs only 'kvm' and 'qemu' domains", at=root)
    root.attrib.pop("id", None)
    root.attrib["type"] = draft.host.virtualization
    fill(section(root, "name"), request.name)
    fill(section(root, "uuid"), request.uid)
    for entry in children(child(root, "sysinfo", "system"), "entry"):
        if entry.get("name") == "uuid":
            entry.text = request.uid  # libvirt refuses a UUID there that differs from the domain's
    fill(section(root, "on_poweroff"), "destroy")
    fill(section(root, "on_reboot"), "restart")
    crash = child(root, "on_crash")
    if crash is None or (crash.text or "").strip() not in _CRASH_ACTIONS:
        fill(section(root, "on_crash"), "destroy")
    _set_emulator(draft)


def _set_emulator(draft: Draft) -> None:
    """The host's QEMU, unless the user's XML names one of its own."""
    path = child(draft.root, "devices", "emulator")
    own = path is not None and not is_stock_emulator((path.text or "").strip())
    if own or not draft.host.emulator:
        return
    if path is None:
        path = ET.Element("emulator")
        draft.devices.insert(0, path)
    path.text = draft.host.emulator


def is_stock_emulator(path: str) -> bool:
    """Whether it is where a distribution puts QEMU, so that this node's own takes its place."""
    return _STOCK_EMULATOR.fullmatch(path) is not None


def boot(draft: Draft) -> str:
    """Machine type, firmware and direct kernel boot; the canonical machine type."""
    root, spec = draft.root, draft.spec
    if child(root, "os") is None:
        ensure(section(root, "features"), "acpi")  # without it no guest hears a request to power off
        ensure(section(root, "features"), "apic")
        had_type = False
    else:
        had_type = child(root, "os", "type") is not None
    kind = ensure(section(root, "os"), "type")
    if (kind.text or "hvm").strip() != "hvm":
        raise draft.refuse(f"<os><type>{kind.text}: vcl runs only 'hvm' guests", at=kind)
    kind.text = "hvm"
    kind.attrib.setdefault("arch", draft.host.architecture)
    asked = spec.machine
    if draft.own and spec.machine == DEFAULT_MACHINE and had_type:
        asked = kind.get("machine", "pc")  # libvirt's own default on x86
    machine = _canonical(asked, pinned=draft.request.machine, types=draft.host.machine_types)
    kind.attrib["machine"] = machine
    if spec.firmware is Firmware.UEFI:
        _set_uefi(draft)
    _own_nvram(draft)
    if spec.boot is not None:
        _set_kernel(section(root, "os"), spec.boot)
    return machine


def _canonical(asked: str, *, pinned: str, types: Mapping[str, str]) -> str:
    """The versioned type. A version that the user writes is the user's own pin; an alias means the version
    pinned at the first start, as long as that is of the same family."""
    found = types.get(asked, asked)
    alias = found != asked or asked == _family(asked)
    return pinned if pinned and alias and _family(pinned) == _family(found) else found


def _family(machine: str) -> str:
    """'q35' and 'pc' for all their versions ('pc-q35-7.2', 'pc-i440fx-jammy'), else the name without one."""
    if "q35" in machine:
        return "q35"
    if "i440fx" in machine or re.fullmatch(r"pc(-[0-9.]+)?", machine):
        return "pc"
    return re.sub(r"-[0-9][0-9.]*$", "", machine)


def sets_up_uefi(spec: VirtualMachineSpec) -> bool:
    """Whether vcl chooses the guest's UEFI firmware. False when it has none, or the user's own XML brings it
    along; also for XML that cannot be read, which is refused later."""
    if spec.firmware is not Firmware.UEFI:
        return False
    try:
        return spec.domain_xml is None or not _brings_uefi(parse(spec.domain_xml).root)
    except DomainXmlInvalid:
        return False


def _brings_uefi(root: ET.Element) -> bool:
    os, loader = child(root, "os"), child(root, "os", "loader")
    return os is not None and (
        os.get("firmware") == "efi" or (loader is not None and loader.get("type") == "pflash")
    )


def _set_uefi(draft: Draft) -> None:
    """Explicit paths, so that every node uses what the profile says; the user's own UEFI set-up stays."""
    os = section(draft.root, "os")
    if _brings_uefi(draft.root):
        return
    if draft.host.uefi is None:
        raise draft.refuse(
            "spec.firmware is 'uefi', but no UEFI firmware is installed on this node",
            reason="FirmwareMissing",
            cure="install it (Debian and Ubuntu: ovmf; Fedora: edk2-ovmf; Gentoo: sys-firmware/edk2-bin)",
        )
    uefi = draft.host.uefi
    os.attrib.pop("firmware", None)
    drop(os, "loader", "nvram", "bios")
    code = put(os, "loader", uefi.loader)
    code.attrib.update({"readonly": "yes", "type": "pflash"})
    if uefi.format != "raw":
        code.attrib["format"] = uefi.format
    if draft.request.nvram is not None:
        put_nvram(os, draft.request.nvram, code_format=uefi.format)
        return
    variables = put(os, "nvram", "")
    variables.attrib["template"] = uefi.nvram_template
    if uefi.format != "raw":
        variables.attrib["format"] = uefi.format


def _own_nvram(draft: Draft) -> None:
    """Say where the UEFI variables are: what libvirt would choose dies with the node, and is no claim."""
    os = section(draft.root, "os")
    loader = child(os, "loader")
    flash = os.get("firmware") == "efi" or (loader is not None and loader.get("type") == "pflash")
    stateless = loader is not None and loader.get("stateless") == "yes"
    variables = child(os, "nvram")
    if variables is not None and (len(variables) or (variables.text or "").strip()):
        return
    if flash and not stateless:
        put(os, "nvram", draft.paths.nvram)


def _set_kernel(os: ET.Element, kernel: Boot) -> None:
    drop(os, "kernel", "initrd", "cmdline")
    put(os, "kernel", kernel.kernel)
    if kernel.initrd is not None:
        put(os, "initrd", kernel.initrd)
    if kernel.cmdline is not None:
        put(os, "cmdline", kernel.cmdline)
