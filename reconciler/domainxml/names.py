"""The names that vcl gives inside a domain: stable, so that a restart changes nothing in the guest.

A disk or interface of the spec is recognised in any later XML by its alias ('ua-...': libvirt keeps those
as they are), else by the disk's serial or the interface's MAC.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from urllib.parse import quote, unquote

DISK_ALIAS = "ua-disk-"
NIC_ALIAS = "ua-nic-"

_SERIAL_LENGTH = 20
"""virtio-blk tells the guest 20 bytes of a serial."""
_NOT_SERIAL = re.compile(r"[^A-Za-z0-9_.+-]")


def stable_mac(uid: str, name: str) -> str:
    """The MAC of the VM `uid`'s interface `name`: in QEMU's range, the same at every call."""
    digest = hashlib.sha256(f"{uid}/{name}".encode()).digest()
    return "52:54:00:" + ":".join(f"{byte:02x}" for byte in digest[:3])


def disk_serial(name: str) -> str:
    """What the guest sees as the disk's serial (/dev/disk/by-id/virtio-SERIAL): its name, when that fits
    20 characters; else its start and a digest of the whole."""
    plain = _NOT_SERIAL.sub("-", name)
    if plain == name and len(name) <= _SERIAL_LENGTH:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:7]
    return f"{plain[: _SERIAL_LENGTH - 8]}-{digest}"


def disk_alias(name: str) -> str:
    """The alias of a spec's disk."""
    return DISK_ALIAS + _escape(name)


def nic_alias(name: str) -> str:
    """The alias of a spec's interface."""
    return NIC_ALIAS + _escape(name)


def named_by(alias: str | None, prefix: str) -> str:
    """The name in an alias that `disk_alias` or `nic_alias` made; '' for any other alias."""
    if alias is None or not alias.startswith(prefix):
        return ""
    return unquote(alias.removeprefix(prefix).replace("_", "%"))


def _escape(name: str) -> str:
    """Within libvirt's [a-zA-Z0-9_-]: anything else as _XX for each byte."""
    quoted = quote(name, safe="").replace("_", "%5F").replace(".", "%2E").replace("~", "%7E")
    return quoted.replace("%", "_")


def next_target(prefix: str, taken: Collection[str]) -> str:
    """The first free target of 'vda', 'vdb', ... 'vdz', 'vdaa', ... for a prefix such as 'vd'."""
    index = 0
    while (target := prefix + _letters(index)) in taken:
        index += 1
    return target


def target_index(target: str) -> int:
    """The position of a target: 'vda' 0, 'vdz' 25, 'vdaa' 26; 0 for what is no target."""
    value = 0
    for letter in target[2:]:
        if not "a" <= letter <= "z":
            break
        value = value * 26 + ord(letter) - ord("a") + 1
    return max(0, value - 1)


def _letters(index: int) -> str:
    letters = ""
    while index >= 0:
        index, rest = divmod(index, 26)
        letters = chr(ord("a") + rest) + letters
        index -= 1
    return letters
