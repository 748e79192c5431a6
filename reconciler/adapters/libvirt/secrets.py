"""Keys of network disks as libvirt secrets: ephemeral (never on disk) and private (never read back).

libvirt forgets them when it restarts, so they are given anew at every start of vcld, after every new
connection, and before a guest starts.
"""

from __future__ import annotations

import base64
import binascii
import xml.etree.ElementTree as ET

import libvirt

from reconciler.adapters.libvirt.workers import Ticket
from reconciler.domainxml.elements import add
from reconciler.resources.domains import GuestKey
from reconciler.resources.errors import StartFailed


def put(connection: libvirt.virConnect, ticket: Ticket, key: GuestKey) -> None:
    """Define the secret and set its value; again is the same. Raises libvirtError, and StartFailed for a
    value that is no key."""
    try:
        value = base64.b64decode(key.value, validate=True)
    except binascii.Error as error:
        raise StartFailed(f"the key '{key.usage}' is not base64", reason="KeyInvalid") from error
    ticket.step()
    secret = connection.secretDefineXML(document(key))
    ticket.step()
    secret.setValue(value)


def document(key: GuestKey) -> str:
    """The secret's XML, without its value."""
    root = ET.Element("secret", {"ephemeral": "yes", "private": "yes"})
    add(root, "uuid").text = key.secret
    add(root, "description").text = "set by vcld; never stored"
    add(add(root, "usage", {"type": "ceph"}), "name").text = key.usage
    return ET.tostring(root, encoding="unicode")
