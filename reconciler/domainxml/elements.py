"""Small steps on an element tree that the rest of the package is written in.

`find` of ElementTree reads ':' in a name as its own prefix syntax; these compare names as written. Libvirt
reads an element that should occur once from its first occurrence: so do these.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping

_UNITS = {
    "b": 1,
    "byte": 1,
    "bytes": 1,
    "k": 2**10,
    "kib": 2**10,
    "kb": 10**3,
    "m": 2**20,
    "mib": 2**20,
    "mb": 10**6,
    "g": 2**30,
    "gib": 2**30,
    "gb": 10**9,
    "t": 2**40,
    "tib": 2**40,
    "tb": 10**12,
    "p": 2**50,
    "pib": 2**50,
    "pb": 10**15,
    "e": 2**60,
    "eib": 2**60,
    "eb": 10**18,
}
"""libvirt's scaled integers (virScaleInteger): 'KB' is 1000 bytes, 'K' and 'KiB' are 1024."""

MIB = 2**20

_ORDER = (
    "name",
    "uuid",
    "genid",
    "title",
    "description",
    "metadata",
    "maxMemory",
    "memory",
    "currentMemory",
    "memoryBacking",
    "vcpu",
    "vcpus",
    "iothreads",
    "cputune",
    "numatune",
    "resource",
    "sysinfo",
    "os",
    "features",
    "cpu",
    "clock",
    "on_poweroff",
    "on_reboot",
    "on_crash",
    "pm",
    "devices",
)
"""libvirt prints a domain's parts in this order; its schema takes most of them in any, but not all."""


def children(parent: ET.Element | None, tag: str) -> Iterator[ET.Element]:
    """The direct children of that name, in order."""
    for element in () if parent is None else parent:
        if element.tag == tag:
            yield element


def child(parent: ET.Element | None, *path: str) -> ET.Element | None:
    """The first child of that name, and so on down the path; None when one is missing."""
    for tag in path:
        parent = next(children(parent, tag), None)
    return parent


def ensure(parent: ET.Element, *path: str) -> ET.Element:
    """Like `child`, but makes what is missing."""
    for tag in path:
        found = next(children(parent, tag), None)
        parent = ET.SubElement(parent, tag) if found is None else found
    return parent


def section(root: ET.Element, tag: str) -> ET.Element:
    """The part of a domain of that name; a missing one is made where libvirt would print it."""
    found = next(children(root, tag), None)
    if found is None:
        found = ET.Element(tag)
        before = _ORDER[: _ORDER.index(tag)]
        places = [i for i, element in enumerate(root) if element.tag in before]
        root.insert(places[-1] + 1 if places else 0, found)
    return found


def put(parent: ET.Element, tag: str, text: str) -> ET.Element:
    """Make the child of that name hold exactly this text; its attributes stay."""
    return fill(ensure(parent, tag), text)


def fill(element: ET.Element, text: str) -> ET.Element:
    """Make an element hold exactly this text; its attributes stay."""
    for inner in list(element):
        element.remove(inner)
    element.text = text
    return element


def add(
    parent: ET.Element, tag: str, attributes: Mapping[str, str] | None = None, text: str | None = None
) -> ET.Element:
    """A new last child."""
    element = ET.SubElement(parent, tag, dict(attributes or {}))
    element.text = text
    return element


def drop(parent: ET.Element, *tags: str) -> None:
    """Remove every child of these names."""
    for tag in tags:
        for element in list(children(parent, tag)):
            parent.remove(element)


def text_of(element: ET.Element | None) -> str:
    """The text without surrounding white space; '' when there is none."""
    return (element.text or "").strip() if element is not None else ""


def number(text: str | None) -> int | None:
    """A decimal number of at most 18 digits, or None."""
    stripped = (text or "").strip()
    plain = stripped.isascii() and stripped.isdigit() and len(stripped) <= 18
    return int(stripped) if plain else None


def in_bytes(element: ET.Element | None, default_unit: str = "KiB") -> int | None:
    """The bytes of a scaled integer such as <memory unit='MiB'>512</memory>, or None when unreadable."""
    value = number(text_of(element))
    unit = element.get("unit", default_unit) if element is not None else default_unit
    scale = _UNITS.get(unit.lower())
    return None if value is None or scale is None else value * scale


def whole_mib(value: int) -> int:
    """Bytes rounded up to whole MiB: what libvirt gives an x86 guest anyway."""
    return -(-value // MIB) * MIB


def set_memory(element: ET.Element, value: int) -> None:
    """Make it hold `value` bytes, a multiple of 1 KiB, in KiB."""
    fill(element, str(value // 1024)).attrib["unit"] = "KiB"
