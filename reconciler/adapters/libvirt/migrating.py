"""Live migration by libvirt: peer to peer, between two libvirtds that reach each other.

Invariants (SAFETY rule 17): the copy arrives paused, with a mark until it is resumed, so that it is not taken
for one that a person paused; an error counts as heard only when libvirtd itself has said it; the call is
libvirtd's, and goes on without this daemon. libvirt has no door to shut: what arrives without being waited
for is paused, and the agent ends it as a copy that the records give to another node.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import libvirt

from reconciler.adapters.libvirt import doors, failures
from reconciler.adapters.libvirt.details import marked_arriving
from reconciler.adapters.libvirt.domains import by_name, by_uuid, is_active
from reconciler.adapters.libvirt.lifecycle import Lifecycle
from reconciler.adapters.libvirt.options import MigrationOptions
from reconciler.adapters.libvirt.pool import is_alive
from reconciler.adapters.libvirt.workers import Ticket
from reconciler.domainxml.handover import Place, handed_over
from reconciler.domainxml.host import HostProfile
from reconciler.domainxml.parse import DomainXmlInvalid
from reconciler.domainxml.read import DomainFacts, describe_xml
from reconciler.ports.migrator import Guest, HandOver
from reconciler.resources.domains import Gone
from reconciler.resources.errors import (
    ControllerUnavailable,
    InvalidInput,
    MigrationFailed,
    MigrationRefused,
    NotFound,
    VclError,
)
from reconciler.resources.migrations import Look, Progress

log = logging.getLogger(__name__)

ABORT_SECONDS = 10.0
HELD_MS = 2_000_000
"""How long a held guest may stand still, in milliseconds: the most that QEMU takes. The master ends it."""

_MIB = 1 << 20
_FLAGS = (
    libvirt.VIR_MIGRATE_LIVE
    | libvirt.VIR_MIGRATE_PEER2PEER
    | libvirt.VIR_MIGRATE_PAUSED
    | libvirt.VIR_MIGRATE_AUTO_CONVERGE
    | libvirt.VIR_MIGRATE_ABORT_ON_ERROR
)
_ARRIVING = frozenset((libvirt.VIR_DOMAIN_PAUSED_MIGRATION, libvirt.VIR_DOMAIN_PAUSED_STARTING_UP))
_BROKEN = frozenset((libvirt.VIR_DOMAIN_PAUSED_POSTCOPY, libvirt.VIR_DOMAIN_PAUSED_POSTCOPY_FAILED))
_JOBS = frozenset((libvirt.VIR_DOMAIN_JOB_BOUNDED, libvirt.VIR_DOMAIN_JOB_UNBOUNDED))


@dataclass(frozen=True, slots=True, kw_only=True)
class MigratingLifecycle(Lifecycle):
    """`ResourceController` and `Migrator`. `migration`: how other hosts reach this one."""

    node: str
    migration: MigrationOptions
    calls: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    async def offer(self, guest: Guest, *, timeout: float) -> str:
        """See Migrator."""
        return await self.link.run(
            lambda connection, _: _offer(connection, guest), timeout=timeout, what=f"read {guest.name}"
        )

    async def let_in(self, guest: Guest, offer: str, *, timeout: float) -> str:
        """See Migrator. Makes the directories that the guest's files go to."""
        given = doors.offer(offer)
        if not self.migration.connect or not self.migration.data:
            raise MigrationRefused(
                "this node has no address for migrations",
                cure="set `address` in vcld.yaml, or controllers.libvirt.migration.connect and .data",
            )
        profile = await self.profile(timeout)
        await self.link.run(
            lambda connection, ticket: self._admit(connection, ticket, guest, given, profile),
            timeout=timeout,
            what=f"make ready for {guest.name}",
        )
        return doors.text(
            doors.Door(
                connect=self.migration.connect,
                data=self.migration.data,
                tls=self.migration.tls,
                node=self.node,
                root=str(self.files.root),
            )
        )

    async def shut(self, guest: Guest, *, timeout: float) -> None:
        """See Migrator. Nothing: see the module."""

    async def hand_over(self, order: HandOver, *, timeout: float) -> None:
        """See Migrator."""
        door, guest = doors.door(order.door), order.guest
        with self.lock:
            self.calls[guest.uid] += 1
        clock = asyncio.get_running_loop().time
        ends = clock() + timeout
        try:
            await self.link.run(
                lambda connection, ticket: self._hand_over(connection, ticket, order, door),
                timeout=timeout,
                what=f"migrate {guest.name}",
                ended=lambda: self._returned(guest.uid),
            )
        except ControllerUnavailable:
            if clock() >= ends:
                with contextlib.suppress(VclError):
                    await self.abort(guest, timeout=ABORT_SECONDS)
            raise

    async def job(self, guest: Guest, *, timeout: float) -> Progress | None:
        """See Migrator."""
        with self.lock:
            calling = self.calls[guest.uid] > 0
        found = await self.link.run(
            lambda connection, _: _job(connection, guest), timeout=timeout, what=f"ask how {guest.name} moves"
        )
        return found if found is not None or not calling else Progress()

    async def hold(self, guest: Guest, *, timeout: float) -> None:
        """See Migrator."""
        await self.link.run(
            lambda connection, ticket: _hold(connection, ticket, guest),
            timeout=timeout,
            what=f"hold {guest.name} for its migration",
        )

    async def abort(self, guest: Guest, *, timeout: float) -> None:
        """See Migrator."""
        await self.link.run(
            lambda connection, ticket: _abort(connection, ticket, guest),
            timeout=timeout,
            what=f"end the migration of {guest.name}",
        )

    async def look(self, guest: Guest, *, timeout: float) -> Look:
        """See Migrator."""
        if isinstance(await self.observe(guest.name, uid=guest.uid, timeout=timeout), Gone):
            return Look.ABSENT
        return await self.link.run(
            lambda connection, _: self._look(connection, guest), timeout=timeout, what=f"look at {guest.name}"
        )

    # On worker threads from here on.

    def _returned(self, uid: str) -> None:
        with self.lock:
            self.calls[uid] -= 1

    def _admit(
        self,
        connection: libvirt.virConnect,
        ticket: Ticket,
        guest: Guest,
        given: doors.Offer,
        profile: HostProfile,
    ) -> None:
        facts = _facts(given.document)
        holder = by_name(connection, guest.name)
        if holder is not None and holder.UUIDString() != guest.uid:
            raise MigrationRefused(
                f"libvirt has another domain called {guest.name} here",
                cure=f"rename the VM, or remove that domain (virsh undefine {guest.name})",
            )
        if facts.virtualization != profile.virtualization:
            raise MigrationRefused(
                f"it runs with {facts.virtualization}, and this node's guests with {profile.virtualization}"
            )
        _compare_cpu(connection, given, facts, profile)
        ticket.step()
        try:
            self.files.make_directories(given.document)
            self.files.trim_log(guest.name)
        except OSError as error:
            raise MigrationRefused(f"cannot write {error.filename}: {error.strerror}") from error

    def _hand_over(
        self, connection: libvirt.virConnect, ticket: Ticket, order: HandOver, door: doors.Door
    ) -> None:
        guest = order.guest
        domain = _running(connection, guest)
        try:
            document = self._for_target(domain, door)
        except (DomainXmlInvalid, InvalidInput) as error:
            raise MigrationRefused(f"cannot migrate {guest.name}: {error}") from error
        wanted: dict[str, object] = {
            libvirt.VIR_MIGRATE_PARAM_URI: door.data,
            libvirt.VIR_MIGRATE_PARAM_DEST_XML: document,
        }
        if order.bandwidth:
            wanted[libvirt.VIR_MIGRATE_PARAM_BANDWIDTH] = max(1, order.bandwidth // _MIB)
        flags = _FLAGS | (libvirt.VIR_MIGRATE_TLS if door.tls else 0)
        if domain.isPersistent():
            flags |= libvirt.VIR_MIGRATE_UNDEFINE_SOURCE
        ticket.step()
        try:
            domain.migrateToURI3(door.connect, wanted, flags)
        except libvirt.libvirtError as error:
            if not is_alive(connection):
                raise  # made up by the library here: nobody has said how it ended
            raise MigrationFailed(f"cannot migrate {guest.name}: {failures.text(error)}") from error
        finally:
            self.cache.forget(guest.uid)

    def _for_target(self, domain: libvirt.virDomain, door: doors.Door) -> str:
        live = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_MIGRATABLE | libvirt.VIR_DOMAIN_XML_SECURE)
        here = Place(node=self.node, root=str(self.files.root))
        return marked_arriving(handed_over(live, here, door.place))

    def _look(self, connection: libvirt.virConnect, guest: Guest) -> Look:
        domain = _running(connection, guest)
        state, reason = domain.state()
        self.cache.forget(guest.uid)
        arrived = self.cache.details(domain, None).arrived
        if state == libvirt.VIR_DOMAIN_SHUTOFF:
            return Look.INCOMING  # active all the same: it is being made
        if state != libvirt.VIR_DOMAIN_PAUSED:
            return Look.RUNNING
        if reason in _BROKEN:
            return Look.BROKEN
        if reason in _ARRIVING:
            return Look.INCOMING if arrived else Look.PAUSED
        return Look.READY if arrived else Look.RUNNING


