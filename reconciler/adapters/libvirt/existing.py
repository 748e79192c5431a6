"""Reads the domains of any libvirt, local or remote, for `vcl adopt`.

Invariant: the connection is read-only. What is read is what a start would use, the definition as it is kept,
without passwords; and of a domain that runs, its run (which has the firmware that libvirt chose).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from reconciler.resources.errors import ControllerError, ControllerUnavailable


@dataclass(frozen=True, slots=True, kw_only=True)
class ExistingDomain:
    """`document`: its definition; `live`: the XML of its run, empty when it is off."""

    name: str
    document: str
    live: str = ""


def read_domains(uri: str, names: Sequence[str]) -> tuple[ExistingDomain, ...]:
    """The domains of these names, or all, sorted; without those that there are not.

    Blocks for as long as libvirt takes. Raises ControllerUnavailable when it cannot be reached, and
    ControllerError without the Python bindings.
    """
    try:
        import libvirt
    except ImportError as error:
        raise ControllerError(
            f"the Python bindings of libvirt cannot be loaded: {error}",
            cure="install python3-libvirt, or give XML files: virsh dumpxml --inactive NAME > NAME.xml",
        ) from error
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    try:
        connection = libvirt.openReadOnly(uri)
        try:
            found = {domain.name(): domain for domain in connection.listAllDomains()}
            wanted = sorted(set(names)) or sorted(found)
            read = tuple(_read(libvirt, found[name]) for name in wanted if name in found)
        finally:
            connection.close()
    except libvirt.libvirtError as error:
        raise ControllerUnavailable(
            f"cannot read the domains of {uri}: {error.get_error_message() or error}",
            cure=f"try: virsh -r -c {uri} list --all",
        ) from error
    return read


def _read(libvirt: Any, domain: Any) -> ExistingDomain:
    running = bool(domain.isActive())
    return ExistingDomain(
        name=domain.name(),
        document=domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE),
        live=domain.XMLDesc(0) if running else "",
    )
