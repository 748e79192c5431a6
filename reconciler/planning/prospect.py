"""What the master would do: now, after an edit, without a node. Nothing is done.

Invariant: it asks the very plan that the master carries out, on the same values; what is only supposed (a
node down, or drained) is a change of these values. So what is shown is what will be, while `index` stays.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from reconciler.planning.desired import Wish
from reconciler.planning.eviction import OTHERS, Way, way_of
from reconciler.planning.master import NotPlaced, VmRecords, demand_of, demanded, guest_of, plan_master
from reconciler.planning.node_capacity import Amount
from reconciler.planning.packing.plans import Balancing, Kind, Mode, Policy, Step
from reconciler.planning.packing.plans import plan as packing_plan
from reconciler.planning.placement import NamedConstraint, NodeView, VmDemand
from reconciler.planning.reasons import Rejection
from reconciler.resources.codec import encode

DOWN = "is supposed to be down"
DRAINED = "is supposed to be drained"


class Action(StrEnum):
    """Start: it is nowhere now. Restart: its node is lost, it starts elsewhere. Migrate: moves while it runs.
    Move: is shut down there and started elsewhere. Evict: is stopped for one of higher priority. Stop and
    Delete: as its manifest and verbs want it."""

    START = "Start"
    RESTART = "Restart"
    MIGRATE = "Migrate"
    MOVE = "Move"
    EVICT = "Evict"
    STOP = "Stop"
    DELETE = "Delete"


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """All that placement is decided from."""

    vms: tuple[VmRecords, ...]
    nodes: tuple[NodeView, ...]
    constraints: tuple[NamedConstraint, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Supposed:
    """What is taken to be so: nodes that are down, and nodes that are drained. `repair`: what runs is moved
    where it breaks a rule, and to make room; `balance`: also where that evens out the use of nodes."""

    down: frozenset[str] = frozenset()
    drained: frozenset[str] = frozenset()
    repair: bool = False
    balance: bool = False

    @property
    def moves(self) -> bool:
        """Whether what runs is moved, which the master does not do (yet)."""
        return bool(self.drained) or self.repair or self.balance


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """`source`: where it is now, `target`: where it will be; None: nowhere. `turn`: moves come one turn after
    the other, from 1; those of one turn are made together."""

    vm: str
    action: Action
    source: str | None = None
    target: str | None = None
    reason: str = ""
    turn: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A VM that is to run and gets no place. `node`: where it is now, and stays (drained) or was (down)."""

    vm: str
    node: str | None = None
    lost: bool = False
    nodes: tuple[Rejection, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What VMs take up, and how many they are."""

    used: Amount = field(default_factory=Amount)
    vms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeProspect:
    """`note`: why it takes no new VMs."""

    name: str
    usable: Amount
    before: Load
    after: Load
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prospect:
    """In order of name, moves of what runs last and in the order in which they are possible. `index` stands
    for everything that it was made from."""

    index: str
    changes: tuple[Change, ...]
    waiting: tuple[Waiting, ...]
    nodes: tuple[NodeProspect, ...]

    @property
    def differs(self) -> bool:
        """Whether anything would be otherwise than it is."""
        return bool(self.changes) or any(waiting.lost for waiting in self.waiting)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Planned:
    """What the master's plan says, by VM."""

    where: Mapping[str, str]
    why: Mapping[str, str]
    refused: Mapping[str, tuple[Rejection, ...]]
    evicted: Mapping[str, str]
    supposed: Supposed


def prospect(now: Situation, then: Situation, supposed: Supposed, index: str) -> Prospect:
    """What would become of `now`, if all were as in `then` (the same, or after an edit) and as supposed."""
    sources = {vm.metadata.name: _node(vm) for vm in now.vms}
    vms = sorted((_suppose_vm(vm, supposed) for vm in then.vms), key=lambda vm: vm.metadata.name)
    nodes = tuple(suppose_node(node, supposed) for node in sorted(then.nodes, key=lambda n: n.name))
    plan = plan_master(vms, nodes, then.constraints)
    planned = _Planned(
        where={bind.vm: bind.node for bind in plan.binds},
        why={bind.vm: bind.reason for bind in plan.binds},
        refused={each.vm: _rejections(each) for each in plan.not_placed},
        evicted={unbind.vm: unbind.reason for unbind in plan.unbinds},
        supposed=supposed,
    )
    fates = [_fate(vm, sources.get(vm.metadata.name), planned) for vm in vms]
    before = [demand for vm in now.vms if (demand := demanded(vm)) is not None]
    settled = (_settled(vm, sources.get(vm.metadata.name), planned) for vm in vms)
    moved = _moved([vm for vm in settled if vm is not None], nodes, then, supposed)
    placed = {change.vm for change in moved.changes}
    waiting = [fate for fate in fates if isinstance(fate, Waiting) and fate.vm not in placed]
    return Prospect(
        index=index,
        changes=(*(fate for fate in fates if isinstance(fate, Change)), *moved.changes),
        waiting=tuple(sorted((*waiting, *moved.waiting), key=lambda each: each.vm)),
        nodes=node_prospects(nodes, before, moved.vms),
    )


def _fate(vm: VmRecords, source: str | None, planned: _Planned) -> Change | Waiting | None:
    """What the master makes of a VM; None: it stays as it is."""
    name, supposed = vm.metadata.name, planned.supposed
    if vm.desired.wish is not Wish.RUN:
        return _ending(vm, source)
    if name in planned.where:
        action = Action.START if source is None else Action.MOVE
        action = Action.RESTART if source in supposed.down else action
        why = planned.why[name]
        return Change(vm=name, action=action, source=source, target=planned.where[name], reason=why)
    if _node(vm) is None:
        lost, told = source in supposed.down, planned.refused.get(name, ())
        return Waiting(vm=name, node=source, lost=lost, nodes=told)
    if name in planned.evicted:
        return Change(vm=name, action=Action.EVICT, source=source, reason=planned.evicted[name])
    return None


def _settled(vm: VmRecords, source: str | None, planned: _Planned) -> VmDemand | None:
    """What it takes up then, and where."""
    demand = demanded(vm)
    if demand is None or vm.desired.wish is not Wish.RUN or vm.metadata.name in planned.evicted:
        return None
    stays = demand.node or (source if source not in planned.supposed.down else None)
    way, why = way_of(guest_of(vm, demand))
    fixed = demand.fixed or ("" if way is not None else why)
    return replace(demand, node=planned.where.get(demand.name, stays), fixed=fixed)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Moved:
    """What moving what runs comes to: where VMs are then, and who waits or has to stay."""

    vms: tuple[VmDemand, ...]
    changes: tuple[Change, ...] = ()
    waiting: tuple[Waiting, ...] = ()


def _moved(vms: Sequence[VmDemand], nodes: Sequence[NodeView], then: Situation, supposed: Supposed) -> _Moved:
    """The planner's moves, after what the master does; without anything supposed, off nodes being drained."""
    drained = {node.name for node in nodes if node.leaving}
    if not supposed.moves and not drained:
        return _Moved(vms=tuple(vms))
    if not supposed.moves:
        vms = [vm if vm.node in drained else replace(vm, fixed=vm.fixed or OTHERS) for vm in vms]
    mode = Mode.FULL if supposed.balance else Mode.MANUAL
    found = packing_plan(nodes, vms, then.constraints, Policy(balancing=Balancing(mode=mode)))
    ways = {vm.metadata.name: way_of(guest_of(vm, demand_of(vm)))[0] for vm in then.vms}
    at = {vm.name: vm.node for vm in vms}
    stays = [
        Waiting(
            vm=vm,
            node=at[vm],
            nodes=tuple(Rejection(node=node, reason=each.words) for node, each in sorted(why.items()))
            or (Rejection(node="", reason="there is no other node"),),
        )
        for vm, why in sorted(found.stays.items())
    ]
    stays += [
        Waiting(vm=vm.name, node=vm.node, nodes=(Rejection(node=vm.node or "", reason=vm.fixed),))
        for vm in vms
        if vm.node in drained and vm.fixed and vm.name not in found.stays
    ]
    return _Moved(
        vms=tuple(replace(vm, node=found.where.get(vm.name, vm.node)) for vm in vms),
        changes=tuple(_step(step, ways[step.vm]) for step in found.steps),
        waiting=tuple(stays),
    )


def _step(step: Step, way: Way | None) -> Change:
    match step.kind:
        case Kind.PLACE:
            action = Action.START
        case Kind.EVICT:
            action = Action.EVICT
        case _:
            action = Action.MIGRATE if way is Way.MIGRATE else Action.MOVE
    return Change(
        vm=step.vm,
        action=action,
        source=step.source,
        target=step.target,
        reason=step.reason,
        turn=step.turn + 1,
    )


def node_prospects(
    nodes: Iterable[NodeView], before: Iterable[VmDemand], after: Iterable[VmDemand]
) -> tuple[NodeProspect, ...]:
    """How the nodes are used by VMs as they are, and as they will be."""
    was, then = loads(before), loads(after)
    return tuple(
        NodeProspect(
            name=node.name,
            usable=Amount(cpu=node.cpu, memory=node.memory),
            before=was.get(node.name, Load()),
            after=then.get(node.name, Load()),
            note=node.refuses,
        )
        for node in nodes
    )


def loads(vms: Iterable[VmDemand]) -> dict[str, Load]:
    """What is used of each node that has VMs."""
    found: dict[str, Load] = defaultdict(Load)
    for vm in vms:
        if vm.node is not None:
            before = found[vm.node]
            used = Amount(cpu=before.used.cpu + vm.cpu, memory=before.used.memory + vm.memory)
            found[vm.node] = Load(used=used, vms=before.vms + 1)
    return found


def index_of(now: Situation, files: Mapping[str, bytes]) -> str:
    """The same for equal nodes, demands, constraints and manifests to apply. Which node takes no VMs counts,
    why it does not is but words."""
    nodes = [
        (n.name, n.cpu, n.memory, dict(n.labels), encode(n.taints), sorted(n.controllers), bool(n.refuses))
        for n in sorted(now.nodes, key=lambda node: node.name)
    ]
    vms = [
        (vm.desired.wish.value, encode(vm.metadata.labels), encode(demanded(vm)))
        for vm in sorted(now.vms, key=lambda vm: vm.metadata.name)
    ]
    rules = [encode(constraint) for constraint in sorted(now.constraints, key=lambda each: each.name)]
    contents = sorted(hashlib.sha256(content).hexdigest() for content in files.values())
    text = json.dumps([nodes, vms, rules, contents], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _node(vm: VmRecords | None) -> str | None:
    demand = demanded(vm) if vm is not None else None
    return demand.node if demand is not None else None


def _rejections(refused: NotPlaced) -> tuple[Rejection, ...]:
    """Node by node, or in one when it is about none."""
    found = tuple(Rejection(node=node, reason=why) for node, why in sorted(refused.nodes.items()))
    return found or (Rejection(node="", reason=refused.reason),)


def suppose_node(node: NodeView, supposed: Supposed) -> NodeView:
    """The node as it would be."""
    if node.name in supposed.down:
        return replace(node, refuses=DOWN)
    return replace(node, refuses=DRAINED, leaving=True) if node.name in supposed.drained else node


def _suppose_vm(vm: VmRecords, supposed: Supposed) -> VmRecords:
    """Without its place, when its node is down."""
    lost = _node(vm) in supposed.down and vm.desired.wish is Wish.RUN
    return replace(vm, claim=None, binding=None) if lost else vm


def _ending(vm: VmRecords, source: str | None) -> Change | None:
    deleted = vm.desired.wish is Wish.DELETED
    if source is None and not deleted:
        return None
    action = Action.DELETE if deleted else Action.STOP
    return Change(vm=vm.metadata.name, action=action, source=source, reason=vm.desired.reason)
