"""The definition of a running guest as the host that receives it must have it.

Invariant (SAFETY rule 9): the mark names the node that the domain is on, so it is changed on the way; nothing
that the guest can see is.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass, replace

from reconciler.domainxml import metadata
from reconciler.domainxml.elements import children
from reconciler.domainxml.parse import parse, serialize
from reconciler.resources.errors import InvalidInput


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A node and the directory of its guests' own files (an absolute path)."""

    node: str
    root: str


def handed_over(document: str, source: Place, target: Place) -> str:
    """The live definition, for the target. Raises InvalidInput when it has no mark, DomainXmlInvalid.

    The cloud-init image is a file of one host: a target that has none shows an empty drive, which the guest
    does not read again.
    """
    root = parse(document).root
    mark = metadata.find(root)
    if mark is None:
        raise InvalidInput("its domain has no mark of vcl's in its metadata")
    metadata.put(root, replace(mark, node=target.node))
    for devices in children(root, "devices"):
        for disk in children(devices, "disk"):
            for file in children(disk, "source") if disk.get("device") == "cdrom" else ():
                file.set("startupPolicy", "optional")
        for element in devices.iter():
            _move(element, source.root, target.root)
    for element in (each for section in children(root, "os") for each in children(section, "nvram")):
        element.text = _moved(element.text or "", source.root, target.root)
    return serialize(root)


def _move(element: ET.Element, source: str, target: str) -> None:
    for key, value in element.items():
        element.set(key, _moved(value, source, target))


def _moved(path: str, source: str, target: str) -> str:
    return target + path.removeprefix(source) if path.startswith(f"{source}/") else path
