"""What in a user's own domain definition ties the guest to its host, so that it cannot be migrated live."""

from __future__ import annotations

from xml.etree import ElementTree

_TIES = {
    "hostdev": "a device of the host",
    "filesystem": "a directory of the host",
    "shmem": "shared memory of the host",
    "redirdev": "a redirected USB device",
}


def tie(domain_xml: str | None) -> str:
    """Why a guest with this `domainXML` cannot leave its host, in words; empty when nothing in it is in the
    way, also when it cannot be read (its start says so)."""
    if not domain_xml:
        return ""
    try:
        devices = ElementTree.fromstring(domain_xml).find("devices")
    except ElementTree.ParseError:
        return ""
    found = sorted({_TIES[each.tag] for each in devices or () if each.tag in _TIES})
    if not found:
        return ""
    return f"its domainXML gives it {' and '.join(found)}, which cannot be migrated"
