"""What the master would do: now, after an edit, without a node. Nothing is done.

Invariant: it asks the very plan that the master carries out, on the same values; what is only supposed (a
node down, or drained) is a change of these values. So what is shown is what will be, while `index` stays.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from reconciler.planning.desired import Wish
from reconciler.planning.master import VmRecords, demanded, plan_master
from reconciler.planning.node_capacity import Amount
from reconciler.planning.placement import NamedConstraint, NodeView, VmDemand
from reconciler.planning.reasons import Rejection, by_node
from reconciler.resources.codec import encode
from reconciler.resources.virtualmachine import EvictionStrategy

DOWN = "is supposed to be down"
DRAINED = "is supposed to be drained"


class Action(StrEnum):
    """Start: it is nowhere now. Restart: its node is lost, it starts elsewhere. Migrate: moves while it runs.
    Move: is shut down there and started elsewhere. Stop and Delete: as its manifest and verbs want it."""

    START = "Start"
    RESTART = "Restart"
    MIGRATE = "Migrate"
    MOVE = "Move"
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
    """What is taken to be so: nodes that are down, and nodes that are drained."""

    down: frozenset[str] = frozenset()
    drained: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """`source`: where it is now, `target`: where it will be; None: nowhere."""

    vm: str
    action: Action
    source: str | None = None
    target: str | None = None
    reason: str = ""


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
    """In order of name. `index` stands for everything that it was made from."""

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
    """What the master's plan says, by VM. `names`: of all nodes."""

    where: Mapping[str, str]
    why: Mapping[str, str]
    names: frozenset[str]
    supposed: Supposed


def prospect(now: Situation, then: Situation, supposed: Supposed, index: str) -> Prospect:
    """What would become of `now`, if all were as in `then` (the same, or after an edit) and as supposed."""
    sources = {vm.metadata.name: _node(vm) for vm in now.vms}
    vms = sorted((_suppose_vm(vm, supposed) for vm in then.vms), key=lambda vm: vm.metadata.name)
    nodes = tuple(_suppose_node(node, supposed) for node in sorted(then.nodes, key=lambda n: n.name))
    plan = plan_master(vms, nodes, then.constraints)
    planned = _Planned(
        where={bind.vm: bind.node for bind in plan.binds},
        why={bind.vm: bind.reason for bind in plan.binds} | {x.vm: x.reason for x in plan.not_placed},
        names=frozenset(node.name for node in nodes),
        supposed=supposed,
    )
    fates = [_fate(vm, sources.get(vm.metadata.name), planned) for vm in vms]
    before = [demand for vm in now.vms if (demand := demanded(vm)) is not None]
    after = [_settled(vm, sources.get(vm.metadata.name), planned) for vm in vms]
    return Prospect(
        index=index,
        changes=tuple(fate for fate in fates if isinstance(fate, Change)),
        waiting=tuple(fate for fate in fates if isinstance(fate, Waiting)),
        nodes=node_prospects(nodes, before, [demand for demand in after if demand is not None]),
    )


def _fate(vm: VmRecords, source: str | None, planned: _Planned) -> Change | Waiting | None:
    """What becomes of a VM; None: it stays as it is."""
    name, supposed = vm.metadata.name, planned.supposed
    if vm.desired.wish is not Wish.RUN:
        return _ending(vm, source)
    if name in planned.where:
        action, why = _action(vm, source, supposed), planned.why[name]
        return Change(vm=name, action=action, source=source, target=planned.where[name], reason=why)
    here = _node(vm)
    if here is not None and here not in supposed.drained:
        return None
    told = by_node(planned.why.get(name, ""), planned.names)
    if here is not None:
        told = (Rejection(node=here, reason="its evictionStrategy is None: it stays until it is stopped"),)
    return Waiting(vm=name, node=source, lost=source in supposed.down, nodes=told)


def _settled(vm: VmRecords, source: str | None, planned: _Planned) -> VmDemand | None:
    """What it takes up then, and where."""
    demand = demanded(vm)
    if demand is None or vm.desired.wish is not Wish.RUN:
        return None
    stays = demand.node or (source if source not in planned.supposed.down else None)
    return replace(demand, node=planned.where.get(demand.name, stays))


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


def _suppose_node(node: NodeView, supposed: Supposed) -> NodeView:
    if node.name in supposed.down:
        return replace(node, refuses=DOWN)
    return replace(node, refuses=DRAINED) if node.name in supposed.drained else node


def _suppose_vm(vm: VmRecords, supposed: Supposed) -> VmRecords:
    """Without its place, when its node is down, or drained and it may go."""
    node = _node(vm)
    may_go = vm.spec.eviction_strategy is not EvictionStrategy.NONE
    goes = node in supposed.down or (node in supposed.drained and may_go)
    return replace(vm, claim=None, binding=None) if goes and vm.desired.wish is Wish.RUN else vm


def _action(vm: VmRecords, source: str | None, supposed: Supposed) -> Action:
    if source is None:
        return Action.START
    if source in supposed.down:
        return Action.RESTART
    live = (EvictionStrategy.LIVE_MIGRATE, EvictionStrategy.LIVE_MIGRATE_IF_POSSIBLE)
    return Action.MIGRATE if source in supposed.drained and vm.spec.eviction_strategy in live else Action.MOVE


def _ending(vm: VmRecords, source: str | None) -> Change | None:
    deleted = vm.desired.wish is Wish.DELETED
    if source is None and not deleted:
        return None
    action = Action.DELETE if deleted else Action.STOP
    return Change(vm=vm.metadata.name, action=action, source=source, reason=vm.desired.reason)
