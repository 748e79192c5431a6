"""From an existing libvirt domain to a VirtualMachine's spec: the way back from `build`.

Invariant: `build` of the result gives a domain equivalent to the original, but for what
tests/domainxml/test_adopt_round_trip.py names: the fields say what they can, and everything else stays in
domainXML, word for word. Nothing is dropped without a remark.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from reconciler.domainxml import metadata
from reconciler.domainxml.adopted_disks import Places, Remark, take_disks
from reconciler.domainxml.adopted_rest import remarks
from reconciler.domainxml.elements import child, children, drop, in_bytes, section, text_of, whole_mib
from reconciler.domainxml.machine import DEFAULT_MACHINE, is_stock_emulator
from reconciler.domainxml.metadata import Ownership
from reconciler.domainxml.names import NIC_ALIAS, named_by, nic_alias
from reconciler.domainxml.parse import parse, serialize
from reconciler.domainxml.read import DomainFacts, describe
from reconciler.domainxml.runtime import strip_run
from reconciler.resources.errors import InvalidInput
from reconciler.resources.kinds import NAME_PATTERN
from reconciler.resources.quantity import format_bytes
from reconciler.resources.virtualmachine import NicModel, RunStrategy

__all__ = ["Adopted", "Places", "Remark", "adopt", "suggest_name"]

_NAME = re.compile(NAME_PATTERN.removesuffix("$") + r"\Z")
_NIC_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?")
_MAC = re.compile(r"[0-9a-f][02468ace](:[0-9a-f]{2}){5}")
_PLACES = {"bridge": re.compile(r"[^\s/:]{1,15}"), "network": re.compile(r"[^/\s]{1,255}")}
_DEFAULT_ENDS = {"on_poweroff": "destroy", "on_reboot": "restart", "on_crash": "destroy"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopted:
    """One domain as a VM. `domain`: its name in libvirt; `uuid`: as libvirt has it, '' when the XML has none;
    `spec`: as a manifest has it; `running`: the XML is that of a running domain; `owner`: vcl's own mark."""

    name: str
    domain: str
    uuid: str
    spec: dict[str, Any]
    remarks: tuple[Remark, ...]
    running: bool = False
    owner: Ownership | None = None

    @property
    def pinned(self) -> tuple[Remark, ...]:
        """What keeps it on its host."""
        return tuple(remark for remark in self.remarks if remark.pins)


def adopt(
    text: str,
    places: Places,
    *,
    name: str = "",
    run_strategy: RunStrategy = RunStrategy.MANUAL,
    live: str = "",
) -> Adopted:
    """The VM of a domain's XML. `name`: another one for the VM; `live`: the XML of its present run, for what
    libvirt chose at the start and the definition leaves open.

    Raises DomainXmlInvalid for what is no domain XML, and InvalidInput for a domain that vcl cannot run or
    whose name no VM can have, with the cure.
    """
    root = parse(text).root
    running = strip_run(root)
    if live:
        _take_chosen_firmware(root, parse(live).root)
    _write_down_firmware(root)
    facts = describe(root)
    _refuse(root, facts)
    vm = name or facts.name
    _check_name(vm, facts.name)
    found = tuple(remarks(root))
    metadata.clear(root)
    spec = _amounts(facts, run_strategy)
    disks = take_disks(root, vm, places)
    spec["disks"] = [dict(disk.entry) for disk in disks if disk.entry is not None]
    spec["interfaces"] = list(_interfaces(root))
    spec |= _boot(root, facts)
    spec["guestAgent"] = facts.agent is not None
    _take_out(root)
    spec["domainXML"] = serialize(root)
    return Adopted(
        name=vm,
        domain=facts.name,
        uuid=facts.uuid,
        spec={key: value for key, value in spec.items() if value not in ([], {}, None)},
        remarks=(*(remark for disk in disks for remark in disk.remarks), *found),
        running=running,
        owner=facts.ownership,
    )


def _take_chosen_firmware(root: ET.Element, live: ET.Element) -> None:
    """The firmware, its variables, and the system management mode that some firmware needs, as the run has
    them, where the definition lets libvirt choose."""
    os, chosen = child(root, "os"), child(live, "os")
    own = child(os, "nvram")
    if os is None or chosen is None or (own is not None and (len(own) or text_of(own))):
        return
    for tag in ("loader", "nvram"):
        found = child(chosen, tag)
        if found is not None:
            drop(os, tag)
            os.append(found)
    mode = child(live, "features", "smm")
    if mode is not None and child(root, "features", "smm") is None:
        section(root, "features").append(mode)


def _write_down_firmware(root: ET.Element) -> None:
    """A choice that libvirt has made is no choice any more: not every version takes both, the wish for one
    (`firmware='efi'`) and the file that it became."""
    os = child(root, "os")
    if os is not None and text_of(child(os, "loader")).startswith("/"):
        os.attrib.pop("firmware", None)
        drop(os, "firmware")


