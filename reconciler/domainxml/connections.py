"""What a VM's interfaces are connected to on its host: by the spec, and the user's own domain XML under it.

Invariant: what is named here is needed by every start. So of an interface that the spec lays over one of the
XML only the spec's word counts, and XML that cannot be read says nothing: the start will.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass

from reconciler.domainxml.names import nic_alias
from reconciler.resources.virtualmachine import VirtualMachineSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Connections:
    """Names, sorted."""

    bridges: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()


def connections(spec: VirtualMachineSpec) -> Connections:
    """The host's bridges and the hypervisor's networks that the VM needs."""
    found = {("bridge", nic.bridge) for nic in spec.interfaces if nic.bridge}
    found |= {("network", nic.network) for nic in spec.interfaces if nic.network}
    if spec.domain_xml is not None:
        found |= _of_xml(spec, spec.domain_xml)
    return Connections(
        bridges=tuple(sorted(name for kind, name in found if kind == "bridge")),
        networks=tuple(sorted(name for kind, name in found if kind == "network")),
    )


def _of_xml(spec: VirtualMachineSpec, text: str) -> set[tuple[str, str]]:
    try:
        root = ET.fromstring(text)
    except ET.ParseError:
        return set()
    replaced = {
        mark
        for nic in spec.interfaces
        if nic.bridge or nic.network
        for mark in (nic_alias(nic.name).lower(), (nic.mac or "").lower())
    }
    found = set()
    for nic in root.iterfind("devices/interface"):
        kind, source = nic.get("type", ""), nic.find("source")
        name = source.get(kind, "") if source is not None and kind in ("bridge", "network") else ""
        marks = {_attribute(nic, "alias", "name"), _attribute(nic, "mac", "address")} - {""}
        if name and not marks & replaced:
            found.add((kind, name))
    return found


def _attribute(nic: ET.Element, tag: str, name: str) -> str:
    element = nic.find(tag)
    return element.get(name, "").lower() if element is not None else ""
