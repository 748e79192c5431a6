"""From a VirtualMachine's spec to libvirt's domain XML: `build(request, host, paths) -> Definition`.

One way for both kinds of VM: the user's own domainXML, or else vcl's skeleton, is the base that the spec is
laid over, step by step. Pure: the same arguments give the same bytes. What the guest may write is read back
from the final XML (SAFETY rule 6), never collected on the way.
"""

from __future__ import annotations

import hashlib
import posixpath
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Mapping

from reconciler.domainxml import capacity, disks, essentials, interfaces, machine, metadata, seed
from reconciler.domainxml.draft import Draft, start
from reconciler.domainxml.host import GuestPaths, HostProfile, UefiFirmware
from reconciler.domainxml.parse import parse, serialize, unprintable
from reconciler.domainxml.read import DomainFacts, describe
from reconciler.resources.domains import Definition, StartRequest

__all__ = ["GuestPaths", "HostProfile", "UefiFirmware", "build"]


def build(request: StartRequest, host: HostProfile, paths: GuestPaths) -> Definition:
    """The final definition of a VM on this host.

    Raises StartFailed with a reason: InvalidDomainXML (the user's XML, with its line), InvalidSpec,
    FirmwareMissing, DiskMissing, DiskConflict.
    """
    draft = start(request, host, paths)
    metadata.clear(draft.root)
    machine.identify(draft)
    capacity.vcpus(draft)
    cpu = capacity.model(draft)
    capacity.memory(draft)
    machine_type = machine.boot(draft)
    disks.overlay_disks(draft)
    disks.add_seed(draft)
    interfaces.overlay_interfaces(draft)
    essentials.ensure_console(draft)
    essentials.ensure_agent(draft)
    essentials.spare_ports(draft, machine_type)
    _check_characters(draft)
    facts = describe(draft.root)
    _check_disks(draft, facts)
    files = seed.seed_files(request)
    metadata.put(draft.root, _mark(draft, cpu, files))
    return Definition(
        name=request.name,
        uid=request.uid,
        document=serialize(draft.root),
        machine=machine_type,
        writable=facts.writable,
        seed=files,
    )


def _mark(draft: Draft, cpu: str, files: Mapping[str, str]) -> metadata.Ownership:
    request = draft.request
    return metadata.Ownership(
        cluster_uid=request.cluster_uid,
        node=request.node,
        uid=request.uid,
        name=request.name,
        generation=request.generation,
        spec=_digest(serialize(draft.root)),
        base=base_digest(request.spec.domain_xml),
        seed=seed.digest(files),
        cpu=cpu,
    )


def base_digest(domain_xml: str | None) -> str:
    """A digest of what a user's XML means: comments and indentation do not count. '' without one."""
    if domain_xml is None:
        return ""
    plain = ET.tostring(parse(domain_xml).root, encoding="unicode")
    return _digest(ET.canonicalize(plain, strip_text=True))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _check_characters(draft: Draft) -> None:
    bad = unprintable(draft.root)
    if bad is not None:
        raise draft.refuse(
            f"{bad[0]}: the character {bad[1]} cannot be written in XML", cure="remove it from the spec"
        )


def _check_disks(draft: Draft, facts: DomainFacts) -> None:
    """One image twice in one VM is two writers, too."""
    counts = Counter(posixpath.normpath(path) for path in facts.writable)
    for path, count in sorted(counts.items()):
        if count > 1:
            raise draft.refuse(
                f"{path} is attached {count} times to this VM, writable",
                reason="DiskConflict",
                cure="attach it once, or give each disk an image of its own",
            )
