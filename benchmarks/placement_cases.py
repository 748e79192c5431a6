"""Random clusters to place VMs on, for the benchmarks of placement: equal seeds give equal clusters."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from reconciler.planning.demands import NamedConstraint, NodeView, VmDemand
from reconciler.planning.packing.plans import Policy, plan
from reconciler.resources.codec import decode
from reconciler.resources.placementconstraint import PlacementConstraintSpec

GIB = 1 << 30
SIZES = ((1, 1), (1, 2), (2, 2), (2, 4), (2, 8), (4, 8), (4, 16), (8, 16), (8, 32))
"""vCPUs and GiB of VMs."""
Sizes = tuple[tuple[int, int], ...]
MIXED: Sizes = ((16, 32), (16, 64), (32, 128))
ALIKE: Sizes = ((128, 256),)
LARGER: Sizes = ((32, 64), (32, 128), (48, 160))
"""vCPUs and GiB of nodes; of the last, ten VMs each make them 95 % used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    name: str
    nodes: tuple[NodeView, ...]
    vms: tuple[VmDemand, ...]
    constraints: tuple[NamedConstraint, ...]


def rule(name: str, type_: str, vms: dict[str, object], **more: object) -> NamedConstraint:
    """A Required constraint, if not said otherwise."""
    return NamedConstraint(
        name=name, spec=decode(PlacementConstraintSpec, {"type": type_, "vms": vms, **more})
    )


def nodes_of(rng: random.Random, count: int, sizes: Sizes) -> list[NodeView]:
    found = []
    for number in range(count):
        cpu, memory = rng.choice(sizes)
        labels = {"rack": f"k{number % max(2, count // 10)}", "disk": rng.choice(("ssd", "hdd"))}
        found.append(NodeView(name=f"n{number:05}", cpu=cpu, memory=memory * GIB, labels=labels))
    return found


def vms_of(rng: random.Random, nodes: list[NodeView], count: int, used: float) -> list[VmDemand]:
    """At most `count`, until the scarcer resource is used to this share."""
    cpu, memory = sum(node.cpu for node in nodes) * used, sum(node.memory for node in nodes) * used
    found: list[VmDemand] = []
    while len(found) < count:
        c, m = rng.choice(SIZES)
        cpu, memory = cpu - c, memory - m * GIB
        if cpu < 0 or memory < 0:
            break
        number = len(found)
        selector = {"disk": "ssd"} if rng.random() < 0.1 else {}
        found.append(
            VmDemand(
                name=f"v{number:06}",
                cpu=c,
                memory=m * GIB,
                priority=rng.choice((0, 0, 0, 100)),
                labels={"app": f"a{number // 5}"},
                node_selector=selector,
            )
        )
    return found


def constraints_of(
    rng: random.Random, vms: list[VmDemand], nodes: int, share: float
) -> list[NamedConstraint]:
    """For this share of the apps, of five VMs each, one."""
    found = []
    for app in range(-(-len(vms) // 5)):
        if rng.random() >= share:
            continue
        selected: dict[str, object] = {"matchLabels": {"app": f"a{app}"}}
        kind = rng.choice(("AntiAffinity", "AntiAffinity", "Spread", "Affinity"))
        if kind == "AntiAffinity" and nodes >= 5:
            found.append(rule(f"c{app:05}", kind, selected))
        elif kind == "Spread":
            found.append(rule(f"c{app:05}", kind, selected, topologyKey="rack", maxSkew=2))
        elif kind == "Affinity":
            pair: dict[str, object] = {"names": [f"v{app * 5:06}", f"v{app * 5 + 1:06}"]}
            found.append(rule(f"c{app:05}", kind, pair))
    return found


def cold(seed: int, nodes: int, vms: int, used: float, *, sizes: Sizes = MIXED, share: float = 0.3) -> Case:
    """Nothing is placed."""
    rng = random.Random(seed)
    hosts = nodes_of(rng, nodes, sizes)
    guests = vms_of(rng, hosts, vms, used)
    rules = constraints_of(rng, guests, nodes, share)
    return Case(name="cold", nodes=tuple(hosts), vms=tuple(guests), constraints=tuple(rules))


def settled(case: Case) -> Case:
    """All that has a place is in it; the rest is gone."""
    where = plan(case.nodes, case.vms, case.constraints).where
    return replace(case, vms=tuple(replace(vm, node=where[vm.name]) for vm in case.vms if where.get(vm.name)))


def node_lost(case: Case, rng: random.Random) -> Case:
    """One node is gone, its VMs have no place."""
    lost = rng.choice(case.nodes).name
    return replace(
        case,
        name="node lost",
        nodes=tuple(node for node in case.nodes if node.name != lost),
        vms=tuple(replace(vm, node=None) if vm.node == lost else vm for vm in case.vms),
    )


def drained(case: Case, rng: random.Random) -> Case:
    """One node is to be emptied."""
    gone = rng.choice(case.nodes).name
    nodes = (replace(n, refuses="drained", leaving=True) if n.name == gone else n for n in case.nodes)
    return replace(case, name="drained", nodes=tuple(nodes))


def ruled(case: Case, rng: random.Random) -> Case:
    """Constraints come that what runs does not keep."""
    found = list(case.constraints)
    for number in range(3):
        some = sorted(rng.sample([vm.name for vm in case.vms], k=min(3, len(case.vms))))
        apart = len(case.nodes) >= 3 and rng.random() < 0.7
        if apart:
            found.append(rule(f"later{number}", "AntiAffinity", {"names": some}))
        else:
            avoid = {"names": [rng.choice(case.nodes).name]}
            found.append(rule(f"later{number}", "NodeAntiAffinity", {"names": some}, nodes=avoid))
    return replace(case, name="new rules", constraints=tuple(found))


def shrunk(case: Case, rng: random.Random) -> Case:
    """A node has less than it had."""
    small = rng.choice(case.nodes).name
    nodes = (
        replace(n, cpu=n.cpu * 0.75, memory=n.memory * 3 // 4) if n.name == small else n for n in case.nodes
    )
    return replace(case, name="node shrank", nodes=tuple(nodes))


CHANGES: tuple[Callable[[Case, random.Random], Case], ...] = (node_lost, drained, ruled, shrunk)


def uneven(seed: int, nodes: int, vms: int, used: float) -> Case:
    """Running VMs, most of them on the first nodes, no rule broken."""
    rng = random.Random(seed)
    hosts = nodes_of(rng, nodes, ALIKE)
    guests = vms_of(rng, hosts, vms, used)
    free = {node.name: [node.cpu, node.memory] for node in hosts}
    placed = []
    for vm in guests:
        for node in sorted(hosts, key=lambda _: rng.random() ** 2):
            has = free[node.name]
            if has[0] >= vm.cpu and has[1] >= vm.memory:
                has[0] -= vm.cpu
                has[1] -= vm.memory
                placed.append(replace(vm, node=node.name, node_selector={}))
                break
    return Case(name="uneven", nodes=tuple(hosts), vms=tuple(placed), constraints=())


def after(case: Case, policy: Policy | None = None) -> dict[str, str | None]:
    """Where each VM is once the plan is carried out."""
    where: dict[str, str | None] = {vm.name: vm.node for vm in case.vms}
    return where | plan(case.nodes, case.vms, case.constraints, policy).where