def _running(connection: libvirt.virConnect, guest: Guest) -> libvirt.virDomain:
    domain = by_uuid(connection, guest.uid)
    if domain is None or not is_active(domain):
        raise NotFound(f"libvirt does not run {guest.name}")
    return domain


def _facts(document: str) -> DomainFacts:
    try:
        return describe_xml(document)
    except DomainXmlInvalid as error:
        raise MigrationRefused(f"its definition cannot be read: {error}") from error


def _offer(connection: libvirt.virConnect, guest: Guest) -> str:
    document = _running(connection, guest).XMLDesc(libvirt.VIR_DOMAIN_XML_MIGRATABLE)
    facts = _facts(document)
    if facts.host_devices:
        raise MigrationRefused(f"it has {facts.host_devices} device(s) of this host")
    cpu = ET.fromstring(connection.getCapabilities()).find("host/cpu")
    return doors.text(
        doors.Offer(
            document=document, host_cpu=ET.tostring(cpu, encoding="unicode") if cpu is not None else ""
        )
    )


def _compare_cpu(
    connection: libvirt.virConnect, given: doors.Offer, facts: DomainFacts, profile: HostProfile
) -> None:
    """Refuse before anything begins. What libvirt cannot compare, it judges itself when the guest comes."""
    cpu = ET.fromstring(given.document).find("cpu")
    mode = cpu.get("mode", "custom") if cpu is not None else ""
    try:
        if mode == "custom" and cpu is not None:
            result = connection.compareHypervisorCPU(
                profile.emulator or None,
                facts.architecture or None,
                facts.machine or None,
                facts.virtualization or None,
                ET.tostring(cpu, encoding="unicode"),
                0,
            )
        elif mode == "host-passthrough" and given.host_cpu:
            result = connection.compareCPU(given.host_cpu, 0)
        else:
            return
    except libvirt.libvirtError as error:
        if not failures.is_answer(error):
            raise
        log.info("the CPU of a guest cannot be compared: %s", failures.text(error))
        return
    if result == libvirt.VIR_CPU_COMPARE_INCOMPATIBLE:
        model = facts.cpu_model or facts.cpu_mode
        raise MigrationRefused(
            f"its CPU ({model}) has features that this node's has not",
            cure="give it a cpu.model that all nodes have, and restart it",
        )


