"""Changing a running domain: blocking calls, run on worker threads. See LiveChanger.

Each change looks at what is there first, and does nothing when it is so already: the daemon that asked before
may have died before it heard of it. What libvirt says it can never do is refused; any other answer may be
different the next time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import libvirt

from reconciler.adapters.libvirt import failures
from reconciler.adapters.libvirt.workers import Ticket
from reconciler.domainxml import hotplug
from reconciler.domainxml.parse import DomainXmlInvalid
from reconciler.resources.changes import (
    AttachDisk,
    DetachDisk,
    GrowDisk,
    LiveChange,
    Memory,
    Reconnect,
    Shape,
    Vcpus,
)
from reconciler.resources.domains import Definition
from reconciler.resources.errors import ChangeRefused, ChangeWaits, ControllerUnavailable
from reconciler.resources.quantity import format_bytes

T = TypeVar("T")

_LIVE = libvirt.VIR_DOMAIN_AFFECT_LIVE
_NEVER = (
    libvirt.VIR_ERR_CONFIG_UNSUPPORTED,
    libvirt.VIR_ERR_OPERATION_UNSUPPORTED,
    libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED,
    libvirt.VIR_ERR_NO_SUPPORT,
    libvirt.VIR_ERR_INVALID_ARG,
    libvirt.VIR_ERR_XML_ERROR,
)
_LOOKS = 5
_LOOK = 0.2
"""How often, and how many seconds apart, it is looked whether the guest has done its part."""


def shape(domain: libvirt.virDomain) -> Shape:
    """What it has now. Raises libvirtError, ControllerUnavailable when its XML cannot be read."""
    return _read(domain, hotplug.shape)


def bring(domain: libvirt.virDomain, ticket: Ticket, definition: Definition, change: LiveChange) -> None:
    """Make it so. Raises ChangeRefused, ChangeWaits, libvirtError where libvirtd gave no answer."""
    try:
        match change:
            case Vcpus(count=count):
                _vcpus(domain, ticket, count)
            case Memory(size=size):
                _memory(domain, ticket, size)
            case GrowDisk(disk=name, size=size):
                _grow(domain, ticket, name, size)
            case AttachDisk(disk=name):
                _attach(domain, ticket, definition.document, name)
            case DetachDisk(disk=name):
                _detach(domain, ticket, name)
            case Reconnect(interface=name):
                device = _read(domain, lambda live: hotplug.to_reconnect(live, definition.document, name))
                ticket.step()
                domain.updateDeviceFlags(device, _LIVE)
    except hotplug.CannotPlug as error:
        raise ChangeRefused(str(error)) from error
    except libvirt.libvirtError as error:
        if not failures.is_answer(error) or failures.is_missing(error):
            raise
        if error.get_error_code() in _NEVER:
            raise ChangeRefused(failures.text(error)) from error
        raise ChangeWaits(failures.text(error)) from error


def _vcpus(domain: libvirt.virDomain, ticket: Ticket, count: int) -> None:
    if shape(domain).vcpus >= count:
        return
    most = _read(domain, hotplug.most_vcpus)
    if count > most:
        raise ChangeRefused(f"it was started with room for {most} vCPUs (`cpu.maxCores`)")
    ticket.step()
    domain.setVcpusFlags(count, _LIVE)


def _memory(domain: libvirt.virDomain, ticket: Ticket, size: int) -> None:
    room = _read(domain, lambda live: hotplug.memory_room(live, size))
    if room.requested != room.target:
        ticket.step()
        domain.updateDeviceFlags(room.device, _LIVE)
    for _ in range(_LOOKS):
        room = _read(domain, lambda live: hotplug.memory_room(live, size))
        if room.current == room.target:
            return
        time.sleep(_LOOK)
    has, wanted = format_bytes(room.base + room.current), format_bytes(room.base + room.target)
    raise ChangeWaits(f"its guest has {has} of {wanted} so far; its kernel needs the driver virtio_mem")


def _grow(domain: libvirt.virDomain, ticket: Ticket, name: str, size: int) -> None:
    """QEMU resizes the image itself, on RBD too. It would shrink it as willingly."""
    target = _read(domain, lambda live: hotplug.disk_target(live, name))
    if not target:
        raise ChangeRefused("the running guest has no disk of that name")
    if domain.blockInfo(target)[0] >= size:
        return
    ticket.step()
    domain.blockResize(target, size, libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES)


def _attach(domain: libvirt.virDomain, ticket: Ticket, wanted: str, name: str) -> None:
    if name in shape(domain).disks:
        return
    for device in _read(domain, lambda live: hotplug.to_attach(live, wanted, name)):
        ticket.step()
        domain.attachDeviceFlags(device, _LIVE)


def _detach(domain: libvirt.virDomain, ticket: Ticket, name: str) -> None:
    device = _read(domain, lambda live: hotplug.to_detach(live, name))
    if not device:
        return
    ticket.step()
    try:
        domain.detachDeviceFlags(device, _LIVE)
    except libvirt.libvirtError as error:
        if not failures.is_answer(error) or failures.is_missing(error):
            raise
        raise ChangeWaits(failures.text(error)) from error  # asked already, and the guest has not answered
    for _ in range(_LOOKS):
        if name not in shape(domain).disks:
            return
        time.sleep(_LOOK)
    raise ChangeWaits("its guest has not let go of the disk yet")


def _read(domain: libvirt.virDomain, what: Callable[[str], T]) -> T:
    try:
        return what(domain.XMLDesc(0))
    except DomainXmlInvalid as error:
        raise ControllerUnavailable(f"the XML of domain {domain.name()} cannot be read: {error}") from error
