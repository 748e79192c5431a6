"""The clients of network images: who may write to a VM's disks from this node, and who must not be there.

SAFETY rules 5, 7 and 8: a paused domain's clients are read before it may run; a claim is emptied only when
each recorded client neither watches nor locks, or is shut out by the storage; an image that somebody else
holds is not started on. Local files cost nothing here: their clients are processes, which the controller
knows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from reconciler.loops.agent_state import Held, NodeContext, VmState
from reconciler.loops.client_records import known_of
from reconciler.planning.lifecycle import never_ran
from reconciler.planning.unlocking import identified, whose
from reconciler.resources import keys
from reconciler.resources.domains import Observed
from reconciler.resources.errors import ControllerUnavailable, ImageInUse, PoolUnavailable
from reconciler.resources.fencing import client_host
from reconciler.resources.images import Holder, RbdIdentity, is_network_client
from reconciler.resources.records import Claim, ClaimPhase, Session


class NetworkClients:
    """Asks the pools of this node. Every method raises PoolUnavailable while nothing is known."""

    def __init__(self, context: NodeContext) -> None:
        self._context = context

    async def seen(
        self, observed: Observed, images: Iterable[str], claim: Claim | None, state: VmState
    ) -> Observed:
        """The domain with the network clients of its images (identities) among its `clients`.

        While it never ran they are read afresh; state.intruder then says who else has opened an image since
        it was looked at before the start. Raises ControllerUnavailable while its own are not there yet.
        """
        state.intruder = ""
        plugging = claim.plugging.keys if claim is not None and claim.plugging is not None else ()
        wanted = [
            identity
            for identity in images
            if identity not in plugging and RbdIdentity.parse(identity) is not None
        ]
        if not wanted:
            return observed
        recorded = tuple(c for c in claim.clients if is_network_client(c)) if claim is not None else ()
        same = claim is not None and set(observed.clients) <= set(claim.clients)
        if recorded and same and claim is not None and claim.phase is ClaimPhase.RUNNING:
            return replace(observed, clients=(*observed.clients, *recorded))
        found = [await self._read(identity) for identity in sorted(wanted)]
        for held in found:
            if not held.holders:
                raise ControllerUnavailable(
                    f"{observed.name} has not opened its image {held.identity} yet, as far as Ceph says"
                )
            if never_ran(observed) and len({holder.client for holder in held.holders}) > 1:
                state.intruder = self._story(held.identity, held.holders)
        clients = {holder.client for held in found for holder in held.holders}
        return replace(observed, clients=(*observed.clients, *sorted(clients)))

    async def sole(self, images: Iterable[str], addresses: Collection[str]) -> tuple[str, ...]:
        """The clients of images that a running domain of this host has open, which must be all there are:
        one for each image, from one of `addresses` (none known: from anywhere).

        Raises ImageInUse when somebody else holds one, ControllerUnavailable when nobody does.
        """
        found: set[str] = set()
        for identity in sorted(images):
            if RbdIdentity.parse(identity) is None:
                continue
            held = await self._read(identity)
            clients = sorted({holder.client for holder in held.holders})
            if not clients:
                raise ControllerUnavailable(
                    f"nobody has the image {identity} open, as far as Ceph says",
                    cure="is it the same Ceph that the StoragePool names? Look at the monitors in the XML",
                )
            strange = [c for c in clients if addresses and client_host(c) not in addresses]
            if len(clients) > 1 or strange:
                raise ImageInUse(
                    self._story(identity, held.holders),
                    cure="end whoever is not this domain's QEMU, then adopt again",
                )
            found.update(clients)
        return tuple(sorted(found))

    async def lingering(self, claim: Claim) -> tuple[Held, ...]:
        """Of a domain that is gone: the recorded clients that still watch or lock and may still write. Of an
        image that was being attached, whoever holds it from this host: it may not have been recorded."""
        recorded = {client for client in claim.clients if is_network_client(client)}
        plugging = set(claim.plugging.keys) if claim.plugging is not None else set()
        if not (recorded or plugging):
            return ()
        here = self._addresses() if plugging else ()
        left = []
        for disk in claim.disks:
            if RbdIdentity.parse(disk) is None:
                continue
            held = await self._read(disk)
            ours = tuple(
                holder
                for holder in held.holders
                if not holder.fenced
                and (holder.client in recorded or (disk in plugging and client_host(holder.client) in here))
            )
            left += [replace(held, holders=ours)] if ours else []
        return tuple(left)

    def _addresses(self) -> tuple[str, ...]:
        """This host's, as Ceph knows them."""
        session = self._context.views.record(keys.session(self._context.node), Session)
        return session.addresses if session is not None else ()

    async def opened(self, images: Iterable[str]) -> tuple[str, ...]:
        """The clients of images that a running domain has just opened, and nobody else could have. Raises
        ControllerUnavailable while they are not there yet."""
        found: set[str] = set()
        for identity in sorted(images):
            if RbdIdentity.parse(identity) is not None:
                clients = {holder.client for holder in (await self._read(identity)).holders}
                if not clients:
                    raise ControllerUnavailable(f"nobody has opened the image {identity} yet, as Ceph says")
                found |= clients
        return tuple(sorted(found))

    async def arrived(
        self, images: Iterable[str], addresses: Collection[str], others: Collection[str]
    ) -> dict[str, tuple[str, ...]]:
        """By image, the clients that have it open from one of these addresses, but for `others`: what a live
        migration has brought here. Never a client of the host that it comes from."""
        found = {}
        for identity in sorted(images):
            clients = {holder.client for holder in (await self._read(identity)).holders}
            here = {client for client in clients - set(others) if client_host(client) in addresses}
            found[identity] = tuple(sorted(here))
        return found

    async def cut_off(self, lingering: Iterable[Held]) -> None:
        """Shut them out of the storage and break their locks; their process is proven dead."""
        for held in lingering:
            await held.network.cut_off(held.holders, held.identity, timeout=self._context.deadlines.disk)

    async def clear(self, images: Iterable[str], former: Iterable[str]) -> None:
        """Before a start, under the claim: former clients of this VM that still hold an image are cut off
        (rule 8). Raises ImageInUse when anybody else holds one."""
        known = set(former)
        for identity in sorted(images):
            if RbdIdentity.parse(identity) is None:
                continue
            held = await self._read(identity)
            ours = tuple(holder for holder in held.holders if holder.client in known)
            if ours:
                await self.cut_off([replace(held, holders=ours)])
        await self.refuse_held(images)

    async def refuse_held(self, images: Iterable[str], former: Iterable[str] = ()) -> None:
        """Raises ImageInUse that tells who holds one of the images, but for this VM's former clients."""
        known = set(former)
        for identity in sorted(images):
            if RbdIdentity.parse(identity) is None:
                continue
            held = await self._read(identity)
            others = tuple(holder for holder in held.holders if holder.client not in known)
            if others:
                raise ImageInUse(
                    self._story(identity, others),
                    cure="end that client; only if it is surely dead, or must lose the image: "
                    "`vcl disk unlock VM DISK` shows it, asks, shuts it out and breaks its lock",
                )

    def _story(self, identity: str, holders: tuple[Holder, ...]) -> str:
        known = known_of(self._context.views)
        told = "; ".join(f"{holder.description}, {whose(identified(holder, known))}" for holder in holders)
        return f"the image {identity} is held by {told}"

    async def _read(self, identity: str) -> Held:
        for _, backend in sorted(self._context.pools.all().items()):
            if backend.network is None:
                continue
            holders = await backend.network.holders_of(identity, timeout=self._context.deadlines.disk)
            if holders is not None:
                return Held(identity=identity, holders=holders, network=backend.network)
        raise PoolUnavailable(
            f"no storage pool on this node has the image {identity}",
            cure="apply the StoragePool again that it belongs to",
        )
