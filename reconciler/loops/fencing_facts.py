"""What a master knows of each node when it judges and fences: from its copy of the store and the mesh."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from reconciler.loops.membership import Membership
from reconciler.loops.views import Views
from reconciler.planning.failover import silence_of
from reconciler.planning.fencing import FenceFacts, FencerInfo, order_of
from reconciler.planning.judging import Judge, Suspect, Verdict, judge_node
from reconciler.planning.liveness import Sight, heard, renews
from reconciler.planning.migration import hosts_of, share_of
from reconciler.planning.timers import Timers
from reconciler.ports.fencer import Fencer
from reconciler.resources import keys
from reconciler.resources.fencing import (
    FenceCause,
    FenceOrder,
    FenceRecord,
    FencingPolicy,
    ReturnRecord,
    Silence,
)
from reconciler.resources.infrastructure import NodeSpec
from reconciler.resources.kinds import Kind
from reconciler.resources.migrations import MigrationSide
from reconciler.resources.records import Binding, Claim, Session


@dataclass(frozen=True, slots=True, kw_only=True)
class FencingInput:
    """`fencers()`: all there are now. `policy()`: the cluster's present setting. `pools()`: the Ceph
    cluster's fsid by the name of each pool that is on one. `switched_off()`: boot ids of hosts
    that this node has switched off in a stall of Ceph, and seen to be off."""

    node: str
    views: Views
    membership: Membership
    timers: Timers
    fencers: Callable[[], Sequence[Fencer]]
    policy: Callable[[], FencingPolicy]
    pools: Callable[[], Mapping[str, str]]
    switched_off: Callable[[], Collection[str]] = frozenset


class FactReader:
    """Reads everything anew at each call; `resting` is what the caller knows of its own attempts."""

    def __init__(self, given: FencingInput) -> None:
        self._given = given

    def nodes(self) -> tuple[str, ...]:
        """Every node that there is something to decide about: all members, and all that are being fenced."""
        views = self._given.views
        records = {item.key.removeprefix(keys.FENCES) for item in views.cache.prefix(keys.FENCES)}
        return tuple(sorted({*self._given.membership.members(), *records}))

    def facts(self, node: str, resting: frozenset[str]) -> FenceFacts | None:
        """Those of one node; None when its fencing's record cannot be read: then nothing is done."""
        views = self._given.views
        record = self.record(node)
        if record is None and views.exists(keys.fence(node)):
            return None
        sight = self._sight(node)
        held = self._held(node)
        claims = {vm: self._share(claim, node) for vm, claim in held.items()}
        bindings = self._bindings(node, claims)
        bare = FenceFacts(
            node=node,
            record=record,
            claims=claims,
            shared=frozenset(d for claim in held.values() if len(hosts_of(claim)) > 1 for d in claim.disks),
            bindings=bindings,
            pools=self._given.pools(),
            resting=resting,
            others=self._others(node),
            settings=self._settings(node),
            session=views.record(keys.session(node), Session),
            back=views.record(keys.returned(node), ReturnRecord),
            alive=self._alive(sight),
            empty=self._says_empty(sight),
            silence=self._silence(sight, record),
        )
        order = order_of(bare, record) if record is not None else None
        return _with(bare, verdict=self._verdict(sight, bare), fencers=self._fencers(order))

    def record(self, node: str) -> FenceRecord | None:
        """fence/NODE."""
        return self._given.views.record(keys.fence(node), FenceRecord)

    def _verdict(self, sight: Sight | None, facts: FenceFacts) -> Verdict | None:
        if sight is None or facts.record is not None or not self._given.policy().methods:
            return None
        membership = self._given.membership
        judge = Judge(
            me=self._given.node,
            sights=membership.sights(),
            ran_for=membership.ran_for(),
            power_on=self._given.views.power_on(),
        )
        suspect = Suspect(
            sight=sight,
            renewals=membership.renewals_since_change(sight.name),
            # A host that went down in order has let go of its VMs: those that are to start there again wait.
            owns=bool(facts.claims) or (bool(facts.bindings) and not self._went_down(sight.name)),
            empty=facts.empty,
            off=self._off(sight),
        )
        return judge_node(judge, suspect, self._given.timers)

    def _sight(self, node: str) -> Sight | None:
        return next((sight for sight in self._given.membership.sights() if sight.name == node), None)

    def _held(self, node: str) -> dict[str, Claim]:
        """The claims that this node must be proven gone for."""
        views, found = self._given.views, {}
        for item in views.cache.prefix(keys.CLAIMS):
            claim = views.record(item.key, Claim)
            if claim is not None and node in hosts_of(claim):
                found[item.key.removeprefix(keys.CLAIMS)] = claim
        return found

    def _share(self, claim: Claim, node: str) -> Claim:
        """The claim, of an open migration with this host's own clients."""
        moving = claim.migration
        key = keys.migrating(moving.id, node) if moving is not None else ""
        return share_of(claim, node, self._given.views.record(key, MigrationSide) if key else None)

    def _bindings(self, node: str, claims: Mapping[str, Claim]) -> tuple[str, ...]:
        """VMs that are bound to the node and held by nobody. One whose claim cannot be read is left alone."""
        views, found = self._given.views, []
        for item in views.cache.prefix(keys.BINDINGS):
            vm = item.key.removeprefix(keys.BINDINGS)
            binding, claim = views.record(item.key, Binding), views.claim(vm)
            unread = claim is None and views.exists(keys.claim(vm))
            held = claim is not None and bool(claim.node)
            if binding is not None and binding.node == node and not (unread or held):
                found.append(vm)
        return tuple(sorted(found))

    def _others(self, node: str) -> dict[str, str]:
        """Whose the storage addresses of the other nodes are."""
        views, found = self._given.views, {}
        for item in views.cache.prefix(keys.SESSIONS):
            other, session = item.key.removeprefix(keys.SESSIONS), views.record(item.key, Session)
            if session is not None and other != node:
                found.update(dict.fromkeys(session.addresses, other))
        return found

    def _went_down(self, node: str) -> bool:
        return self._given.views.node_in_force(node).stops

    def _settings(self, node: str) -> Mapping[str, str]:
        spec = self._given.views.spec(Kind.NODE, node, NodeSpec)
        return spec.fencing if spec is not None else {}

    def _alive(self, sight: Sight | None) -> frozenset[str]:
        found = set()
        if sight is not None and sight.heartbeat is not None and heard(sight, self._given.timers):
            found.add(sight.heartbeat.boot_id)
        if sight is not None and sight.lease is not None and renews(sight, self._given.timers):
            found.add(sight.lease.boot_id)
        return frozenset(found)

    def _says_empty(self, sight: Sight | None) -> bool:
        known = sight is not None and sight.heartbeat is not None and heard(sight, self._given.timers)
        return known and sight is not None and sight.heartbeat is not None and sight.heartbeat.empty

    def _off(self, sight: Sight) -> bool:
        return sight.heartbeat is not None and sight.heartbeat.boot_id in self._given.switched_off()

    def _silence(self, sight: Sight | None, record: FenceRecord | None) -> Silence | None:
        timers = self._given.timers
        if sight is None:
            return None
        audible = heard(sight, timers)
        if self._off(sight) and sight.heard is not None and not audible:
            # Its lease was not watched in the stall: only the mesh tells since when it is silent.
            return Silence(heard=sight.heard, lease=sight.lease_age, since=sight.heard)
        if renews(sight, timers):
            return None
        if audible and record is not None and record.cause is not FenceCause.STORAGE_LOST:
            return None
        return silence_of(
            sight.heard,
            sight.lease_age,
            audible=audible,
            ran_for=self._given.membership.ran_for(),
            cause=record.cause if record is not None else None,
        )

    def _fencers(self, order: FenceOrder | None) -> tuple[FencerInfo, ...]:
        """In the order of the policy's methods. Those of Ceph that the policy does not name any more still
        lift what they once entered."""
        methods = self._given.policy().methods
        known = self._given.fencers()
        chosen = [f for method in methods for f in known if f.method is method]
        retired = [f for f in known if f.fsid and f.method not in methods]
        infos = [self._info(fencer, fencer.unready(order) if order is not None else "") for fencer in chosen]
        infos += [self._info(fencer, "it is not among the cluster's `fencing.methods`") for fencer in retired]
        return tuple(infos)

    @staticmethod
    def _info(fencer: Fencer, unready: str) -> FencerInfo:
        return FencerInfo(id=fencer.id, method=fencer.method, fsid=fencer.fsid, unready=unready)


def _with(facts: FenceFacts, *, verdict: Verdict | None, fencers: tuple[FencerInfo, ...]) -> FenceFacts:
    return replace(facts, verdict=verdict, fencers=fencers)
