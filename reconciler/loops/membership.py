"""What this node tells the others of itself, and hears of them: heartbeats on the mesh, leases in the store.

Both are hints. What was heard is kept and aged in observations.py; what it means is said in planning/.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

from reconciler.loops.observations import Observations
from reconciler.loops.views import Views
from reconciler.planning.judging import OWN_RENEWALS
from reconciler.planning.liveness import Sight, mesh_peers, ordered
from reconciler.planning.timers import Timers
from reconciler.ports.clock import Clock
from reconciler.ports.leases import Leases
from reconciler.ports.transport import Endpoint, LinkState, Message, Topic, Transport
from reconciler.resources import keys
from reconciler.resources.codec import decode, encode
from reconciler.resources.errors import InvalidInput, StoreError
from reconciler.resources.kinds import Kind
from reconciler.resources.membership import Heartbeat, Member, NodeHealth, NodeLease
from reconciler.resources.records import dump
from reconciler.resources.shutdowns import PowerWord

log = logging.getLogger(__name__)

LOOKS = 2
"""Looks at the leases for each renewal."""
WAKE_PAUSE = 0.05
"""Seconds between two wake-ups at least: one tells of every commit before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MembershipContext:
    """`health` and `power` are asked at every heartbeat and must be quick, as must `hear_power` be, which is
    told what each heartbeat says of shutdowns. No transport: nobody else is there to hear; no leases: nobody
    is there to look."""

    node: str
    boot_id: str
    session: int
    version: str
    schemas: tuple[int, int]
    clock: Clock
    views: Views
    timers: Timers
    transport: Transport | None
    leases: Leases | None
    health: Callable[[], NodeHealth]
    power: Callable[[], PowerWord] = PowerWord
    hear_power: Callable[[PowerWord], None] = lambda word: None


@dataclass(slots=True)
class Bearing:
    """What the elector, and of `empty` the return, says of this node; it goes out with every heartbeat and
    lease."""

    eligible: bool = False
    reason: str = ""
    master: str = ""
    mastering: int | None = None
    successor: str | None = None
    empty: bool = False


