"""From a libvirt domain to `Observed`: its live XML (cached), its state, its processes.

Reading and parsing the XML of every domain is what a resync of a thousand VMs would spend its time on, so
what an XML says is kept per domain id, until an event says that the domain changed or the connection is lost.
Invariant: an XML that was fetched before such an event is never cached after it.
"""

from __future__ import annotations

import threading
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass

import libvirt

from reconciler.adapters.libvirt.processes import Process, Processes
from reconciler.domainxml.elements import ensure
from reconciler.domainxml.parse import DomainXmlInvalid, parse, serialize
from reconciler.domainxml.read import DomainFacts, describe_xml
from reconciler.resources.domains import DomainPhase, Observed, PauseReason
from reconciler.resources.errors import ControllerUnavailable

STARTING_NAMESPACE = "urn:vcl:starting:1"
"""libvirt reports a domain that was created paused just like one that a user paused. This mark in its
metadata tells them apart: `create` puts it in, and it is removed after the first resume."""
STARTING_KEY = "vclstarting"
ISOLATED_NAMESPACE = "urn:vcl:isolated:1"
"""In the metadata of a domain that this node paused because it had lost contact, until it is resumed."""
ISOLATED_KEY = "vclisolated"
ARRIVED_NAMESPACE = "urn:vcl:arrived:1"
"""In the metadata of a domain that came by live migration, until it is resumed: libvirt reports it, too, as
one that a user paused."""
ARRIVED_KEY = "vclarrived"

