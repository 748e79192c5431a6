"""How three simulated nodes, with the production loops, tell where the VMs are."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from reconciler.loops.cluster_status import view_of
from reconciler.loops.liveness import Liveness
from reconciler.loops.placement_status import placement_of
from reconciler.planning.placement_view import Agreement, Held, PlacementView, VmLine
from reconciler.sim.cluster import SimCluster
from reconciler.sim.controller import DummyController
from reconciler.sim.dummy_guests import Faults
from reconciler.sim.world import World
from reconciler.testing.manifests import parse

NODES = ("r1", "r2", "r3")
WEB = b"""\
apiVersion: vcl/v1
kind: VirtualMachine
metadata: {name: web}
spec: {cpu: {cores: 2}, memory: 1Gi, controller: dummy}
"""


class Cluster:
    """Three nodes, and `web` running on one of them."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.sim = SimCluster(world, NODES, parse)
        self.sim.found()
        world.power_on()
        world.run_until(lambda: "r1" in self.sim.masters())
        self.sim.save("r2", "web.yaml", WEB)
        for _ in range(20):
            world.run_for(0.5)
            if all(self.line(name).state is Agreement.OK for name in NODES):
                break
        self.owner = self.line("r1").desired or ""

    def placement(self, node: str) -> PlacementView:
        loops = self.sim.loops(node)
        assert loops is not None
        liveness = Liveness(lambda: view_of(loops), loops.ports.clock, 0.5)
        found: PlacementView = self.world.call(node, lambda ports: placement_of(loops, liveness))
        return found

    def line(self, node: str) -> VmLine:
        found = [line for line in self.placement(node).vms if line.name == "web"]
        return found[0] if found else VmLine(name="web", state=Agreement.CHANGING)

    def hypervisor(self, node: str) -> DummyController:
        loops = self.sim.loops(node)
        assert loops is not None
        controller = loops.ports.controllers["dummy"]
        assert isinstance(controller, DummyController)
        return controller


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with World(seed=3) as world:
        yield Cluster(world)


def test_every_node_tells_the_same_and_each_only_its_own_domains(cluster: Cluster) -> None:
    for name in NODES:
        line = cluster.line(name)
        assert line.claimed == line.reported == Held(node=cluster.owner, phase="Running")
        assert line.local == ("Running" if name == cluster.owner else None)
        assert [(node.name, node.vms, node.used.cpu) for node in cluster.placement(name).nodes] == [
            (each, int(each == cluster.owner), 2 * (each == cluster.owner)) for each in NODES
        ]


def test_a_hypervisor_that_does_not_answer_is_told_as_such(cluster: Cluster) -> None:
    cluster.hypervisor(cluster.owner).hypervisor.faults = Faults(unavailable=("*",))
    line = cluster.line(cluster.owner)
    assert (line.local, line.state) == ("Unknown", "Unknown")
    assert "cannot tell whether it runs" in line.note


def test_what_a_node_without_power_reported_may_be_old(cluster: Cluster) -> None:
    cluster.world.node(cluster.owner).power_off()
    teller = next(name for name in NODES if name != cluster.owner)
    cluster.world.run_for(10.0)
    line = cluster.line(teller)
    assert line.state == "Unknown"
    assert f"{cluster.owner} is Silent" in line.note