class Membership:
    """`run_heart` and `run_leases` for ever; `sights` at any time."""

    def __init__(self, context: MembershipContext) -> None:
        self.bearing = Bearing()
        self.renewed_at: float | None = None
        """When the last acknowledged renewal was sent."""
        self._context = context
        self._observations = Observations(context.timers)
        self._sequence = 0
        self._renewals = 0
        self._acknowledged: deque[float] = deque(maxlen=OWN_RENEWALS)
        self._woke_at = float("-inf")
        self._lease_lock = asyncio.Lock()
        self._members: tuple[int, dict[str, Member]] = (-1, {})
        self._listeners: list[Callable[[], None]] = []
        if context.transport is not None:
            context.transport.listen(self._heard)

    @property
    def leases_read_at(self) -> float | None:
        """When the last successful look at the leases began."""
        return self._observations.leases_read_at

    def members(self) -> Mapping[str, Member]:
        """Every configured node; rank and address of a Node manifest replace the configuration's."""
        cache = self._context.views.cache
        if self._members[0] != cache.revision:
            found = {}
            for item in cache.prefix(keys.MEMBERS):
                member = self._context.views.record(item.key, Member)
                if member is not None:
                    name = item.key.removeprefix(keys.MEMBERS)
                    found[name] = self._as_manifest_says(name, member)
            self._members = (cache.revision, found)
        return self._members[1]

    def sights(self) -> tuple[Sight, ...]:
        """Every member in the order of the hierarchy, as seen now."""
        now = self._context.clock.monotonic()
        members = self.members()
        return tuple(self._sight(name, members[name].rank, now) for name in ordered(members))

    def ran_for(self) -> float:
        """Seconds for which this daemon has run without a gap."""
        return self._observations.ran_for(self._context.clock.monotonic())

    def renewals_since_change(self, name: str) -> int:
        """Renewals of this node's own lease that were sent after the other's was last seen to change, and
        acknowledged; counted up to what a judge needs."""
        changed = self._observations.lease_changed_at(name)
        return sum(1 for sent in self._acknowledged if changed is not None and sent > changed)

    async def run_heart(self) -> None:
        """Send heartbeats for ever."""
        while True:
            self.beat()
            await asyncio.sleep(self._context.timers.mesh_heartbeat)

    async def run_leases(self) -> None:
        """Renew this node's lease and read all of them, the latter twice as often: what is seen late is
        found silent late. For ever."""
        if self._context.leases is None:
            await asyncio.Event().wait()
        pause, failing = self._context.timers.lease_renew / LOOKS, False
        for turn in count():
            began = self._context.clock.monotonic()
            try:
                if turn % LOOKS == 0:
                    await self.renew()
                await self.look()
                failing = False
            except StoreError as error:
                if not failing:
                    log.info("lease: %s; trying again", error)
                failing = True
            spent = self._context.clock.monotonic() - began
            await asyncio.sleep(max(pause - spent, 0.05))

    def beat(self) -> None:
        """One heartbeat to every peer; also finds out whether this node was frozen meanwhile."""
        now = self._context.clock.monotonic()
        self._observations.tick(now)
        transport = self._context.transport
        if transport is None:
            return
        members = self.members()
        peers = mesh_peers(self._context.node, members)
        transport.connect(
            {name: Endpoint(address=members[name].address, port=members[name].port) for name in peers}
        )
        message = Message(topic=Topic.HEARTBEAT, body=self._heartbeat())
        for name in peers:
            transport.send(name, message)

    async def renew(self) -> None:
        """Write this node's lease. Raises StoreUnavailable."""
        leases = self._context.leases
        if leases is None:
            return
        async with self._lease_lock:
            self._renewals += 1
            sent = self._context.clock.monotonic()
            lease = self._lease(stopped=False)
            await leases.renew(lease.node, dump(lease), timeout=self._context.timers.store_deadline)
            self.renewed_at = sent
            self._acknowledged.append(sent)

    async def say_goodbye(self) -> None:
        """Mark the lease: this daemon ends in an orderly way and its guests run on. Raises
        StoreUnavailable."""
        leases = self._context.leases
        if leases is None:
            return
        self.bearing.mastering = None
        async with self._lease_lock:
            self._renewals += 1
            lease = self._lease(stopped=True)
            await leases.renew(lease.node, dump(lease), timeout=self._context.timers.store_deadline)

    async def look(self) -> None:
        """Read every lease. Raises StoreUnavailable."""
        leases = self._context.leases
        if leases is None:
            return
        began = self._context.clock.monotonic()
        found = await leases.read(timeout=self._context.timers.store_deadline)
        self._observations.look(found, began)
        self._announce()

    def wake(self, revision: int) -> None:
        """Tell the others that the store has changed; at most every few milliseconds."""
        now = self._context.clock.monotonic()
        transport = self._context.transport
        if transport is None or now - self._woke_at < WAKE_PAUSE:
            return
        self._woke_at = now
        message = Message(topic=Topic.WAKE, body={"revision": revision})
        for name in mesh_peers(self._context.node, self.members()):
            transport.send(name, message)

    def subscribe(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` when a member changed its mind about mastership, and after each look at the leases;
        returns the undo."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def _heard(self, name: str, message: Message) -> None:
        if message.topic is Topic.HEARTBEAT:
            try:
                heartbeat = decode(Heartbeat, message.body)
            except InvalidInput as error:
                log.warning("mesh: a heartbeat of %s cannot be read: %s", name, error)
                return
            self._context.views.cache.hint(heartbeat.revision)
            self._context.hear_power(heartbeat.power)
            if self._observations.hear(name, heartbeat, self._context.clock.monotonic()):
                self._announce()
        elif message.topic is Topic.WAKE:
            revision = message.body.get("revision")
            if isinstance(revision, int):
                self._context.views.cache.hint(revision)

    def _announce(self) -> None:
        for listener in list(self._listeners):
            listener()

    def _sight(self, name: str, rank: int, now: float) -> Sight:
        if name == self._context.node:
            return Sight(
                name=name,
                rank=rank,
                heard=0.0,
                heartbeat=self._own_heartbeat(),
                lease=self._lease(stopped=False),
            )
        transport = self._context.transport
        link = transport.links().get(name) if transport is not None else None
        lasts = now - link.since if link is not None else 0.0
        state = link.state if link is not None else None
        refused = lasts if state is LinkState.REFUSED else None
        connected = lasts if state is LinkState.CONNECTED else None
        return self._observations.sight(name, rank, refused, now, connected)

    def _as_manifest_says(self, name: str, member: Member) -> Member:
        record = self._context.views.spec_record(Kind.NODE, name)
        if record is None:
            return member
        rank, address = record.spec.get("rank"), record.spec.get("address")
        return replace(
            member,
            rank=rank if isinstance(rank, int) else member.rank,
            address=address if isinstance(address, str) and address else member.address,
        )

    def _heartbeat(self) -> Mapping[str, Any]:
        self._sequence += 1
        body: dict[str, Any] = encode(self._own_heartbeat())
        return body

    def _own_heartbeat(self) -> Heartbeat:
        context = self._context
        epoch = context.views.epoch()
        return Heartbeat(
            node=context.node,
            session=context.session,
            boot_id=context.boot_id,
            sequence=self._sequence,
            version=context.version,
            schemas=context.schemas,
            eligible=self.bearing.eligible,
            reason=self.bearing.reason,
            epoch=epoch.epoch if epoch is not None else 0,
            master=self.bearing.master,
            revision=max(context.views.cache.revision, 0),
            hears=self._observations.heard_now(context.clock.monotonic()),
            empty=self.bearing.empty,
            power=context.power(),
            health=context.health(),
        )

    def _lease(self, *, stopped: bool) -> NodeLease:
        return NodeLease(
            node=self._context.node,
            boot_id=self._context.boot_id,
            session=self._context.session,
            renewals=self._renewals,
            mastering=self.bearing.mastering,
            successor=self.bearing.successor,
            stopped=stopped,
        )
