"""Network interfaces of the spec: over the user's own with the same alias or MAC, or added.

Invariant: an interface keeps its MAC for life, also when nobody wrote one down.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET

from reconciler.domainxml.draft import Draft
from reconciler.domainxml.elements import add, child, children, drop, ensure
from reconciler.domainxml.names import nic_alias, stable_mac
from reconciler.resources.virtualmachine import Interface, NicModel


def overlay_interfaces(draft: Draft) -> None:
    """All interfaces of the spec, in its order."""
    used: set[ET.Element] = set()
    for wanted in draft.spec.interfaces:
        mac = (wanted.mac or stable_mac(draft.request.uid, wanted.name)).lower()
        found = _find(draft, wanted, mac, used)
        if found is None:
            found = _append(draft, wanted, mac)
        else:
            _lay_over(found, wanted, mac)
        used.add(found)


def _find(draft: Draft, wanted: Interface, mac: str, used: set[ET.Element]) -> ET.Element | None:
    interfaces = [nic for nic in children(draft.devices, "interface") if nic not in used]
    for tag, name, value in (("alias", "name", nic_alias(wanted.name)), ("mac", "address", mac)):
        for nic in interfaces:
            element = child(nic, tag)
            if element is not None and element.get(name, "").lower() == value.lower():
                return nic
    return None


def _append(draft: Draft, wanted: Interface, mac: str) -> ET.Element:
    nic = ET.Element("interface", {"type": "user"})
    add(nic, "mac", {"address": mac})
    add(nic, "model", {"type": wanted.model.value})
    add(nic, "alias", {"name": nic_alias(wanted.name)})
    devices = draft.devices
    places = [i for i, d in enumerate(devices) if d.tag in ("interface", "disk", "controller", "emulator")]
    devices.insert(places[-1] + 1 if places else 0, nic)
    _connect(nic, wanted)
    _plug(nic, wanted)
    return nic


def _lay_over(nic: ET.Element, wanted: Interface, mac: str) -> None:
    """What the spec says of this interface; everything else about it stays. Without any address libvirt
    would make one up at each start."""
    _connect(nic, wanted)
    _plug(nic, wanted)
    if wanted.mac is not None or child(nic, "mac") is None:
        ensure(nic, "mac").attrib["address"] = mac
    if wanted.model is not NicModel.VIRTIO:
        ensure(nic, "model").attrib["type"] = wanted.model.value
    alias = ensure(nic, "alias")
    if not alias.get("name", "").startswith("ua-"):
        alias.attrib["name"] = nic_alias(wanted.name)


def _plug(nic: ET.Element, wanted: Interface) -> None:
    """The cable in or out, as the spec says; saying nothing leaves it as it is."""
    if wanted.state is not None:
        ensure(nic, "link").attrib["state"] = wanted.state.value


def _connect(nic: ET.Element, wanted: Interface) -> None:
    """To the bridge or network that the spec names; naming neither leaves it where it is."""
    for kind, value in (("bridge", wanted.bridge), ("network", wanted.network)):
        source = child(nic, "source")
        if value is None or (nic.get("type") == kind and source is not None and source.get(kind) == value):
            continue
        nic.attrib["type"] = kind
        drop(nic, "source")
        nic.insert(1, ET.Element("source", {kind: value}))
