"""The devices without which vcl cannot look after a guest: a logged serial console and the agent's channel,
and places for disks that come while it runs.

They are added to a user's XML only when it has none; what it has stays as it is, except that the first
console gets a log (that is where `vcl console --tail` and the proof of booting come from).
"""

from __future__ import annotations

import xml.etree.ElementTree as ET

from reconciler.domainxml.draft import Draft
from reconciler.domainxml.elements import add, child, children

AGENT_CHANNEL = "org.qemu.guest_agent.0"
SPARE = 4
"""Disks that can be attached to a running guest."""
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


def spare_ports(draft: Draft, machine: str) -> None:
    """On q35 a device that comes later needs a free port of PCI Express, of which libvirt leaves one. The
    user's own XML has as many as it says."""
    devices = draft.devices
    if draft.own or "q35" not in machine:
        return
    used = sum(1 for device in devices if _takes_port(device))
    used += any(_on_virtio(channel) for channel in children(devices, "channel"))
    controllers = [{"type": "pci", "index": "0", "model": "pcie-root"}]
    controllers += [
        {"type": "pci", "index": str(index + 1), "model": "pcie-root-port"} for index in range(used + SPARE)
    ]
    places = [i for i, device in enumerate(devices) if device.tag == "controller"]
    for offset, controller in enumerate(controllers):
        devices.insert(places[-1] + 1 + offset, ET.Element("controller", controller))


def _on_virtio(channel: ET.Element) -> bool:
    """libvirt adds one controller for all of these."""
    target = child(channel, "target")
    return target is not None and target.get("type") == "virtio"


def _takes_port(device: ET.Element) -> bool:
    """Whether libvirt gives it a port of PCI Express of its own."""
    target = child(device, "target")
    match device.tag:
        case "disk":
            return target is not None and target.get("bus") == "virtio"
        case "interface":
            model = child(device, "model")
            return model is None or model.get("type") in ("virtio", "e1000e")
        case "controller":
            return device.get("type") in ("usb", "scsi", "virtio-serial")
        case "memballoon" | "rng":
            return device.get("model") == "virtio"
        case "memory":
            return device.get("model") == "virtio-mem"
    return False


def agent_target(root: ET.Element) -> ET.Element | None:
    """The <target> of the agent's channel, or None when there is none."""
    for channel in children(child(root, "devices"), "channel"):
        target = child(channel, "target")
        if target is not None and target.get("name") == AGENT_CHANNEL:
            return target
    return None
