"""A definition in the making: the tree that the steps of `build` change, and all that they may look at.

The tree starts as a user's own domainXML or as vcl's skeleton. One rule decides between the two sources of
every value: what the spec says, holds; a spec field left at its default does not overrule the user's XML.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass
from typing import Literal

from reconciler.domainxml.elements import section
from reconciler.domainxml.host import GuestPaths, HostProfile
from reconciler.domainxml.parse import Document, DomainXmlInvalid, parse
from reconciler.resources.domains import StartRequest
from reconciler.resources.errors import StartFailed
from reconciler.resources.virtualmachine import VirtualMachineSpec

Reason = Literal["InvalidDomainXML", "InvalidSpec", "FirmwareMissing", "DiskMissing", "DiskConflict"]

SKELETON = """\
<domain>
  <name/>
  <uuid/>
  <memory/>
  <currentMemory/>
  <vcpu placement="static"/>
  <os>
    <type>hvm</type>
  </os>
  <features>
    <acpi/>
    <apic/>
  </features>
  <cpu/>
  <clock offset="utc">
    <timer name="rtc" tickpolicy="catchup"/>
    <timer name="pit" tickpolicy="delay"/>
    <timer name="hpet" present="no"/>
  </clock>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <pm>
    <suspend-to-mem enabled="no"/>
    <suspend-to-disk enabled="no"/>
  </pm>
  <devices>
    <controller type="usb" index="0" model="qemu-xhci"/>
    <input type="tablet" bus="usb"/>
    <graphics type="vnc" port="-1" autoport="yes" listen="127.0.0.1">
      <listen type="address" address="127.0.0.1"/>
    </graphics>
    <video>
      <model type="vga"/>
    </video>
    <memballoon model="virtio">
      <stats period="10"/>
    </memballoon>
    <rng model="virtio">
      <backend model="random">/dev/urandom</backend>
    </rng>
    <panic model="isa"/>
  </devices>
</domain>
"""
"""A VM without domainXML before its spec is laid over it. panic 'isa' is pvpanic on a PC: a kernel that
panics ends the domain (on_crash) instead of hanging, and vcl then follows runStrategy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """`own`: the tree started as the user's domainXML."""

    request: StartRequest
    host: HostProfile
    paths: GuestPaths
    document: Document
    own: bool

    @property
    def root(self) -> ET.Element:
        return self.document.root

    @property
    def spec(self) -> VirtualMachineSpec:
        return self.request.spec

    @property
    def devices(self) -> ET.Element:
        return section(self.root, "devices")

    def refuse(
        self, message: str, *, at: ET.Element | None = None, reason: Reason = "InvalidSpec", cure: str = ""
    ) -> StartFailed:
        """The error to raise. With `at`, an element of the user's XML, it names its line."""
        line = self.document.line(at) if self.own else 0
        if not line:
            return StartFailed(message, reason=reason, cure=cure)
        return StartFailed(f"spec.domainXML: line {line}: {message}", reason="InvalidDomainXML", cure=cure)


def start(request: StartRequest, host: HostProfile, paths: GuestPaths) -> Draft:
    """The tree that the spec goes over. Raises StartFailed when domainXML cannot be used."""
    text = request.spec.domain_xml
    if text is None:
        return Draft(request=request, host=host, paths=paths, document=parse(SKELETON), own=False)
    try:
        document = parse(text)
    except DomainXmlInvalid as error:
        raise StartFailed(
            "spec.domainXML: " + "; ".join(error.problems),
            reason="InvalidDomainXML",
            cure="correct it in the manifest (`virsh dumpxml --inactive` prints a definition that works)",
        ) from error
    return Draft(request=request, host=host, paths=paths, document=document, own=True)
