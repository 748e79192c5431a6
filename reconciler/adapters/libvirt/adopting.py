"""Making a domain vcl's that somebody else made: blocking calls, run on worker threads.

SAFETY rule 9: what could start a second copy - autostart, the persistent definition - is gone before the
record says that the domain is vcl's. Invariant: a definition is on this node's disk, whole, before libvirt is
told to forget it; UEFI variables and TPM state are kept.
"""

from __future__ import annotations

import os
from pathlib import Path

import libvirt

from reconciler.adapters.libvirt import failures
from reconciler.adapters.libvirt.domains import by_name, is_active
from reconciler.adapters.libvirt.workers import Ticket
from reconciler.domainxml import metadata
from reconciler.domainxml.elements import child, children
from reconciler.domainxml.parse import DomainXmlInvalid, parse
from reconciler.domainxml.read import describe
from reconciler.resources.domains import Definition, Stranger
from reconciler.resources.errors import ControllerError, ControllerUnavailable, NotFound, NotOurs

_KEPT = "adopted"
_AUTOSTART = "<!-- autostart -->\n"
_RUNS = (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_BLOCKED, libvirt.VIR_DOMAIN_PAUSED)
_LIVE = libvirt.VIR_DOMAIN_AFFECT_LIVE
_ELEMENT = libvirt.VIR_DOMAIN_METADATA_ELEMENT
_KEEP_TPM = getattr(libvirt, "VIR_DOMAIN_UNDEFINE_KEEP_TPM", 0)  # since libvirt 8.9


def stranger(connection: libvirt.virConnect, name: str) -> Stranger | None:
    """The domain of that name, whoever made it; None when libvirtd says that there is none."""
    domain = by_name(connection, name)
    if domain is None:
        return None
    running = is_active(domain)
    text = domain.XMLDesc(0 if running else libvirt.VIR_DOMAIN_XML_INACTIVE)
    try:
        root = parse(text).root
    except DomainXmlInvalid as error:
        raise ControllerUnavailable(f"the XML of domain {name} cannot be read: {error}") from error
    facts = describe(root)
    mark = facts.ownership
    devices = child(root, "devices")
    copied = [disk for disk in children(devices, "disk") if child(disk, "mirror") is not None]
    return Stranger(
        name=name,
        uuid=domain.UUIDString(),
        running=running,
        writable=tuple(dict.fromkeys(facts.writable)),
        persistent=bool(domain.isPersistent()),
        uid=mark.uid if mark else "",
        cluster_uid=mark.cluster_uid if mark else "",
        node=mark.node if mark else "",
        obstacle=_obstacle(domain, name, running, bool(copied)),
    )


def _obstacle(domain: libvirt.virDomain, name: str, running: bool, copied: bool) -> str:
    """What would be lost, or get in the way, with its cure."""
    if domain.snapshotNum() > 0:
        return (
            "it has snapshots, which libvirt keeps only for domains that are defined: delete them "
            f"(virsh snapshot-list {name}), or their metadata (virsh snapshot-delete --metadata)"
        )
    if domain.isPersistent() and domain.hasManagedSaveImage():
        return f"its memory is saved on the host: let it go on (virsh start {name}) or drop that state"
    if not running:
        return ""
    if copied:
        return f"a block job is copying one of its disks: let it end, or end it (virsh blockjob {name})"
    state, _ = domain.state()
    if state not in _RUNS:
        return "it is shutting down or has crashed: wait until it is off, or end it"
    try:
        job = domain.jobInfo()[0]
    except libvirt.libvirtError as error:
        if not failures.is_answer(error):
            raise
        job = libvirt.VIR_DOMAIN_JOB_NONE
    if job != libvirt.VIR_DOMAIN_JOB_NONE:
        return f"libvirt is at work on it (virsh domjobinfo {name}): wait until that has ended"
    return ""


def take_over(connection: libvirt.virConnect, ticket: Ticket, definition: Definition, root: Path) -> None:
    """See Adopter. The mark comes first: a marked domain without a record is left alone by everybody."""
    name, uid = definition.name, definition.uid.lower()
    domain = _find(connection, name, uid)
    if is_active(domain):
        _mark(domain, ticket, definition)
    if not domain.isPersistent():
        return
    _keep(domain, _kept(root, name, uid))
    ticket.step()
    domain.setAutostart(0)
    ticket.step()
    domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM | _KEEP_TPM)


def give_back(connection: libvirt.virConnect, ticket: Ticket, name: str, uid: str, root: Path) -> None:
    """See Adopter."""
    kept = _kept(root, name, uid)
    text = kept.read_text(encoding="utf-8") if kept.exists() else ""
    domain = by_name(connection, name)
    if text and (domain is None or not domain.isPersistent()):
        ticket.step()
        connection.defineXML(text.removeprefix(_AUTOSTART))
    domain = _find(connection, name, uid)
    if text.startswith(_AUTOSTART):
        ticket.step()
        domain.setAutostart(1)
    if is_active(domain):
        ticket.step()
        try:
            domain.setMetadata(_ELEMENT, None, metadata.PREFIX, metadata.NAMESPACE, _LIVE)
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN_METADATA:
                raise


def _find(connection: libvirt.virConnect, name: str, uid: str) -> libvirt.virDomain:
    domain = by_name(connection, name)
    if domain is None:
        raise NotFound(f"libvirt knows no domain called {name}")
    if domain.UUIDString() != uid:
        raise NotOurs(f"the domain called {name} has the UUID {domain.UUIDString()}, not {uid}")
    return domain


def _mark(domain: libvirt.virDomain, ticket: Ticket, definition: Definition) -> None:
    if not definition.document:
        raise ControllerError(f"{definition.name} was started meanwhile", cure="run vcl adopt again")
    mark = metadata.ownership(definition.document)
    if mark is None:
        raise ControllerError(f"the definition of {definition.name} says nothing of its owner")
    ticket.step()
    domain.setMetadata(_ELEMENT, metadata.plain(mark), metadata.PREFIX, metadata.NAMESPACE, _LIVE)


def _kept(root: Path, name: str, uid: str) -> Path:
    return root / _KEPT / f"{name}-{uid}.xml"


def _keep(domain: libvirt.virDomain, path: Path) -> None:
    """The definition, with its passwords, where only root reads it; on disk when this returns."""
    secure = libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE
    text = (_AUTOSTART if domain.autostart() else "") + domain.XMLDesc(secure)
    scratch = path.with_suffix(".tmp")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise ControllerError(
            f"cannot keep the definition of {domain.name()} in {path}: {error.strerror}",
            cure="look at the space and the rights there",
        ) from error
