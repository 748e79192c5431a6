"""Nodes, VMs and constraints as indices and whole numbers: built once, and never changed.

Invariants: nodes and VMs are in the order of their names, so that equal input gives equal plans; amounts are
integers (CPU in thousandths), so that a node that is exactly full is not over-full.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from reconciler.planning.demands import NamedConstraint, NodeView, VmDemand
from reconciler.resources.placementconstraint import ConstraintType, Enforcement, Selector

MILLI = 1000
NOWHERE = -1
UNKNOWN = "has not reported yet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A constraint between VMs: `domain` of each node (NOWHERE: it has none), the nodes `inside` each domain;
    `eligible` ones, `able` in number, have a node that takes VMs. `weight` 0: Required."""

    name: str
    type: ConstraintType
    domain: tuple[int, ...]
    inside: tuple[tuple[int, ...], ...]
    eligible: tuple[bool, ...]
    able: int
    members: tuple[int, ...]
    max_skew: int = 1
    weight: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRule:
    """A constraint between VMs and nodes. `allows`: by node; `wanted`: they are named to be used, not to be
    avoided. `weight` 0: Required."""

    name: str
    allows: tuple[bool, ...]
    wanted: bool = True
    weight: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """`at`: the node of each VM, NOWHERE when it is to be placed. `kind`: VMs of one kind may go to the same
    nodes as far as labels, taints, controllers, disks, failures and NodeRules are concerned:
    `reachable[kind][node]` is 1 or 0. `groups_of`, `wishes_of`: Required and Preferred constraints of each
    VM. `tie`: the rank of a node among equally loaded ones."""

    nodes: tuple[NodeView, ...]
    vms: tuple[VmDemand, ...]
    cpu: tuple[int, ...]
    memory: tuple[int, ...]
    open: tuple[bool, ...]
    needs_cpu: tuple[int, ...]
    needs_memory: tuple[int, ...]
    at: tuple[int, ...]
    kind: tuple[int, ...]
    reachable: tuple[bytes, ...]
    tie: tuple[int, ...]
    groups: tuple[Group, ...]
    groups_of: tuple[tuple[int, ...], ...]
    wishes_of: tuple[tuple[int, ...], ...]
    rules: tuple[NodeRule, ...] = ()
    rules_of: tuple[tuple[int, ...], ...] = field(default_factory=tuple)

    def on_one_node(self, group: Group) -> bool:
        """Whether all of the group must be on one node."""
        return (
            group.type is ConstraintType.AFFINITY
            and not group.weight
            and len(group.inside) == len(self.nodes)
        )


def build(
    nodes: Iterable[NodeView], vms: Iterable[VmDemand], constraints: Iterable[NamedConstraint]
) -> Problem:
    """The problem of these. A node that VMs are on, and of which nothing else is known, takes no others."""
    guests = tuple(sorted(vms, key=lambda vm: vm.name))
    known = {node.name: node for node in nodes}
    for vm in guests:
        if vm.node is not None and vm.node not in known:
            known[vm.node] = NodeView(name=vm.node, cpu=0.0, memory=0, refuses=UNKNOWN)
    hosts = tuple(known[name] for name in sorted(known))
    where = {node.name: index for index, node in enumerate(hosts)}
    ordered = sorted(constraints, key=lambda each: each.name)
    chosen = _Selection(guests)
    open_ = tuple(not node.refuses for node in hosts)
    rules, rules_of = _rules(ordered, chosen, hosts, len(guests))
    kind, reachable = _kinds(guests, hosts, rules, rules_of)
    groups, groups_of, wishes_of = _groups(ordered, chosen, hosts, _Able(open_, kind, reachable))
    return Problem(
        nodes=hosts,
        vms=guests,
        cpu=tuple(int(node.cpu * MILLI) for node in hosts),
        memory=tuple(node.memory for node in hosts),
        open=open_,
        needs_cpu=tuple(vm.cpu * MILLI for vm in guests),
        needs_memory=tuple(vm.memory for vm in guests),
        at=tuple(where.get(vm.node, NOWHERE) if vm.node is not None else NOWHERE for vm in guests),
        kind=kind,
        reachable=reachable,
        tie=_ties(hosts),
        groups=groups,
        groups_of=groups_of,
        wishes_of=wishes_of,
        rules=rules,
        rules_of=rules_of,
    )


