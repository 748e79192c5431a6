"""Finding domains: the blocking half of `observe`, `inventory` and `create`, run on worker threads.

Invariant: absent is said only of what libvirtd answered "no such domain" to, or knows as shut off.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import libvirt

from reconciler.adapters.libvirt import failures
from reconciler.adapters.libvirt.details import DetailsCache, Flags, observed
from reconciler.adapters.libvirt.processes import Process, Processes
from reconciler.resources.domains import Observed

_LISTED = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE
_NOWAIT = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """Reads domains through a connection that the caller passes in. Raises libvirtError."""

    cache: DetailsCache
    processes: Processes

    def inventory(self, connection: libvirt.virConnect) -> tuple[Observed, ...]:
        """Every active domain, sorted by name: a handful of calls for any number of them. The processes are
        listed last, so that what is in the list and alive has its process found."""
        listed = connection.getAllDomainStats(libvirt.VIR_DOMAIN_STATS_STATE, _LISTED | _NOWAIT)
        active = libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE
        persistent = _uuids(connection, active | libvirt.VIR_CONNECT_LIST_DOMAINS_PERSISTENT)
        autostart = _uuids(connection, active | libvirt.VIR_CONNECT_LIST_DOMAINS_AUTOSTART)
        found = self.processes.scan()
        seen = []
        for domain, stats in listed:
            uuid = domain.UUIDString()
            flags = Flags(
                state=stats.get("state.state", libvirt.VIR_DOMAIN_NOSTATE),
                reason=stats.get("state.reason", 0),
                persistent=uuid in persistent,
                autostart=uuid in autostart,
            )
            one = self._observed(domain, flags, found)
            if one is not None:
                seen.append(one)
        self.cache.keep_only({domain.UUIDString() for domain, _ in listed})
        return tuple(sorted(seen, key=lambda one: one.name))

    def observe(self, domain: libvirt.virDomain) -> Observed | None:
        """One active domain; None when it has ended meanwhile, or is only defined."""
        try:
            if not domain.isActive():
                return None
            state, reason = domain.state()
            flags = Flags(
                state=state,
                reason=reason,
                persistent=bool(domain.isPersistent()),
                autostart=bool(domain.autostart()),
            )
        except libvirt.libvirtError as error:
            if failures.is_missing(error):
                return None
            raise
        if state == libvirt.VIR_DOMAIN_SHUTOFF and not is_active(domain):
            return None
        return self._observed(domain, flags, None)

    def _observed(
        self, domain: libvirt.virDomain, flags: Flags, found: Mapping[str, tuple[Process, ...]] | None
    ) -> Observed | None:
        try:
            details = self.cache.details(domain, found)
        except libvirt.libvirtError as error:
            if failures.is_missing(error):
                return None
            raise
        return observed(domain.name(), details, flags)


def by_name(connection: libvirt.virConnect, name: str) -> libvirt.virDomain | None:
    """The domain of that name, active or only defined; None when libvirtd says that there is none."""
    try:
        return connection.lookupByName(name)
    except libvirt.libvirtError as error:
        if failures.is_missing(error):
            return None
        raise


def by_uuid(connection: libvirt.virConnect, uuid: str) -> libvirt.virDomain | None:
    """The domain of that UUID, active or only defined; None when libvirtd says that there is none."""
    try:
        return connection.lookupByUUIDString(uuid)
    except libvirt.libvirtError as error:
        if failures.is_missing(error) or error.get_error_code() == libvirt.VIR_ERR_INVALID_ARG:
            return None
        raise


def is_active(domain: libvirt.virDomain) -> bool:
    """Whether it runs; one that ended since it was looked up does not."""
    try:
        return bool(domain.isActive())
    except libvirt.libvirtError as error:
        if failures.is_missing(error):
            return False
        raise


def _uuids(connection: libvirt.virConnect, flags: int) -> set[str]:
    return {domain.UUIDString() for domain in connection.listAllDomains(flags)}
