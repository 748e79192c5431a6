"""What placement is decided from: what nodes offer, what VMs ask for, and the constraints between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from reconciler.resources.domains import HostNetworks
from reconciler.resources.infrastructure import Taint
from reconciler.resources.placementconstraint import PlacementConstraintSpec
from reconciler.resources.virtualmachine import Toleration


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeView:
    """`cpu` (vCPUs) and `memory` (bytes) are what VMs may use, after reserve and overcommit.

    `refuses`: why the node takes no new VMs, empty when it does. `leaving`: its VMs are to go elsewhere.
    `recalls`: those that did, and are to come back; `parallel` of either at the same time. `networks`: what
    interfaces can be connected to, by controller, of those that tell.
    """

    name: str
    cpu: float
    memory: int
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()
    controllers: frozenset[str] = frozenset()
    refuses: str = ""
    leaving: bool = False
    recalls: frozenset[str] = frozenset()
    parallel: int = 4
    networks: Mapping[str, HostNetworks] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedOn:
    """A node gave the VM up: how often it failed there, and why, in words."""

    count: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VmDemand:
    """One VM; `node` is where it is bound already, None when it is to be placed; `homes`: the nodes that
    alone have one of its images (empty: all that it has can be reached from everywhere). `bridges`,
    `networks`: what its interfaces are connected to. `failed`: the nodes
    that gave it up; `leaves`: its own did, and does not hold it: it goes if another takes it.

    `preemption`: running VMs of lower priority may be stopped for it. `fixed`: why it cannot be moved, empty
    when it can. `going`: it is being stopped where it is; its room is free soon.
    """

    name: str
    cpu: int
    memory: int
    priority: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()
    controller: str = "libvirt"
    node: str | None = None
    homes: tuple[str, ...] = ()
    failed: Mapping[str, FailedOn] = field(default_factory=dict)
    leaves: bool = False
    preemption: bool = False
    fixed: str = ""
    going: bool = False
    bridges: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedConstraint:
    name: str
    spec: PlacementConstraintSpec
