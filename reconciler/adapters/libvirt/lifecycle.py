"""The ResourceController of libvirt: transient domains, created paused.

SAFETY rules 5, 7 and 9 live here: see `Outstanding` for calls that may still take effect, `Processes` for the
proof of death, and `destroy`, which ends a domain by its UUID or not at all.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import libvirt

from reconciler.adapters.libvirt import adopting, changing, endings, failures
from reconciler.adapters.libvirt.details import (
    ARRIVED_KEY,
    ARRIVED_NAMESPACE,
    ISOLATED_KEY,
    ISOLATED_NAMESPACE,
    STARTING_KEY,
    STARTING_NAMESPACE,
    DetailsCache,
    marked_starting,
)
from reconciler.adapters.libvirt.domains import Reader, by_name, by_uuid, is_active
from reconciler.adapters.libvirt.files import Files
from reconciler.adapters.libvirt.hints import Ends, Hints
from reconciler.adapters.libvirt.link import Link, Session
from reconciler.adapters.libvirt.options import Options
from reconciler.adapters.libvirt.outstanding import Call, Epoch, Outstanding
from reconciler.adapters.libvirt.processes import Processes
from reconciler.adapters.libvirt.workers import Ticket
from reconciler.domainxml.build import build
from reconciler.domainxml.host import HostProfile
from reconciler.domainxml.parse import DomainXmlInvalid
from reconciler.resources.changes import LiveChange, Shape
from reconciler.resources.domains import (
    ControllerEvent,
    Definition,
    DomainPhase,
    ExitReason,
    Gone,
    Observed,
    StartRequest,
    Stranger,
)
from reconciler.resources.errors import (
    AlreadyExists,
    ControllerUnavailable,
    NotFound,
    NotOurs,
    StartFailed,
    VclError,
)

_END_EVENT_SECONDS = 0.5
_AGENT_SECONDS = 5
_WITHOUT_AGENT = libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifecycle:
    """`profile` gives the host's profile within a timeout. `isolating`: domains between mark and pause."""

    link: Link
    options: Options
    files: Files
    reader: Reader
    cache: DetailsCache
    processes: Processes
    outstanding: Outstanding
    hints: Hints
    ends: Ends
    profile: Callable[[float], Awaitable[HostProfile]]
    isolating: set[str] = field(default_factory=set)

    async def render(self, request: StartRequest, *, timeout: float) -> Definition:
        """See ResourceController. ControllerUnavailable while the host's abilities are not known."""
        profile = await self.profile(timeout)
        try:
            return build(request, profile, self.files.paths(request.name))
        except StartFailed as error:
            message = f"cannot define {request.name}: {error.message}"
            raise StartFailed(message, reason=error.reason, cure=error.cure) from error

    async def inventory(self, *, timeout: float) -> tuple[Observed, ...]:
        """See ResourceController. Domains that are only defined and do not run are left out."""
        seen = await self.link.run(
            lambda connection, _: self.reader.inventory(connection), timeout=timeout, what="list the domains"
        )
        return seen

    async def observe(self, name: str, *, uid: str = "", timeout: float) -> Observed | Gone:
        """See ResourceController. A domain that is only defined and does not run is Gone."""
        session = await self.link.session(timeout=timeout)
        return await self.link.run(
            lambda connection, ticket: self._observe(connection, ticket, session.epoch, name, uid.lower()),
            timeout=timeout,
            what=f"look at {name}",
            session=session,
        )

    async def create(self, definition: Definition, *, timeout: float) -> Observed:
        """See ResourceController. AlreadyExists: the UUID runs already, under this name or another."""
        session = await self.link.session(timeout=timeout)
        name, uid = definition.name, definition.uid.lower()
        self._refuse_while_unknown(session, name, uid)
        call = self.outstanding.begin(name=name, uid=uid, what="create", epoch=session.epoch)
        return await self.link.run(
            lambda connection, ticket: self._create(connection, ticket, definition, call),
            timeout=timeout,
            what=f"start {name}",
            session=session,
            ended=lambda: self.outstanding.end(call),
        )

    async def set_paused(self, name: str, paused: bool, *, timeout: float) -> None:
        """See ResourceController. A resume whose outcome is unknown counts as under way, like a creation."""
        session = await self.link.session(timeout=timeout)
        what = "pause" if paused else "resume"
        call = self.outstanding.begin(name=name, uid="", what=what, epoch=session.epoch)
        await self.link.run(
            lambda connection, ticket: self._set_paused(connection, ticket, name, paused, call),
            timeout=timeout,
            what=f"{what} {name}",
            session=session,
            ended=lambda: self.outstanding.end(call),
        )

    async def isolate(self, name: str, *, timeout: float) -> None:
        """See Isolator. Marked first: a pause without the mark would look like a person's."""
        await self.link.run(
            lambda connection, ticket: self._isolate(connection, ticket, name),
            timeout=timeout,
            what=f"pause {name}",
        )

    async def reset(self, name: str, *, timeout: float) -> None:
        """See Resetter."""
        await self.link.run(
            lambda connection, ticket: _reset(connection, ticket, name), timeout=timeout, what=f"reset {name}"
        )

    async def shape(self, name: str, *, timeout: float) -> Shape:
        """See LiveChanger."""
        session = await self.link.session(timeout=timeout)
        if why := self.outstanding.why_unknown(name=_change_of(name), uid="", epoch=session.epoch):
            raise ControllerUnavailable(f"what {name} has is not known: {why}")
        return await self.link.run(
            lambda connection, _: changing.shape(_active(connection, name)),
            timeout=timeout,
            what=f"look at the devices of {name}",
            session=session,
        )

    async def change(self, definition: Definition, change: LiveChange, *, timeout: float) -> None:
        """See LiveChanger."""
        session = await self.link.session(timeout=timeout)
        # Under a name of its own: it may change the domain still, but makes none.
        call = self.outstanding.begin(
            name=_change_of(definition.name), uid="", what="change", epoch=session.epoch
        )
        await self.link.run(
            lambda connection, ticket: self._change(connection, ticket, definition, change, call),
            timeout=timeout,
            what=f"change {definition.name}",
            session=session,
            ended=lambda: self.outstanding.end(call),
        )

    async def shutdown(self, name: str, *, timeout: float) -> None:
        """See ResourceController. NotFound when there is no such domain."""
        await self.link.run(
            lambda connection, ticket: self._shutdown(connection, ticket, name, timeout),
            timeout=timeout,
            what=f"shut down {name}",
        )

    async def destroy(self, name: str, *, uid: str, timeout: float) -> None:
        """See ResourceController. ControllerUnavailable also when QEMU does not end: it is not stopped."""
        await self.link.run(
            lambda connection, ticket: self._destroy(connection, ticket, name, uid.lower()),
            timeout=timeout,
            what=f"destroy {name}",
        )

    async def stranger(self, name: str, *, timeout: float) -> Stranger | None:
        """See Adopter."""
        return await self.link.run(
            lambda connection, _: adopting.stranger(connection, name), timeout=timeout, what=f"look at {name}"
        )

    async def take_over(self, definition: Definition, *, timeout: float) -> None:
        """See Adopter."""
        root = self.files.root
        await self.link.run(
            lambda connection, ticket: adopting.take_over(connection, ticket, definition, root),
            timeout=timeout,
            what=f"take over {definition.name}",
        )
        self.cache.forget(definition.uid.lower())

    async def give_back(self, name: str, *, uid: str, timeout: float) -> None:
        """See Adopter."""
        root = self.files.root
        await self.link.run(
            lambda connection, ticket: adopting.give_back(connection, ticket, name, uid.lower(), root),
            timeout=timeout,
            what=f"give {name} back",
        )
        self.cache.forget(uid.lower())

    def events(self) -> AsyncIterator[ControllerEvent]:
        """See ResourceController. It hears what happens from the call on."""
        return self.hints.reader()

    # On worker threads from here on.

    def _observe(
        self, connection: libvirt.virConnect, ticket: Ticket, epoch: Epoch, name: str, uid: str
    ) -> Observed | Gone:
        # Before the look: a creation that ends between the look and this would be missed by both.
        why = self.outstanding.why_unknown(name=name, uid=uid, epoch=epoch)
        domain = by_name(connection, name)
        seen = self.reader.observe(domain) if domain is not None else None
        if seen is not None and domain is not None:
            if seen.clients:
                self.ends.started(domain.UUIDString())
            if seen.phase is DomainPhase.RUNNING and self.cache.is_marked(domain.UUIDString()):
                self._unmark(domain, ticket)  # whoever resumed it did not come so far
            if seen.phase is DomainPhase.RUNNING and self.cache.has_arrived(domain.UUIDString()):
                self._unmark_arrived(domain, ticket)
            uuid = domain.UUIDString()
            running = seen.phase is DomainPhase.RUNNING and uuid not in self.isolating
            if running and self.cache.is_isolated(uuid):
                self._unmark_isolated(domain, ticket)
            return seen
        other = by_uuid(connection, uid) if uid else None
        if other is not None and (elsewhere := self.reader.observe(other)) is not None:
            raise ControllerUnavailable(
                f"{name} is not there, but its UUID {uid} runs under the name {elsewhere.name}",
                cure=f"end one of them: virsh destroy {elsewhere.name}",
            )
        if why:
            raise ControllerUnavailable(f"{name} is not there, but may yet appear: {why}")
        if uid and (alive := self.processes.alive(uid)):
            raise ControllerUnavailable(
                f"libvirt does not know {name}, but its QEMU process {alive[0].pid} still runs",
                cure=f"if it stays: make sure that it is no longer needed, then kill {alive[0].pid}",
            )
        return Gone(exit=self._exit_reason(name, uid))

    def _exit_reason(self, name: str, uid: str) -> ExitReason:
        known = self.ends.reason(uid, wait=_END_EVENT_SECONDS) if uid else None
        return known if known is not None else endings.from_log(self.options.log_dir / f"{name}.log")

    def _refuse_while_unknown(self, session: Session, name: str, uid: str) -> None:
        if why := self.outstanding.why_unknown(name=name, uid=uid, epoch=session.epoch):
            raise ControllerUnavailable(f"cannot start {name} yet: {why}")

    def _create(
        self, connection: libvirt.virConnect, ticket: Ticket, definition: Definition, call: Call
    ) -> Observed:
        name, uid = definition.name, definition.uid.lower()
        self._refuse_second_copy(connection, name, uid)
        if alive := self.processes.alive(uid):
            raise ControllerUnavailable(
                f"cannot start {name}: its QEMU process {alive[0].pid} still runs, unknown to libvirt"
            )
        try:
            document = marked_starting(definition.document)
        except DomainXmlInvalid as error:
            raise StartFailed(f"cannot start {name}: {error}", reason="InvalidDomainXML") from error
        self.files.prepare(definition)
        ticket.step()
        try:
            domain = connection.createXML(document, libvirt.VIR_DOMAIN_START_PAUSED)
        except libvirt.libvirtError as error:
            if not failures.is_answer(error):
                self.outstanding.lose(call)
                raise
            raise self._refusal(connection, definition, error) from error
        self.cache.forget(uid)
        self.ends.started(uid)
        seen = self.reader.observe(domain)
        if seen is None:
            raise StartFailed(f"cannot start {name}: QEMU ended at once", reason="EndedAtOnce")
        return seen

    def _refusal(
        self, connection: libvirt.virConnect, definition: Definition, error: libvirt.libvirtError
    ) -> VclError:
        """What a refused creation means, after a look at what is there now."""
        try:
            self._refuse_second_copy(connection, definition.name, definition.uid.lower())
        except (NotOurs, AlreadyExists) as taken:
            return taken
        if alive := self.processes.alive(definition.uid.lower()):
            return ControllerUnavailable(
                f"cannot start {definition.name}: {failures.text(error)}; its QEMU process {alive[0].pid} "
                "still runs"
            )
        return failures.refused(error, name=definition.name)

    def _refuse_second_copy(self, connection: libvirt.virConnect, name: str, uid: str) -> None:
        holder = by_name(connection, name)
        if holder is not None and holder.UUIDString() != uid:
            raise NotOurs(
                f"libvirt has another domain called {name}, with the UUID {holder.UUIDString()}",
                cure=f"rename the VM, or remove that domain (virsh undefine {name}) if nobody needs it",
            )
        same = by_uuid(connection, uid)
        if same is not None and is_active(same):
            raise AlreadyExists(f"cannot start {name}: its UUID already runs, as {same.name()}")

    def _set_paused(
        self, connection: libvirt.virConnect, ticket: Ticket, name: str, paused: bool, call: Call
    ) -> None:
        domain = _active(connection, name)
        try:
            state, _ = domain.state()
            if paused and state != libvirt.VIR_DOMAIN_PAUSED:
                ticket.step()
                domain.suspend()
            elif not paused and state != libvirt.VIR_DOMAIN_RUNNING:
                ticket.step()
                asleep = state == libvirt.VIR_DOMAIN_PMSUSPENDED
                domain.pMWakeup() if asleep else domain.resume()
                # In this order: without its mark, a guest that was never resumed looks like one that somebody
                # paused, and nobody would ever start it.
                self._unmark(domain, ticket)
                self._unmark_arrived(domain, ticket)
                self._unmark_isolated(domain, ticket)
        except libvirt.libvirtError as error:
            if not failures.is_answer(error):
                self.outstanding.lose(call)
            raise

    def _isolate(self, connection: libvirt.virConnect, ticket: Ticket, name: str) -> None:
        domain = _active(connection, name)
        uuid = domain.UUIDString()
        if domain.state()[0] not in (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_BLOCKED):
            return
        self.isolating.add(uuid)
        try:
            ticket.step()
            domain.setMetadata(
                libvirt.VIR_DOMAIN_METADATA_ELEMENT,
                "<mark/>",
                ISOLATED_KEY,
                ISOLATED_NAMESPACE,
                libvirt.VIR_DOMAIN_AFFECT_LIVE,
            )
            self.cache.forget(uuid)
            ticket.step()
            domain.suspend()
        finally:
            self.isolating.discard(uuid)

    def _change(
        self,
        connection: libvirt.virConnect,
        ticket: Ticket,
        definition: Definition,
        change: LiveChange,
        call: Call,
    ) -> None:
        domain = _active(connection, definition.name)
        if domain.UUIDString() != definition.uid.lower():
            raise NotOurs(f"the domain called {definition.name} has the UUID {domain.UUIDString()}")
        try:
            changing.bring(domain, ticket, definition, change)
        except libvirt.libvirtError as error:
            if not failures.is_answer(error):
                self.outstanding.lose(call)
            raise
        finally:
            self.cache.forget(domain.UUIDString())

    def _unmark_arrived(self, domain: libvirt.virDomain, ticket: Ticket) -> None:
        _clear_mark(domain, ticket, ARRIVED_KEY, ARRIVED_NAMESPACE)
        self.cache.forget(domain.UUIDString())

    def _unmark_isolated(self, domain: libvirt.virDomain, ticket: Ticket) -> None:
        _clear_mark(domain, ticket, ISOLATED_KEY, ISOLATED_NAMESPACE)
        self.cache.forget(domain.UUIDString())

    def _unmark(self, domain: libvirt.virDomain, ticket: Ticket) -> None:
        _clear_mark(domain, ticket, STARTING_KEY, STARTING_NAMESPACE)
        self.cache.forget(domain.UUIDString())

    def _shutdown(self, connection: libvirt.virConnect, ticket: Ticket, name: str, timeout: float) -> None:
        domain = _active(connection, name)
        seen = self.reader.observe(domain)
        ticket.step()
        if seen is not None and seen.agent_connected and domain.state()[0] == libvirt.VIR_DOMAIN_RUNNING:
            seconds = max(1, min(_AGENT_SECONDS, int(timeout / 2)))
            try:
                domain.agentSetResponseTimeout(seconds, 0)
                domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_GUEST_AGENT)
                return
            except libvirt.libvirtError as error:
                if not failures.is_answer(error):
                    raise
                if by_name(connection, name) is None:
                    return  # it was quicker than the agent's answer
        ticket.step()
        domain.shutdownFlags(_WITHOUT_AGENT)

    def _destroy(self, connection: libvirt.virConnect, ticket: Ticket, name: str, uid: str) -> None:
        holder = by_name(connection, name)
        if holder is not None and holder.UUIDString() != uid and is_active(holder):
            raise NotOurs(f"the domain called {name} has the UUID {holder.UUIDString()}, not {uid}")
        domain = by_uuid(connection, uid)
        if domain is not None and is_active(domain) and domain.name() != name:
            raise NotOurs(f"the UUID {uid} runs under the name {domain.name()}, not {name}")
        ticket.step()
        if domain is None or not is_active(domain):
            # Left behind by a libvirtd that has forgotten it: nobody else can end it.
            self.processes.kill(uid)
            return
        try:
            domain.destroyFlags(libvirt.VIR_DOMAIN_DESTROY_DEFAULT)
        except libvirt.libvirtError as error:
            gone = failures.is_missing(error) or error.get_error_code() == libvirt.VIR_ERR_OPERATION_INVALID
            if not gone:
                raise


def _change_of(name: str) -> str:
    return f"change of {name}"


def _active(connection: libvirt.virConnect, name: str) -> libvirt.virDomain:
    domain = by_name(connection, name)
    if domain is None or not is_active(domain):
        raise NotFound(f"libvirt runs no domain called {name}")
    return domain


def _reset(connection: libvirt.virConnect, ticket: Ticket, name: str) -> None:
    domain = _active(connection, name)
    ticket.step()
    domain.reset()


def _clear_mark(domain: libvirt.virDomain, ticket: Ticket, key: str, namespace: str) -> None:
    """After a resume: from here on a pause is somebody's wish."""
    ticket.step()
    try:
        domain.setMetadata(
            libvirt.VIR_DOMAIN_METADATA_ELEMENT,
            None,
            key,
            namespace,
            libvirt.VIR_DOMAIN_AFFECT_LIVE,
        )
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN_METADATA:
            raise
