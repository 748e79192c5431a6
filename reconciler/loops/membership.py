"""What this node tells the others of itself, and what it has observed of them: heartbeats and leases.

Invariant: an age grows only while this node was running and its observations succeeded. A daemon that was
frozen, or a store that stalled, makes nobody look dead (SAFETY rule 13).
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from reconciler.loops.views import Views
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

log = logging.getLogger(__name__)

FALLS_COUNT_FOR = 600.0
WAKE_PAUSE = 0.05
"""Seconds between two wake-ups at least: one tells of every commit before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MembershipContext:
    """`health` is asked at every heartbeat and must be quick. No transport: nobody else is there to hear;
    no leases: nobody is there to look."""

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


@dataclass(slots=True)
class _Observed:
    """One member: monotonic times of this node."""

    heard_at: float | None = None
    heartbeat: Heartbeat | None = None
    lease: NodeLease | None = None
    lease_changed_at: float | None = None
    eligible_since: float | None = None
    falls: deque[float] = field(default_factory=deque)


@dataclass(slots=True)
class Bearing:
    """What the elector says of this node; it goes out with every heartbeat and lease."""

    eligible: bool = False
    reason: str = ""
    master: str = ""
    mastering: int | None = None
    successor: str | None = None


class Membership:
    """`run_heart` and `run_leases` for ever; `sights` at any time."""

    def __init__(self, context: MembershipContext) -> None:
        self.bearing = Bearing()
        self.renewed_at: float | None = None
        """When the last acknowledged renewal was sent."""
        self.leases_read_at: float | None = None
        """When the last successful look at the leases began."""
        self._context = context
        self._observed: dict[str, _Observed] = {}
        self._sequence = 0
        self._renewals = 0
        self._ticked_at: float | None = None
        self._read_first_at: float | None = None
        self._woke_at = float("-inf")
        self._lease_lock = asyncio.Lock()
        self._members: tuple[int, dict[str, Member]] = (-1, {})
        self._listeners: list[Callable[[], None]] = []
        if context.transport is not None:
            context.transport.listen(self._heard)

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

    async def run_heart(self) -> None:
        """Send heartbeats for ever."""
        while True:
            self.beat()
            await asyncio.sleep(self._context.timers.mesh_heartbeat)

    async def run_leases(self) -> None:
        """Renew and read the leases for ever."""
        if self._context.leases is None:
            await asyncio.Event().wait()
        while True:
            began = self._context.clock.monotonic()
            try:
                await self.renew()
                await self.look()
            except StoreError as error:
                log.info("lease: %s", error)
            spent = self._context.clock.monotonic() - began
            await asyncio.sleep(max(self._context.timers.lease_renew - spent, 0.05))

    def beat(self) -> None:
        """One heartbeat to every peer; also finds out whether this node was frozen meanwhile."""
        now = self._context.clock.monotonic()
        self._forgive(now)
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
        unseen = began - (self.leases_read_at if self.leases_read_at is not None else began)
        missed = max(0.0, unseen - 2 * self._context.timers.lease_renew)
        for observed in self._observed.values():
            if observed.lease_changed_at is not None and missed > 0:
                observed.lease_changed_at = min(began, observed.lease_changed_at + missed)
        if self._read_first_at is None:
            self._read_first_at = began
        for name, value in sorted(found.items()):
            self._read_lease(name, value, began)
        self.leases_read_at = began

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
        """Call `listener` when a member changed its mind about mastership; returns the undo."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def _heard(self, name: str, message: Message) -> None:
        if message.topic is Topic.HEARTBEAT:
            try:
                heartbeat = decode(Heartbeat, message.body)
            except InvalidInput as error:
                log.warning("mesh: a heartbeat of %s cannot be read: %s", name, error)
                return
            self._take(name, heartbeat)
        elif message.topic is Topic.WAKE:
            revision = message.body.get("revision")
            if isinstance(revision, int):
                self._context.views.cache.hint(revision)

    def _take(self, name: str, heartbeat: Heartbeat) -> None:
        now = self._context.clock.monotonic()
        observed = self._observed.setdefault(name, _Observed())
        before = observed.heartbeat
        if before is not None and (heartbeat.session, heartbeat.sequence) <= (
            before.session,
            before.sequence,
        ):
            return
        observed.heard_at, observed.heartbeat = now, heartbeat
        if heartbeat.eligible and observed.eligible_since is None:
            observed.eligible_since = now
        elif not heartbeat.eligible:
            self._fall(observed, now)
        self._context.views.cache.hint(heartbeat.revision)
        if before is None or before.eligible != heartbeat.eligible or before.master != heartbeat.master:
            self._announce()

    def _announce(self) -> None:
        for listener in list(self._listeners):
            listener()

    @staticmethod
    def _fall(observed: _Observed, now: float) -> None:
        if observed.eligible_since is not None:
            observed.falls.append(now)
            observed.eligible_since = None

    def _sight(self, name: str, rank: int, now: float) -> Sight:
        if name == self._context.node:
            return Sight(
                name=name, rank=rank, heard=0.0, heartbeat=self._own_heartbeat(), lease=self._own_lease()
            )
        observed = self._observed.setdefault(name, _Observed())
        heard = None if observed.heard_at is None else max(0.0, now - observed.heard_at)
        if heard is not None and heard > self._context.timers.mesh_silent:
            self._fall(observed, now)
        while observed.falls and now - observed.falls[0] > FALLS_COUNT_FOR:
            observed.falls.popleft()
        since = observed.eligible_since
        return Sight(
            name=name,
            rank=rank,
            heard=heard,
            heartbeat=observed.heartbeat,
            lease=observed.lease,
            lease_age=self._lease_age(observed),
            refused=self._refused(name, now),
            eligible_for=0.0 if since is None else now - since,
            falls=len(observed.falls),
        )

    def _lease_age(self, observed: _Observed) -> float:
        """Up to the last look, not up to now: a look that failed says nothing."""
        if self.leases_read_at is None or self._read_first_at is None:
            return 0.0
        changed = observed.lease_changed_at
        return self.leases_read_at - (changed if changed is not None else self._read_first_at)

    def _refused(self, name: str, now: float) -> float | None:
        transport = self._context.transport
        link = transport.links().get(name) if transport is not None else None
        return now - link.since if link is not None and link.state is LinkState.REFUSED else None

    def _read_lease(self, name: str, value: bytes, began: float) -> None:
        try:
            lease = decode(NodeLease, json.loads(value))
        except (InvalidInput, ValueError) as error:
            log.warning("lease: that of %s cannot be read: %s", name, error)
            return
        observed = self._observed.setdefault(name, _Observed())
        before = observed.lease
        if before is None or (lease.session, lease.renewals) > (before.session, before.renewals):
            observed.lease, observed.lease_changed_at = lease, began
            if before is None or before.mastering != lease.mastering:
                self._announce()

    def _forgive(self, now: float) -> None:
        """Time in which this node did not run counts for nobody. (`look` does the same for the leases.)"""
        before, self._ticked_at = self._ticked_at, now
        blind = now - before - self._context.timers.mesh_heartbeat if before is not None else 0.0
        if blind < 2 * self._context.timers.mesh_heartbeat:
            return
        log.warning("this daemon did not run for %.1f s; what it did not hear then counts for nothing", blind)
        for observed in self._observed.values():
            if observed.heard_at is not None:
                observed.heard_at = min(now, observed.heard_at + blind)

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
        now, silent = context.clock.monotonic(), context.timers.mesh_silent
        fresh = [
            name
            for name, observed in self._observed.items()
            if observed.heard_at is not None and now - observed.heard_at <= silent
        ]
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
            hears=tuple(sorted(fresh)),
            health=context.health(),
        )

    def _own_lease(self) -> NodeLease:
        return self._lease(stopped=False)

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
