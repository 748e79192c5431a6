"""Small random clusters, in every state that a cluster can be in: over-full, with broken rules, with nodes of
which nothing is known."""

from __future__ import annotations

from hypothesis import strategies as st

from reconciler.planning.demands import FailedOn, NamedConstraint, NodeView, VmDemand
from reconciler.resources.codec import decode
from reconciler.resources.infrastructure import Taint
from reconciler.resources.placementconstraint import PlacementConstraintSpec
from reconciler.resources.virtualmachine import Toleration
from tests.planning.packing.rules import Cluster

GIB = 2**30
NAMES = ["n0", "n1", "n2", "n3", "n4"]


@st.composite
def nodes(draw: st.DrawFn, name: str) -> NodeView:
    state = draw(st.sampled_from(["", "", "", "", "cordoned", "drained"]))
    return NodeView(
        name=name,
        cpu=draw(st.sampled_from([2, 4, 8])),
        memory=draw(st.sampled_from([4, 8])) * GIB,
        labels={"rack": draw(st.sampled_from("ab"))} if draw(st.integers(0, 5)) else {},
        taints=(Taint(key="gpu"),) if not draw(st.integers(0, 7)) else (),
        refuses=state,
        leaving=state == "drained",
    )


@st.composite
def vms(draw: st.DrawFn, name: str, running: bool) -> VmDemand:
    rare = st.integers(0, 9).map(lambda n: n == 0)
    node = draw(st.sampled_from([*NAMES, None])) if running else None
    failed = {"n0": FailedOn(count=3, why="it failed there")} if draw(rare) else {}
    return VmDemand(
        name=name,
        cpu=draw(st.integers(0, 3)),
        memory=draw(st.integers(0, 4)) * GIB,
        priority=draw(st.sampled_from([0, 0, 5])),
        labels={"app": draw(st.sampled_from("xy"))},
        node_selector={"rack": "a"} if draw(rare) else {},
        tolerations=(Toleration(key="gpu"),) if draw(rare) else (),
        homes=("n1",) if draw(rare) else (),
        failed=failed,
        leaves=bool(failed) and node == "n0",
        preemption=draw(rare),
        node=node,
        fixed="it is busy" if draw(rare) else "",
    )


@st.composite
def constraints(draw: st.DrawFn, name: str) -> NamedConstraint:
    kind = draw(st.sampled_from(["Affinity", "AntiAffinity", "NodeAffinity", "NodeAntiAffinity", "Spread"]))
    by_label = {"matchLabels": {"app": draw(st.sampled_from("xy"))}}
    spec: dict[str, object] = {
        "type": kind,
        "vms": draw(st.sampled_from([by_label, {"names": ["v0", "v1"]}])),
        "enforcement": draw(st.sampled_from(["Required", "Required", "Preferred"])),
    }
    if kind.startswith("Node"):
        spec["nodes"] = {"names": draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True))}
    else:
        spec["topologyKey"] = draw(st.sampled_from(["node", "node", "rack"]))
    if kind == "Spread":
        spec["maxSkew"] = draw(st.integers(1, 2))
    return NamedConstraint(name=name, spec=decode(PlacementConstraintSpec, spec))


@st.composite
def clusters(draw: st.DrawFn, *, running: bool = True) -> Cluster:
    """At most five nodes and a dozen VMs."""
    names = NAMES[: draw(st.integers(1, 5))]
    return Cluster(
        nodes=[draw(nodes(name)) for name in names],
        vms=[draw(vms(f"v{number}", running)) for number in range(draw(st.integers(0, 12)))],
        constraints=[draw(constraints(f"c{number}")) for number in range(draw(st.integers(0, 3)))],
    )
