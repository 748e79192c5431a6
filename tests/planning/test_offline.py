"""A placement without a cluster, from manifests and CSV."""

from __future__ import annotations

import pytest

from reconciler.adapters.schema_files import load_schemas
from reconciler.planning.headroom import Cluster, Lost
from reconciler.planning.offline import cluster_of, simulate
from reconciler.planning.offline_csv import nodes_of_csv, vms_of_csv
from reconciler.planning.prospect import Action
from reconciler.resources.errors import InvalidInput
from reconciler.resources.manifest import parse_manifest

GIB = 2**30
NODES = "name,cpu,memory,labels,reserved_memory\nr1,4,8Gi,zone=a;disk=ssd,1Gi\nr2,4,8Gi,zone=b,\n"


def cluster(vms: str, nodes: str = NODES) -> Cluster:
    return cluster_of((), nodes_of_csv("nodes.csv", nodes), vms_of_csv("vms.csv", vms))


def manifests(text: str) -> Cluster:
    return cluster_of(parse_manifest("all.yaml", text.encode(), load_schemas()).documents, (), ())


def test_nodes_of_csv_have_the_defaults_of_a_node() -> None:
    r1, r2 = nodes_of_csv("nodes.csv", NODES)
    assert (r1.cpu, r1.memory, r2.memory) == (16, 7 * GIB, 8 * GIB)
    assert (r1.labels["zone"], r1.labels["disk"], r1.labels["node"]) == ("a", "ssd", "r1")


def test_a_table_in_thousandths_and_mebibytes_is_read_as_well() -> None:
    (node,) = nodes_of_csv("n.csv", "sn,cpu_milli,memory_mib,overcommit_cpu,model\nx,32000,262144,1,P100\n")
    assert (node.name, node.cpu, node.memory) == ("x", 32, 256 * GIB)


def test_a_line_may_stand_for_several_vms_and_a_fraction_of_a_cpu_is_a_whole_one() -> None:
    vms = vms_of_csv("v.csv", "name,cpu,memory,count,priority,node_selector\nweb,500m,1Gi,2,7,zone=a\n\n")
    assert [(v.name, v.cpu, v.priority, v.node_selector) for v in vms] == [
        ("web-1", 1, 7, {"zone": "a"}),
        ("web-2", 1, 7, {"zone": "a"}),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cpu,memory\n1,1Gi\n", "v.csv:1: the first line must name the columns"),
        ("name,cpu,memory\na,1,1Gi\n,1,1Gi\n", "v.csv:3: name: is missing"),
        ("name,cpu,memory\na,,1Gi\n", "v.csv:2: cpu: is missing"),
        ("name,cpu,memory\na,1,lots\n", "v.csv:2: memory: must be a quantity"),
        ("name,cpu,memory,labels\na,1,1Gi,web\n", "v.csv:2: labels: must be key=value"),
    ],
)
def test_what_is_wrong_in_a_table_is_named_with_line_and_column(text: str, message: str) -> None:
    with pytest.raises(InvalidInput) as wrong:
        vms_of_csv("v.csv", text)
    assert str(wrong.value).startswith(message)


def test_everything_is_placed_and_what_is_not_says_why() -> None:
    found = simulate(cluster("name,cpu,memory\na,2,6Gi\nb,2,6Gi\nc,2,6Gi\n"), frozenset(), with_losses=False)
    assert len(found.changes) == 2
    (waiting,) = found.waiting
    assert {r.node for r in waiting.nodes} == {"r1", "r2"}
    assert all("memory" in r.reason for r in waiting.nodes)
    assert found.losses is None
    assert all(node.before == node.after for node in found.nodes)


def test_a_lost_nodes_vms_start_elsewhere() -> None:
    vms = "name,cpu,memory\na,1,1Gi\nb,1,1Gi\n"
    before = simulate(cluster(vms), frozenset(), with_losses=True)
    assert before.losses == ()
    after = simulate(cluster(vms), frozenset({"r2"}), with_losses=True)
    assert {(c.action, c.source, c.target) for c in after.changes} == {(Action.RESTART, "r2", "r1")}
    assert [node.after.vms for node in after.nodes] == [2, 0]
    assert after.losses == (Lost(node="r1", pinned=("a", "b")),)


def test_manifests_are_placed_with_their_constraints_and_halted_vms_are_not() -> None:
    found = manifests(
        """\
apiVersion: vcl/v1
kind: Node
metadata: {name: r1}
spec: {capacity: {cpu: 8, memory: 32Gi}, unschedulable: true}
---
apiVersion: vcl/v1
kind: VirtualMachine
metadata: {name: a, labels: {app: x}}
spec: {cpu: {cores: 2}, memory: 1Gi}
---
apiVersion: vcl/v1
kind: VirtualMachine
metadata: {name: b}
spec: {cpu: {cores: 2}, memory: 1Gi, runStrategy: Halted}
---
apiVersion: vcl/v1
kind: PlacementConstraint
metadata: {name: only}
spec: {type: NodeAffinity, vms: {names: [a]}, nodes: {names: [r1]}}
"""
    )
    assert ([vm.name for vm in found.vms], [c.name for c in found.constraints]) == (["a"], ["only"])
    (waiting,) = simulate(found, frozenset(), with_losses=False).waiting
    assert waiting.nodes[0].reason == "cordoned (unschedulable)"


def test_a_node_that_does_not_say_what_it_has_cannot_be_asked() -> None:
    with pytest.raises(InvalidInput, match="Node 'r1' does not say what it has"):
        manifests("apiVersion: vcl/v1\nkind: Node\nmetadata: {name: r1}\nspec: {}\n")
