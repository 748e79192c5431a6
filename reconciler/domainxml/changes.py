"""Which spec fields a running VM does not have yet: the condition RestartRequired.

Compared are facts of the running domain's XML and of the wanted definition. libvirt adds addresses,
aliases and defaults to what it was given, rewrites CPU modes, and a guest ejects its CD: none of it is a
change. What libvirt does not keep as it was written is compared by the digests in vcl's own mark, and not at
all for a domain without one (adopted).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from reconciler.domainxml.disks import SEED_ALIAS
from reconciler.domainxml.elements import whole_mib
from reconciler.domainxml.read import DiskFacts, DomainFacts, InterfaceFacts, describe_xml
from reconciler.resources.domains import Definition


def pending_restart(running: str, wanted: Definition) -> tuple[str, ...]:
    """Field names such as 'memory' or 'disks[data]', sorted, that only a restart will change.

    `running`: the XML of the running domain as the hypervisor reports it. Raises DomainXmlInvalid.
    """
    return tuple(sorted(set(compare(describe_xml(running), describe_xml(wanted.document)))))


def compare(running: DomainFacts, wanted: DomainFacts) -> Iterator[str]:
    """The fields that differ, possibly repeated, in no particular order."""
    pairs = {
        "cpu.cores": (running.vcpus, wanted.vcpus),
        "memory": (whole_mib(running.memory), whole_mib(wanted.memory)),
        "machine": (running.machine, wanted.machine),
        "firmware": (running.firmware, wanted.firmware),
        "boot": (running.boot, wanted.boot),
        "guestAgent": (running.agent is None, wanted.agent is None),
    }
    yield from (field for field, (now, then) in pairs.items() if now != then)
    yield from _disks(running, wanted)
    yield from _interfaces(running, wanted)
    yield from _marks(running, wanted)


def _marks(running: DomainFacts, wanted: DomainFacts) -> Iterator[str]:
    """What only the mark remembers."""
    now, then = running.ownership, wanted.ownership
    if now is None or then is None:
        return
    for field, before, after in (
        ("cpu.model", now.cpu, then.cpu),
        ("domainXML", now.base, then.base),
        ("cloudInit", now.seed, then.seed),
    ):
        if before != after:
            yield field


def _disks(running: DomainFacts, wanted: DomainFacts) -> Iterator[str]:
    """Disks by vcl's name, else by target. One that neither side has a name for belongs to domainXML."""
    there = [disk for disk in running.disks if disk.alias != SEED_ALIAS]
    marked = running.ownership is not None
    matched: set[int] = set()
    for disk in wanted.disks:
        if disk.alias == SEED_ALIAS:
            continue
        found = _same_disk(disk, there)
        if found is not None:
            matched.add(found)
        if (disk.name or not marked) and (found is None or _disk_differs(there[found], disk)):
            yield f"disks[{disk.name or disk.target}]"
    for index, disk in enumerate(there):
        if index not in matched and (disk.name or not marked):
            yield f"disks[{disk.name or disk.target}]"


def _same_disk(wanted: DiskFacts, there: list[DiskFacts]) -> int | None:
    for index, disk in enumerate(there):
        if wanted.name and wanted.name == disk.name:
            return index
    for index, disk in enumerate(there):
        if wanted.target == disk.target and not (wanted.name and disk.name):
            return index
    return None


def _disk_differs(now: DiskFacts, then: DiskFacts) -> bool:
    ejected = now.device in ("cdrom", "floppy") and not now.source
    source = "" if ejected else now.source
    wanted_source = "" if ejected else then.source
    return (source, now.bus, now.cache or then.cache, now.read_only, now.format or then.format) != (
        wanted_source,
        then.bus,
        then.cache or now.cache,
        then.read_only,
        then.format or now.format,
    )


def _interfaces(running: DomainFacts, wanted: DomainFacts) -> Iterator[str]:
    """Interfaces by vcl's name, else by MAC; as for disks."""
    marked = running.ownership is not None
    now, then = _by_key(running.interfaces), _by_key(wanted.interfaces)
    aliases = {nic.mac: key for key, nic in now.items()}
    matched: set[str] = set()
    for key, nic in then.items():
        found = key if key in now else aliases.get(nic.mac, "")
        matched.add(found)
        if (nic.name or not marked) and (found not in now or _nic_differs(now[found], nic)):
            yield f"interfaces[{nic.name or nic.mac}]"
    for key, nic in now.items():
        if key not in matched and (nic.name or not marked):
            yield f"interfaces[{nic.name or nic.mac}]"


def _by_key(interfaces: tuple[InterfaceFacts, ...]) -> Mapping[str, InterfaceFacts]:
    return {nic.name or nic.mac: nic for nic in interfaces}


def _nic_differs(now: InterfaceFacts, then: InterfaceFacts) -> bool:
    same_mac = now.mac == then.mac or not then.mac
    same_model = now.model == then.model or not now.model or not then.model
    return not same_mac or not same_model or (now.type, now.source) != (then.type, then.source)
