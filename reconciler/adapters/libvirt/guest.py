"""Looking into a running guest: what is not known is empty, and nothing waits long for a guest's agent."""

from __future__ import annotations

import ipaddress
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import libvirt
import libvirt_qemu

from reconciler.adapters.libvirt import failures
from reconciler.adapters.libvirt.domains import by_name
from reconciler.adapters.libvirt.link import Link
from reconciler.domainxml.parse import DomainXmlInvalid
from reconciler.domainxml.read import VncFacts, describe_xml
from reconciler.resources.domains import AgentPing, GuestInfo
from reconciler.resources.errors import ControllerUnavailable, NotFound

_AGENT_SECONDS = 2
_SOURCES = (
    libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT,
    libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE,
    libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_ARP,
)


class Boots:
    """Counts what makes a guest's agent fall silent without a hang: its reboots, and lost connections."""

    def __init__(self) -> None:
        self._rebooted: Counter[str] = Counter()
        self._connected = 0

    def rebooted(self, uuid: str) -> None:
        self._rebooted[uuid] += 1

    def ended(self, uuid: str) -> None:
        self._rebooted.pop(uuid, None)

    def reconnected(self) -> None:
        """libvirtd was away; if it was restarted, it looks for the agents anew."""
        self._connected += 1

    def of(self, uuid: str) -> str:
        return f"{self._connected}.{self._rebooted[uuid]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LibvirtGuest:
    """The Guest port."""

    link: Link
    boots: Boots = field(default_factory=Boots)

    async def info(self, name: str, *, timeout: float) -> GuestInfo:
        """See Guest. Addresses come from the agent, else from a DHCP lease, else from the ARP table.
        NotFound when there is no such domain."""
        return await self.link.run(
            lambda connection, _: _info(connection, name), timeout=timeout, what=f"look into {name}"
        )

    async def set_clock(self, name: str, *, timeout: float) -> None:
        """See GuestClock: the guest's agent sets its clock by the hardware clock, which went on."""
        await self.link.run(
            lambda connection, _: _set_clock(connection, name),
            timeout=timeout,
            what=f"set the clock of {name}",
        )

    async def ping(self, name: str, *, timeout: float) -> AgentPing:
        """See GuestPinger. libvirt first synchronises with the agent, which may take `timeout` as well."""
        return await self.link.run(
            lambda connection, _: _ping(connection, self.boots, name, max(1, int(timeout))),
            timeout=3 * timeout + _AGENT_SECONDS,
            what=f"ask the agent of {name}",
        )


def _set_clock(connection: libvirt.virConnect, name: str) -> None:
    domain = by_name(connection, name)
    if domain is None or not domain.isActive():
        raise NotFound(f"libvirt runs no domain called {name}")
    try:
        domain.agentSetResponseTimeout(_AGENT_SECONDS, 0)
        domain.setTime(None, libvirt.VIR_DOMAIN_TIME_SYNC)
    except libvirt.libvirtError as error:
        if not failures.is_answer(error):
            raise
        raise ControllerUnavailable(f"the guest {name} did not set its clock: {error}") from error


def _ping(connection: libvirt.virConnect, boots: Boots, name: str, seconds: int) -> AgentPing:
    domain = by_name(connection, name)
    if domain is None or not domain.isActive():
        raise NotFound(f"libvirt runs no domain called {name}")
    run, boot = domain.ID(), boots.of(domain.UUIDString())
    answered = True
    try:
        domain.agentSetResponseTimeout(seconds, 0)
        libvirt_qemu.qemuAgentCommand(domain, '{"execute":"guest-ping"}', seconds, 0)
    except libvirt.libvirtError as error:
        # "due to an error": libvirtd itself could not connect to the agent's channel.
        silent = error.get_error_code() == libvirt.VIR_ERR_AGENT_UNRESPONSIVE
        if not silent or not failures.is_answer(error) or "due to an error" in failures.text(error):
            raise
        answered = False
    if domain.ID() != run or domain.state()[0] != libvirt.VIR_DOMAIN_RUNNING:
        raise ControllerUnavailable(f"{name} was paused or started anew while its agent was asked")
    return AgentPing(answered=answered, boot=f"{run}.{boot}")


def _info(connection: libvirt.virConnect, name: str) -> GuestInfo:
    domain = by_name(connection, name)
    if domain is None or not domain.isActive():
        raise NotFound(f"libvirt runs no domain called {name}")
    try:
        facts = describe_xml(domain.XMLDesc(0))
    except DomainXmlInvalid as error:
        raise ControllerUnavailable(f"the XML of domain {name} cannot be read: {error}") from error
    running = domain.state()[0] == libvirt.VIR_DOMAIN_RUNNING
    sources = _SOURCES if running and facts.agent_connected else _SOURCES[1:]
    return GuestInfo(
        ip_addresses=_addresses(connection, domain, sources),
        agent_connected=facts.agent_connected,
        vnc=_vnc(facts.vnc),
    )


def _addresses(
    connection: libvirt.virConnect, domain: libvirt.virDomain, sources: tuple[int, ...]
) -> tuple[str, ...]:
    """Of the first source that knows any."""
    for source in sources:
        try:
            if source == libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT:
                domain.agentSetResponseTimeout(_AGENT_SECONDS, 0)
            found = usable(domain.interfaceAddresses(source))
        except libvirt.libvirtError as error:
            if failures.is_missing(error) or not failures.is_answer(error):
                raise
            continue  # this source cannot tell: no agent, no libvirt network
        if found:
            return found
    return ()


def usable(interfaces: dict[str, Any] | None) -> tuple[str, ...]:
    """Addresses in libvirt's answer that others can reach: IPv4 first, without loopback and link-local."""
    found = set()
    for interface in (interfaces or {}).values():
        for entry in interface.get("addrs") or ():
            try:
                address = ipaddress.ip_address(entry["addr"])
            except ValueError:
                continue
            if not (address.is_loopback or address.is_link_local or address.is_unspecified):
                found.add(address)
    return tuple(str(a) for a in sorted(found, key=lambda a: (a.version, int(a))))


def _vnc(vnc: VncFacts | None) -> str | None:
    if vnc is None:
        return None
    if vnc.port:
        host = vnc.host or "127.0.0.1"
        return f"[{host}]:{vnc.port}" if ":" in host else f"{host}:{vnc.port}"
    return f"unix:{vnc.socket}" if vnc.socket else None