class _Selection:
    """Which VMs a selector means, without asking each selector about each VM: VMs of the same labels are
    looked at once, names are looked up."""

    def __init__(self, vms: Sequence[VmDemand]) -> None:
        self._index = {vm.name: index for index, vm in enumerate(vms)}
        self._vms = vms
        alike: dict[tuple[tuple[str, str], ...], list[int]] = defaultdict(list)
        for index, vm in enumerate(vms):
            alike[tuple(sorted(vm.labels.items()))].append(index)
        self._alike = [(dict(labels), members) for labels, members in alike.items()]
        self._having: dict[tuple[str, str], list[int]] = defaultdict(list)
        for number, labels in enumerate(alike):
            for pair in labels:
                self._having[pair].append(number)

    def of(self, selector: Selector) -> tuple[int, ...]:
        """Indices, ascending."""
        if selector.names:
            named = {self._index[name] for name in selector.names if name in self._index}
            found = [i for i in named if selector.matches(self._vms[i].name, self._vms[i].labels)]
        else:
            found = [
                i for labels, some in self._candidates(selector) if selector.matches("", labels) for i in some
            ]
        return tuple(sorted(found))

    def _candidates(self, selector: Selector) -> list[tuple[dict[str, str], list[int]]]:
        if not selector.match_labels:
            return self._alike
        rarest = min((self._having.get(pair, []) for pair in selector.match_labels.items()), key=len)
        return [self._alike[number] for number in rarest]


def _rules(
    constraints: Sequence[NamedConstraint], chosen: _Selection, nodes: Sequence[NodeView], count: int
) -> tuple[tuple[NodeRule, ...], tuple[tuple[int, ...], ...]]:
    rules: list[NodeRule] = []
    of: dict[int, list[int]] = defaultdict(list)
    for constraint in constraints:
        spec = constraint.spec
        if spec.type not in (ConstraintType.NODE_AFFINITY, ConstraintType.NODE_ANTI_AFFINITY):
            continue
        wanted = spec.type is ConstraintType.NODE_AFFINITY
        allows = tuple(spec.nodes.matches(node.name, node.labels) is wanted for node in nodes)
        for vm in chosen.of(spec.vms):
            of[vm].append(len(rules))
        weight = spec.weight if spec.enforcement is Enforcement.PREFERRED else 0
        rules.append(NodeRule(name=constraint.name, allows=allows, wanted=wanted, weight=weight))
    return tuple(rules), _by_vm(of, count)


def _by_vm(of: Mapping[int, Sequence[int]], count: int) -> tuple[tuple[int, ...], ...]:
    """For each VM; most have none."""
    return tuple(tuple(of[vm]) if vm in of else () for vm in range(count))


class _Able:
    """Which nodes can take any of some VMs at all."""

    def __init__(self, open_: Sequence[bool], kind: Sequence[int], reachable: Sequence[bytes]) -> None:
        self.count = len(kind)
        self._open = open_
        self._kind = kind
        self._reachable = reachable

    def kinds(self, vms: Iterable[int]) -> frozenset[int]:
        return frozenset(self._kind[vm] for vm in vms)

    def take(self, kinds: Iterable[int]) -> list[bool]:
        """By node."""
        able = [False] * len(self._open)
        for kind in kinds:
            able = [a or bool(reached) for a, reached in zip(able, self._reachable[kind], strict=True)]
        return [a and takes for a, takes in zip(able, self._open, strict=True)]


def _groups(
    constraints: Sequence[NamedConstraint], chosen: _Selection, nodes: Sequence[NodeView], able: _Able
) -> tuple[tuple[Group, ...], tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...]]:
    topologies: dict[str, tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]] = {}
    eligible: dict[tuple[str, frozenset[int]], tuple[bool, ...]] = {}
    groups: list[Group] = []
    required: dict[int, list[int]] = defaultdict(list)
    preferred: dict[int, list[int]] = defaultdict(list)
    for constraint in constraints:
        spec = constraint.spec
        members = chosen.of(spec.vms)
        if spec.type in (ConstraintType.NODE_AFFINITY, ConstraintType.NODE_ANTI_AFFINITY) or not members:
            continue
        key = spec.topology_key
        if key not in topologies:
            topologies[key] = _topology(key, nodes)
        domain, inside = topologies[key]
        kinds = able.kinds(members) if spec.type is ConstraintType.SPREAD else frozenset()
        if (key, kinds) not in eligible:
            eligible[key, kinds] = _eligible(domain, len(inside), able.take(kinds))
        soft = spec.enforcement is Enforcement.PREFERRED
        for vm in members:
            (preferred if soft else required)[vm].append(len(groups))
        groups.append(
            Group(
                name=constraint.name,
                type=spec.type,
                domain=domain,
                inside=inside,
                eligible=eligible[key, kinds],
                able=sum(eligible[key, kinds]) if kinds else 0,
                members=members,
                max_skew=spec.max_skew,
                weight=spec.weight if soft else 0,
            )
        )
    return tuple(groups), _by_vm(required, able.count), _by_vm(preferred, able.count)