def suggest_name(domain: str) -> str:
    """A VM's name that resembles a domain's."""
    plain = re.sub(r"[^A-Za-z0-9.-]+", "-", domain).strip("-.")
    return plain[:63].rstrip("-.") or "vm"


def _refuse(root: ET.Element, facts: DomainFacts) -> None:
    about, kind = f"domain '{facts.name}'", root.get("type", "kvm")
    if kind not in ("kvm", "qemu"):
        raise InvalidInput(f"{about} is of type '{kind}': vcl runs only 'kvm' and 'qemu' domains")
    system = text_of(child(root, "os", "type")) or "hvm"
    if system != "hvm":
        raise InvalidInput(f"{about} has <os><type>{system}: vcl runs only 'hvm' guests")
    if not facts.memory:
        raise InvalidInput(f"{about} has no <memory> that can be read", cure="write it into the XML")
    devices = child(root, "devices")
    for disk in children(devices, "disk"):
        if child(disk, "mirror") is not None:
            target = child(disk, "target")
            dev = "?" if target is None else target.get("dev", "?")
            raise InvalidInput(
                f"{about}: a block job is copying its disk {dev}",
                cure=f"let it end, or end it: virsh blockjob {facts.name} {dev} --abort",
            )


def _check_name(vm: str, domain: str) -> None:
    if _NAME.match(vm):
        return
    whose = f"domain '{domain}': " if vm == domain else ""
    raise InvalidInput(
        f"{whose}'{vm}' cannot be the name of a VM: letters, digits, '-' and '.', 63 at most, a letter or "
        "digit first and last",
        cure=f"give it another: --rename '{domain}={suggest_name(vm)}'",
    )


def _amounts(facts: DomainFacts, run_strategy: RunStrategy) -> dict[str, Any]:
    return {
        "runStrategy": None if run_strategy is RunStrategy.ALWAYS else run_strategy.value,
        "cpu": {"cores": facts.vcpus},
        "memory": format_bytes(whole_mib(facts.memory)),
        "machine": facts.machine if facts.machine not in ("", DEFAULT_MACHINE) else None,
        "firmware": "uefi" if facts.firmware == "uefi" else None,
    }


def _boot(root: ET.Element, facts: DomainFacts) -> dict[str, Any]:
    """Direct kernel boot, where a field can say it: absolute paths."""
    boot, os = facts.boot, child(root, "os")
    paths = [path for path in (boot.kernel, boot.initrd) if path]
    if os is None or not boot.kernel or not all(path.startswith("/") for path in paths):
        return {}
    drop(os, "kernel", "initrd", "cmdline")
    said = {"kernel": boot.kernel, "initrd": boot.initrd, "cmdline": boot.cmdline}
    return {"boot": {key: value for key, value in said.items() if value}}


def _interfaces(root: ET.Element) -> Iterator[dict[str, Any]]:
    """Those on a bridge, on a network or on QEMU's own; the others stay in domainXML alone."""
    taken: set[str] = set()
    for number, nic in enumerate(children(child(root, "devices"), "interface")):
        kind, source, mac = nic.get("type", ""), child(nic, "source"), child(nic, "mac")
        place = "" if source is None else source.get(kind, "")
        address = "" if mac is None else mac.get("address", "").lower()
        if kind not in (*_PLACES, "user") or (address and not _MAC.fullmatch(address)):
            continue
        if kind in _PLACES and not _PLACES[kind].fullmatch(place):
            continue
        alias = child(nic, "alias")
        name = named_by(None if alias is None else alias.get("name"), NIC_ALIAS)
        name = name if _NIC_NAME.fullmatch(name) and name not in taken else f"net{number}"
        taken.add(name)
        model = child(nic, "model")
        wanted = "" if model is None else model.get("type", "")
        if not address:  # by the alias the spec's interface finds it, and gives it a lasting address
            drop(nic, "alias")
            ET.SubElement(nic, "alias", {"name": nic_alias(name)})
        entry = {"name": name, kind: place, "mac": address}
        entry["model"] = wanted if wanted in set(NicModel) - {NicModel.VIRTIO} else ""
        yield {key: value for key, value in entry.items() if value}


def _take_out(root: ET.Element) -> None:
    """What the fields and vcl itself say anyway."""
    drop(root, "name", "uuid")
    for tag, usual in _DEFAULT_ENDS.items():
        if tag != "on_crash" or text_of(child(root, tag)) in ("", usual):
            drop(root, tag)
    vcpu = child(root, "vcpu")
    if vcpu is not None and set(vcpu.attrib) <= {"placement"} and vcpu.get("placement") != "auto":
        drop(root, "vcpu")
    memory, current = child(root, "memory"), child(root, "currentMemory")
    plain = memory is None or set(memory.attrib) <= {"unit"}
    if plain and (current is None or in_bytes(current) == in_bytes(memory)):
        drop(root, "memory", "currentMemory")
    devices, path = child(root, "devices"), child(root, "devices", "emulator")
    if devices is not None and path is not None and is_stock_emulator(text_of(path)):
        devices.remove(path)