def _job(connection: libvirt.virConnect, guest: Guest) -> Progress | None:
    domain = by_uuid(connection, guest.uid)
    if domain is None or not is_active(domain):
        return None
    try:
        stats = domain.jobStats()
    except libvirt.libvirtError as error:
        if failures.is_missing(error) or error.get_error_code() == libvirt.VIR_ERR_OPERATION_INVALID:
            return None  # it has just ended here
        raise
    operation = stats.get("operation", libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT)
    if stats.get("type") not in _JOBS or operation != libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT:
        return None
    return Progress(
        total=int(stats.get("memory_total", 0)),
        left=int(stats.get("memory_remaining", 0)),
        rate=int(stats.get("memory_bps", 0)),
        downtime=float(stats.get("downtime", 0)) / 1000,
    )


def _hold(connection: libvirt.virConnect, ticket: Ticket, guest: Guest) -> None:
    _to_job(connection, ticket, guest, lambda domain: domain.migrateSetMaxDowntime(HELD_MS))


def _abort(connection: libvirt.virConnect, ticket: Ticket, guest: Guest) -> None:
    _to_job(connection, ticket, guest, lambda domain: domain.abortJob())


def _to_job(
    connection: libvirt.virConnect,
    ticket: Ticket,
    guest: Guest,
    action: Callable[[libvirt.virDomain], object],
) -> None:
    """Unless it has none, or none any more."""
    domain = by_uuid(connection, guest.uid)
    if domain is None or _job(connection, guest) is None:
        return
    ticket.step()
    try:
        action(domain)
    except libvirt.libvirtError as error:
        over = failures.is_missing(error) or error.get_error_code() == libvirt.VIR_ERR_OPERATION_INVALID
        if not over:
            raise
