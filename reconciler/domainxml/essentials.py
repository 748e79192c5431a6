"""The devices without which vcl cannot look after a guest: a logged serial console and the agent's channel.

They are added to a user's XML only when it has none; what it has stays as it is, except that the first
console gets a log (that is where `vcl console --tail` and the proof of booting come from).
"""

from __future__ import annotations

import xml.etree.ElementTree as ET

from reconciler.domainxml.draft import Draft
from reconciler.domainxml.elements import add, child, children

AGENT_CHANNEL = "org.qemu.guest_agent.0"
_LOGGABLE = ("pty", "unix", "tcp", "udp", "stdio", "null", "vc", "dev", "pipe")


def ensure_console(draft: Draft) -> None:
    """A serial console whose output is appended to `paths.console_log`."""
    devices = draft.devices
    serial = child(devices, "serial")
    console = child(devices, "console")
    first = serial if serial is not None else console
    if first is None:
        first = add(devices, "serial", {"type": "pty"})
        target = add(first, "target", {"type": "isa-serial", "port": "0"})
        add(target, "model", {"name": "isa-serial"})
        add(add(devices, "console", {"type": "pty"}), "target", {"type": "serial", "port": "0"})
    if child(first, "log") is None and first.get("type", "pty") in _LOGGABLE:
        log = ET.Element("log", {"file": draft.paths.console_log, "append": "on"})
        first.insert(0, log)


def ensure_agent(draft: Draft) -> None:
    """The virtio channel of the QEMU guest agent, when `guestAgent` is set."""
    if not draft.spec.guest_agent or agent_target(draft.root) is not None:
        return
    channel = add(draft.devices, "channel", {"type": "unix"})
    add(channel, "target", {"type": "virtio", "name": AGENT_CHANNEL})


def agent_target(root: ET.Element) -> ET.Element | None:
    """The <target> of the agent's channel, or None when there is none."""
    for channel in children(child(root, "devices"), "channel"):
        target = child(channel, "target")
        if target is not None and target.get("name") == AGENT_CHANNEL:
            return target
    return None
