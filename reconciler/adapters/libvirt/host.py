"""The node as libvirt sees it: its size, and the profile that definitions are made for.

The profile is read once per connection; the choice between KVM and QEMU's own emulation is proven once per
boot (see `prove`) or pinned by configuration.
"""

from __future__ import annotations

import asyncio
import logging
import platform
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import libvirt

from reconciler.adapters.libvirt import failures, prove
from reconciler.adapters.libvirt.bridges import bridges
from reconciler.adapters.libvirt.link import Link
from reconciler.adapters.libvirt.options import Options, Virtualization
from reconciler.domainxml.host import HostProfile, UefiFirmware
from reconciler.resources.domains import HostFacts, HostNetworks, host_networks
from reconciler.resources.errors import ControllerUnavailable

log = logging.getLogger(__name__)

_VERSION_STEP = 1000
# Code and template of the variables, as Debian, Fedora, Arch and Gentoo install them.
_UEFI = (
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd", "raw"),
    ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd", "raw"),
    ("/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd", "raw"),
    ("/usr/share/edk2/ovmf/OVMF_CODE_4M.qcow2", "/usr/share/edk2/ovmf/OVMF_VARS_4M.qcow2", "qcow2"),
    ("/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd", "raw"),
    ("/usr/share/edk2-ovmf/x64/OVMF_CODE.fd", "/usr/share/edk2-ovmf/x64/OVMF_VARS.fd", "raw"),
    ("/usr/share/edk2-ovmf/OVMF_CODE.fd", "/usr/share/edk2-ovmf/OVMF_VARS.fd", "raw"),
    ("/usr/share/AAVMF/AAVMF_CODE.fd", "/usr/share/AAVMF/AAVMF_VARS.fd", "raw"),
)


class LibvirtHost:
    """The Host port, and the source of profiles."""

    def __init__(self, link: Link, options: Options, state_dir: Path) -> None:
        self._link = link
        self._options = options
        self._cache = state_dir / "kvm-proof.json"
        self._kind: asyncio.Task[Literal["kvm", "qemu"]] | None = None
        self._warming: asyncio.Task[None] | None = None
        self._profile: tuple[int, HostProfile] | None = None

    async def facts(self, *, timeout: float) -> HostFacts:
        """See Host."""
        profile = await self.profile(timeout)
        return await self._link.run(
            lambda connection, _: _facts(connection, profile), timeout=timeout, what="ask for the host"
        )

    async def profile(self, timeout: float) -> HostProfile:
        """What definitions are made for. ControllerUnavailable while libvirtd does not answer, or the proof
        of KVM takes longer than `timeout`."""
        session = await self._link.session(timeout=timeout)
        if self._profile is not None and self._profile[0] == session.epoch.number:
            return self._profile[1]
        text = await self._link.run(
            lambda connection, _: connection.getCapabilities(),
            timeout=timeout,
            what="ask for the host's abilities",
            session=session,
        )
        architecture, emulator, machines = machine_types(text)
        kind = await self._virtualization(emulator, timeout)
        profile = HostProfile(
            virtualization=kind,
            architecture=architecture,
            machine_types=machines,
            emulator=emulator,
            uefi=await asyncio.to_thread(find_uefi),
        )
        self._profile = (session.epoch.number, profile)
        return profile

    def begin(self) -> None:
        """Make the profile before the first VM asks for it: a proof that fails takes its time."""
        self._warming = asyncio.create_task(self._warm())

    async def close(self) -> None:
        """Wait for a proof that is under way: its QEMU ends with it."""
        if self._warming is not None:
            self._warming.cancel()
        if self._kind is not None:
            await asyncio.wait([self._kind], timeout=3 * prove.DEADLINE)

    async def _warm(self) -> None:
        try:
            await self.profile(2 * prove.DEADLINE)
        except ControllerUnavailable as error:
            log.info("libvirt: the host's abilities are asked for later: %s", error)

    async def _virtualization(self, emulator: str, timeout: float) -> Literal["kvm", "qemu"]:
        if self._options.virtualization is Virtualization.KVM:
            return "kvm"
        if self._options.virtualization is Virtualization.QEMU:
            return "qemu"
        if self._kind is None:
            self._kind = asyncio.create_task(self._prove(emulator))
        try:
            async with asyncio.timeout(timeout):
                return await asyncio.shield(self._kind)
        except TimeoutError as error:
            raise ControllerUnavailable(
                f"whether KVM works here is not known after {timeout:g} s",
                cure="wait, or set controllers.libvirt.virtualization to kvm or qemu",
            ) from error

    async def _prove(self, emulator: str) -> Literal["kvm", "qemu"]:
        proof = await asyncio.to_thread(prove.kvm, emulator, self._cache)
        return "kvm" if proof.works else "qemu"


def _facts(connection: libvirt.virConnect, profile: HostProfile) -> HostFacts:
    _, mebibytes, cpus, *_ = connection.getInfo()
    version = connection.getVersion()
    parts = (version // _VERSION_STEP**2, version // _VERSION_STEP % _VERSION_STEP, version % _VERSION_STEP)
    return HostFacts(
        cpus=cpus,
        memory=mebibytes << 20,
        hypervisor=f"{connection.getType()} {'.'.join(map(str, parts))}",
        architecture=profile.architecture,
        virtualization=profile.virtualization,
        nvram_template=profile.uefi.nvram_template if profile.uefi is not None else "",
        networks=_networks(connection),
    )


def _networks(connection: libvirt.virConnect) -> HostNetworks:
    """Of the host that libvirtd is on; what cannot be told is not known."""
    try:
        active: list[str] | None = connection.listNetworks()
    except libvirt.libvirtError as error:
        if not failures.is_answer(error):
            raise
        active = None  # a libvirt without networks
    here = not urlsplit(connection.getURI()).hostname
    try:
        found = bridges() if here else None
    except OSError as error:
        log.warning("libvirt: the host's bridges cannot be listed: %s", error)
        found = None
    return host_networks(found, active)


def machine_types(capabilities: str) -> tuple[str, str, dict[str, str]]:
    """(architecture, emulator, alias -> canonical machine type) of this machine's own architecture, from
    libvirt's capabilities. Raises ControllerUnavailable when it has no QEMU."""
    wanted = platform.machine()
    for arch in ET.fromstring(capabilities).iterfind("guest/arch"):
        if arch.get("name") != wanted:
            continue
        emulator = arch.findtext("emulator", "")
        machines = {}
        for machine in arch.iter("machine"):
            name = (machine.text or "").strip()
            if name and machine.get("canonical"):
                machines[name] = str(machine.get("canonical"))
        if emulator:
            return wanted, emulator, machines
    raise ControllerUnavailable(
        f"libvirt has no QEMU for {wanted} on this node",
        cure="install it (Debian, Ubuntu: qemu-system-x86; Fedora: qemu-kvm; Gentoo: app-emulation/qemu)",
    )


def find_uefi() -> UefiFirmware | None:
    """The first known firmware (without secure boot) whose files are on this machine."""
    for loader, template, form in _UEFI:
        if Path(loader).exists() and Path(template).exists():
            return UefiFirmware(loader=loader, nvram_template=template, format=form)
    return None