_PHASES = {
    libvirt.VIR_DOMAIN_NOSTATE: DomainPhase.PAUSED,
    libvirt.VIR_DOMAIN_RUNNING: DomainPhase.RUNNING,
    libvirt.VIR_DOMAIN_BLOCKED: DomainPhase.RUNNING,
    libvirt.VIR_DOMAIN_PAUSED: DomainPhase.PAUSED,
    libvirt.VIR_DOMAIN_SHUTDOWN: DomainPhase.STOPPING,
    libvirt.VIR_DOMAIN_SHUTOFF: DomainPhase.PAUSED,  # only seen of an active one, which is being made
    libvirt.VIR_DOMAIN_CRASHED: DomainPhase.CRASHED,
    libvirt.VIR_DOMAIN_PMSUSPENDED: DomainPhase.PAUSED,
}
_PAUSES = {
    libvirt.VIR_DOMAIN_PAUSED_USER: PauseReason.USER,
    libvirt.VIR_DOMAIN_PAUSED_MIGRATION: PauseReason.MIGRATION,
    libvirt.VIR_DOMAIN_PAUSED_POSTCOPY: PauseReason.MIGRATION,
    libvirt.VIR_DOMAIN_PAUSED_POSTCOPY_FAILED: PauseReason.MIGRATION,
    libvirt.VIR_DOMAIN_PAUSED_IOERROR: PauseReason.IO_ERROR,
    libvirt.VIR_DOMAIN_PAUSED_STARTING_UP: PauseReason.STARTING,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Details:
    """What one live XML says, and the processes of that incarnation."""

    domain_id: int
    facts: DomainFacts
    starting: bool
    isolated: bool
    arrived: bool
    processes: tuple[Process, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """What libvirt knows of a domain besides its XML. `state`, `reason`: virDomainState and its reason."""

    state: int
    reason: int
    persistent: bool = False
    autostart: bool = False


class DetailsCache:
    """UUID -> Details. Thread-safe."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._lock = threading.Lock()
        self._known: dict[str, Details] = {}
        self._version = 0

    def forget(self, uuid: str = "") -> None:
        """This domain, or all of them, changed."""
        with self._lock:
            self._version += 1
            if uuid:
                self._known.pop(uuid, None)
            else:
                self._known.clear()

    def is_marked(self, uuid: str) -> bool:
        """Whether the domain, as it was last read, has the mark of one that was never resumed."""
        with self._lock:
            known = self._known.get(uuid)
        return known is not None and known.starting

    def has_arrived(self, uuid: str) -> bool:
        """Whether the domain, as it was last read, has the mark of one that came from another host."""
        with self._lock:
            known = self._known.get(uuid)
        return known is not None and known.arrived

    def is_isolated(self, uuid: str) -> bool:
        """Whether the domain, as it was last read, has the mark of one that this node paused."""
        with self._lock:
            known = self._known.get(uuid)
        return known is not None and known.isolated

    def keep_only(self, uuids: set[str]) -> None:
        """Drop what is not there any more."""
        with self._lock:
            for uuid in [known for known in self._known if known not in uuids]:
                del self._known[uuid]

    def details(self, domain: libvirt.virDomain, found: Mapping[str, tuple[Process, ...]] | None) -> Details:
        """Of an active domain. `found`: a fresh scan of the processes, when the caller has one. Raises
        libvirtError, and ControllerUnavailable when the XML cannot be read."""
        uuid, domain_id = domain.UUIDString(), domain.ID()
        with self._lock:
            known, version = self._known.get(uuid), self._version
        if known is not None and known.domain_id == domain_id and self._same(known, uuid, found):
            return known
        processes = self._find(uuid, found)
        if not processes and known is not None and known.domain_id == domain_id:
            return known  # QEMU has just ended, and libvirt has not noticed: still the same incarnation
        fresh = _read(domain, domain_id, processes)
        with self._lock:
            if version == self._version and fresh.processes:
                self._known[uuid] = fresh
        return fresh

    def _same(self, known: Details, uuid: str, found: Mapping[str, tuple[Process, ...]] | None) -> bool:
        if found is not None:
            return known.processes == found.get(uuid, ())
        return self._processes.still(known.processes)

    def _find(self, uuid: str, found: Mapping[str, tuple[Process, ...]] | None) -> tuple[Process, ...]:
        return (self._processes.scan() if found is None else found).get(uuid, ())


def _read(domain: libvirt.virDomain, domain_id: int, processes: tuple[Process, ...]) -> Details:
    text = domain.XMLDesc(0)
    try:
        facts = describe_xml(text)
    except DomainXmlInvalid as error:
        raise ControllerUnavailable(f"the XML of domain {domain.name()} cannot be read: {error}") from error
    return Details(
        domain_id=domain_id,
        facts=facts,
        starting=STARTING_NAMESPACE in text,
        isolated=ISOLATED_NAMESPACE in text,
        arrived=ARRIVED_NAMESPACE in text,
        processes=processes,
    )


def marked_starting(document: str) -> str:
    """The definition with the mark of a domain that was never resumed. Raises DomainXmlInvalid."""
    return _marked(document, STARTING_KEY, STARTING_NAMESPACE)


def marked_arriving(document: str) -> str:
    """The definition with the mark of a domain that comes from another host. Raises DomainXmlInvalid."""
    return _marked(document, ARRIVED_KEY, ARRIVED_NAMESPACE)


def _marked(document: str, key: str, namespace: str) -> str:
    root = parse(document).root
    ET.SubElement(ensure(root, "metadata"), f"{key}:mark", {f"xmlns:{key}": namespace})
    return serialize(root)


def observed(name: str, details: Details, flags: Flags) -> Observed:
    """Put together; pure."""
    facts = details.facts
    mark = facts.ownership
    phase = _PHASES.get(flags.state, DomainPhase.PAUSED)
    if flags.state == libvirt.VIR_DOMAIN_PAUSED and flags.reason == libvirt.VIR_DOMAIN_PAUSED_CRASHED:
        phase = DomainPhase.CRASHED
    if flags.state == libvirt.VIR_DOMAIN_PAUSED and flags.reason == libvirt.VIR_DOMAIN_PAUSED_SHUTTING_DOWN:
        phase = DomainPhase.STOPPING
    youngest = details.processes[-1] if details.processes else None
    process = f"-{youngest.pid}-{youngest.started}" if youngest else ""
    return Observed(
        name=name,
        uid=mark.uid if mark else "",
        cluster_uid=mark.cluster_uid if mark else "",
        node=mark.node if mark else "",
        generation=mark.generation if mark else 0,
        phase=phase,
        pause_reason=_pause_reason(phase, details, flags),
        incarnation=f"{details.domain_id}{process}",
        clients=tuple(process.client for process in details.processes),
        vcpus=facts.vcpus,
        memory=facts.memory,
        machine=facts.machine,
        virtualization=facts.virtualization,
        agent_connected=facts.agent_connected,
        autostart=flags.autostart,
        persistent=flags.persistent,
    )


def _pause_reason(phase: DomainPhase, details: Details, flags: Flags) -> PauseReason:
    if phase is not DomainPhase.PAUSED:
        return PauseReason.NONE
    if flags.state == libvirt.VIR_DOMAIN_SHUTOFF:
        return PauseReason.STARTING
    if flags.state != libvirt.VIR_DOMAIN_PAUSED:
        return PauseReason.OTHER
    reason = _PAUSES.get(flags.reason, PauseReason.OTHER)
    if reason is not PauseReason.USER:
        return reason
    if details.arrived:
        return PauseReason.MIGRATION
    if details.starting:
        return PauseReason.STARTING
    return PauseReason.ISOLATED if details.isolated else reason
