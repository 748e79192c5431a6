"""What `vcl adopt` looks at before it changes anything: the manifest, the domain, its images, their clients.

Invariant: a domain that runs passes only if its images are exactly those that the claim will name, and nobody
but this domain's own process and clients has any of them open, as before a start (SAFETY rules 5, 6, 8).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from reconciler.loops.agent_clients import NetworkClients
from reconciler.loops.agent_disks import DiskWork, Look
from reconciler.loops.agent_state import NodeContext
from reconciler.planning.admission import admit
from reconciler.planning.adopting import Names, Standing, compare_images, refuse_name, refuse_stopped
from reconciler.planning.desired import desired
from reconciler.planning.manifest_values import FileView, Moment
from reconciler.ports.controller import Adopter, Controller
from reconciler.resources import keys
from reconciler.resources.codec import decode
from reconciler.resources.domains import Observed, Stranger
from reconciler.resources.errors import ConflictError, ControllerError, ImageInUse, InvalidInput
from reconciler.resources.fencing import canonical
from reconciler.resources.images import is_network_client
from reconciler.resources.kinds import Kind
from reconciler.resources.records import Intent, Session, SpecRecord
from reconciler.resources.virtualmachine import VirtualMachineSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One domain to adopt. `source`: what the user calls the input; `content`: the manifest of the one VM;
    `domain`, `uuid`, `running`: as its XML said, `uuid` empty when it said nothing."""

    source: str
    content: bytes
    domain: str
    uuid: str
    running: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """One domain on its way: its manifest, the record that it is to get, and its names."""

    wanted: Wanted
    file: FileView
    record: SpecRecord
    vm: VirtualMachineSpec
    names: Names
    controller: Controller


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A domain that runs here and may be taken over. `clients`: all that may write to its images."""

    look: Look
    observed: Observed
    clients: tuple[str, ...]


class AdoptionChecks:
    """Looks; changes nothing."""

    def __init__(self, context: NodeContext, disks: DiskWork) -> None:
        self._context = context
        self._disks = disks
        self._clients = NetworkClients(context)

    def draft(self, wanted: Wanted, file: FileView) -> Draft:
        """`file`: the content, parsed. Raises VclError for a manifest or a name that cannot be."""
        if file.problems:
            raise InvalidInput("; ".join(file.problems))
        if len(file.manifests) != 1 or file.manifests[0].key.kind is not Kind.VIRTUAL_MACHINE:
            raise InvalidInput("the manifest of an adopted domain defines one VirtualMachine, nothing else")
        manifest, clock = file.manifests[0], self._context.clock
        moment = Moment(monotonic=clock.monotonic(), wall=clock.wall(), seed=self._context.ids.uuid())
        record, uuid = admit(manifest, "", None, moment), wanted.uuid.lower()
        record = replace(record, metadata=replace(record.metadata, uid=uuid or record.metadata.uid))
        vm = decode(VirtualMachineSpec, record.spec, "spec")
        controller = self._context.controllers.get(vm.controller)
        if controller is None:
            raise InvalidInput(f"there is no controller '{vm.controller}' on this node")
        names = Names(vm=manifest.key.name, domain=wanted.domain, uuid=uuid, running=wanted.running)
        self.refuse_name(names)
        return Draft(wanted=wanted, file=file, record=record, vm=vm, names=names, controller=controller)

    def refuse_now(self) -> None:
        """Raises ConflictError while this node can or may write nothing."""
        context = self._context
        silent = "" if context.views.cache.healthy else "the store does not answer"
        why = context.frozen() or context.held() or silent
        if why:
            raise ConflictError(f"node {context.node} adopts nothing now: {why}", cure="try again later")
        if context.views.exists(keys.fence(context.node)):
            raise ConflictError(f"node {context.node} is fenced", cure="wait for its return")

    def refuse_name(self, names: Names) -> None:
        """Raises VclError when the name or the UUID is another VM's."""
        views, kind = self._context.views, Kind.VIRTUAL_MACHINE
        known = {each: views.spec_record(kind, each) for each in views.names(kind)}
        standing = Standing(
            exists=views.exists(keys.spec(kind, names.vm)),
            bound=views.exists(keys.binding(names.vm)),
            claim=views.claim(names.vm),
            uids={record.metadata.uid: each for each, record in known.items() if record is not None},
        )
        refuse_name(names, standing)

    async def find(self, draft: Draft) -> Stranger | None:
        """The domain on this host; None when there is none, or its controller takes nothing over."""
        adopter = draft.controller.lifecycle
        if isinstance(adopter, Adopter):
            return await adopter.stranger(draft.names.domain, timeout=self._context.deadlines.observe)
        if draft.names.running:
            raise ControllerError(f"the controller '{draft.vm.controller}' cannot take over what runs")
        return None

    async def running(self, draft: Draft, found: Stranger) -> Running:
        """All that a start would look at. Raises VclError when the domain may not be taken over."""
        if not self._context.views.power_on():
            raise ConflictError("the cluster's power is Off: what it takes over would be shut down")
        refuse_stopped(desired(draft.record, draft.vm, Intent(), None, power_on=True))
        look = await self._disks.look(draft.record, draft.vm)
        if look.definition is None:
            raise InvalidInput(
                f"the images of these disks are missing, or smaller than the manifest says: "
                f"{', '.join(look.prepared.missing)}",
                cure="correct the disks in the manifest, and leave `size` out",
            )
        live = {await self._disks.identity_of(path): path for path in found.writable}
        compare_images(live, look.prepared.identities)
        observed = await self._observe(draft)
        return Running(look=look, observed=observed, clients=await self._own_clients(draft, look, observed))

    async def still(self, draft: Draft, running: Running) -> Running:
        """The same run a moment later, with its clients read afresh. Raises VclError when it is another."""
        observed = await self._observe(draft)
        if observed.incarnation != running.observed.incarnation:
            raise ConflictError(
                f"domain '{draft.names.domain}' was started anew meanwhile", cure="run vcl adopt again"
            )
        clients = await self._own_clients(draft, running.look, observed)
        return replace(running, observed=observed, clients=clients)

    async def _observe(self, draft: Draft) -> Observed:
        timeout = self._context.deadlines.observe
        observed = await draft.controller.lifecycle.observe(draft.names.domain, timeout=timeout)
        if not isinstance(observed, Observed):
            raise ConflictError(
                f"domain '{draft.names.domain}' has ended meanwhile", cure="run vcl adopt again"
            )
        return observed

    async def _own_clients(self, draft: Draft, look: Look, observed: Observed) -> tuple[str, ...]:
        """The domain's processes and network clients. Raises ImageInUse when others have an image open."""
        held = await self._disks.held(draft.record, draft.vm)
        others = sorted(
            f"{image} by {who.description} ({who.client})"
            for image, who in held
            if not is_network_client(canonical(who.client)) and who.client not in observed.clients
        )
        if others:
            raise ImageInUse(
                f"an image of the running domain is open elsewhere, too: {'; '.join(others)}",
                cure="end that process, then adopt again",
            )
        session = self._context.views.record(keys.session(self._context.node), Session)
        addresses = frozenset(session.addresses) if session is not None else frozenset()
        clients = await self._clients.sole(look.prepared.identities, addresses)
        return tuple(dict.fromkeys((*observed.clients, *clients)))
