"""Where VMs go, for who may not move what runs: the planner's answer to the master, by name.

Hard rules and the order of goals are docs/concepts/placement.md. Nothing that is placed is moved, but a VM
that its node gave up after failures, when another node fits that did not; what runs is stopped only for a VM
with `preemption` and a higher priority. Plans that move are `packing.plans`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from reconciler.planning.demands import FailedOn, NamedConstraint, NodeView, VmDemand
from reconciler.planning.packing.plans import Kind, Policy, plan, told

LOOKS = 40_000
"""The master plans between two heartbeats: some tenth of a second goes into what is short."""

__all__ = ["FailedOn", "NamedConstraint", "NodeView", "Placement", "VmDemand", "place"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """`bindings`: VM -> node for those newly placed; `reasons`: for every VM asked for, why there or why
    not; `refused`: for each VM without a place, each node and why not; `stays`: VM -> node for those that
    failed there, and that no other node takes; `evicted`: VM -> why it is to be stopped where it runs."""

    bindings: Mapping[str, str]
    reasons: Mapping[str, str]
    refused: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    stays: Mapping[str, str] = field(default_factory=dict)
    evicted: Mapping[str, str] = field(default_factory=dict)


def place(
    nodes: Sequence[NodeView], vms: Sequence[VmDemand], constraints: Sequence[NamedConstraint]
) -> Placement:
    """Place every VM whose `node` is None, or that leaves it. Deterministic: ties are broken by name.

    A VM that others are stopped for is bound when they are gone: until then its reason says what it awaits.
    """
    found = plan(nodes, vms, constraints, Policy(repair=False, looks=LOOKS))
    asked = {vm.name: vm for vm in vms}
    bindings: dict[str, str] = {}
    reasons = {vm: told(why) for vm, why in (*found.refused.items(), *found.stays.items())}
    evicted: dict[str, str] = {}
    for step in found.steps:
        if step.awaits:
            reasons[step.vm] = f"waits until {', '.join(step.awaits)} is stopped for it on {step.target}"
            evicted |= {
                vm: f"stopped for {step.vm}, which has a higher priority and preemption"
                for vm in step.awaits
                if not asked[vm].going
            }
        elif step.kind is not Kind.EVICT and step.vm not in evicted and step.target is not None:
            bindings[step.vm], reasons[step.vm] = step.target, step.reason
    return Placement(
        bindings={vm: node for vm, node in bindings.items() if vm not in evicted},
        reasons={vm: why for vm, why in reasons.items() if vm not in evicted},
        refused={
            vm: {node: each.words for node, each in why.items()}
            for vm, why in found.refused.items()
            if vm not in evicted
        },
        stays={vm: asked[vm].node or "" for vm in found.stays},
        evicted=evicted,
    )