def _topology(key: str, nodes: Sequence[NodeView]) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]:
    """The domain of each node, and the nodes of each domain."""
    known: dict[str, int] = {}
    domain: list[int] = []
    inside: list[list[int]] = []
    for index, node in enumerate(nodes):
        value = node.name if key == "node" else node.labels.get(key)
        domain.append(NOWHERE if value is None else known.setdefault(value, len(known)))
        if value is not None:
            if domain[-1] == len(inside):
                inside.append([])
            inside[domain[-1]].append(index)
    return tuple(domain), tuple(map(tuple, inside))


def _eligible(domain: Sequence[int], domains: int, able: Sequence[bool]) -> tuple[bool, ...]:
    """The domains that have a node which can take one of the VMs."""
    eligible = [False] * domains
    for place, can in zip(domain, able, strict=True):
        if can and place != NOWHERE:
            eligible[place] = True
    return tuple(eligible)


def _ties(nodes: Sequence[NodeView]) -> tuple[int, ...]:
    """Of equally loaded nodes the one with more memory comes first, then the last by name: the first is
    often the master."""
    ranked = sorted(range(len(nodes)), key=lambda n: (-nodes[n].memory, -n))
    tie = [0] * len(nodes)
    for rank, node in enumerate(ranked):
        tie[node] = rank
    return tuple(tie)


def _kinds(
    vms: Sequence[VmDemand],
    nodes: Sequence[NodeView],
    rules: Sequence[NodeRule],
    rules_of: Sequence[tuple[int, ...]],
) -> tuple[tuple[int, ...], tuple[bytes, ...]]:
    known: dict[object, int] = {}
    kind: list[int] = []
    reachable: list[bytes] = []
    for vm, mine in zip(vms, rules_of, strict=True):
        hard = tuple(rule for rule in mine if not rules[rule].weight)
        key: object = vm.controller
        wires = (vm.bridges, vm.networks)
        if vm.node_selector or vm.tolerations or vm.homes or hard or vm.failed or any(wires):
            wants = tuple(sorted(vm.node_selector.items()))
            key = (wants, vm.tolerations, vm.controller, vm.homes, wires, hard, frozenset(vm.failed))
        number = known.setdefault(key, len(known))
        if number == len(reachable):
            reachable.append(_reach(vm, nodes, [rules[rule].allows for rule in hard]))
        kind.append(number)
    return tuple(kind), tuple(reachable)


def _reach(vm: VmDemand, nodes: Sequence[NodeView], allows: Sequence[Sequence[bool]]) -> bytes:
    """1 for each node that can take it as far as labels, taints, disks, failures and rules go. Nodes alike
    in all that counts are looked at once."""
    seen: dict[object, bool] = {}
    found = bytearray(len(nodes))
    wanted = sorted(vm.node_selector)
    for index, node in enumerate(nodes):
        if (vm.homes and vm.homes != (node.name,)) or node.name in vm.failed:
            continue
        wires = node.networks.get(vm.controller)
        alike = (tuple(node.labels.get(key) for key in wanted), node.taints, node.controllers, wires)
        able = seen.get(alike)
        if able is None:
            able = seen[alike] = not unreachable(vm, node)
        found[index] = able and all(allowed[index] for allowed in allows)
    return bytes(found)


def unreachable(vm: VmDemand, node: NodeView) -> str:
    """Why this VM can never be on this node, whatever else is there; empty when it can."""
    return next(obstacles(vm, node), "")


def obstacles(vm: VmDemand, node: NodeView) -> Iterator[str]:
    """All that keeps it from there, whatever else is there."""
    if node.controllers and vm.controller not in node.controllers:
        yield f"has no controller '{vm.controller}' (has {', '.join(sorted(node.controllers))})"
    away = [home for home in vm.homes if home != node.name]
    if away:
        yield f"a disk image is on {' and '.join(away)} only"
    for key, value in sorted(vm.node_selector.items()):
        if node.labels.get(key) != value:
            yield f"nodeSelector wants label {key}={value}"
    for taint in node.taints:
        if not any(t.key == taint.key and t.value in (None, taint.value) for t in vm.tolerations):
            yield f"taint {taint.key} is not tolerated"
    there = node.networks.get(vm.controller)
    if there is None:
        return
    if "bridges" not in there.unknown:
        yield from _lacking("bridge", vm.bridges, there.bridges)
    if "networks" not in there.unknown:
        yield from _lacking("active network", vm.networks, there.networks)


def _lacking(what: str, wanted: Sequence[str], there: Sequence[str]) -> Iterator[str]:
    """Bridges, or networks, that the host has not."""
    for name in wanted:
        if name not in there:
            yield f"has no {what} '{name}' (has {', '.join(there) or 'none'})"
