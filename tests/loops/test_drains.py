"""Cordons and drains in a simulated cluster of three nodes, whose masters come and go."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from reconciler.loops.intents import Intents
from reconciler.planning.intents import Verb
from reconciler.planning.node_intents import NodeVerb
from reconciler.resources import keys
from reconciler.resources.records import Claim, load
from reconciler.sim.cluster import SimCluster
from reconciler.sim.world import World
from reconciler.testing.manifests import parse

NODES = ("r1", "r2", "r3")


def manifest(name: str, **spec: str) -> bytes:
    fields = {"controller": "dummy", "cpu": "{cores: 1}", "memory": "64Mi", **spec}
    words = ", ".join(f"{key}: {value}" for key, value in fields.items())
    head = f"apiVersion: vcl/v1\nkind: VirtualMachine\nmetadata: {{name: {name}}}\n"
    return f"{head}spec: {{{words}}}\n".encode()


class Site:
    """Three nodes, none of which is ever fenced."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.cluster = SimCluster(world, NODES, parse)
        self.cluster.found()
        world.power_on()
        world.run_until(lambda: "r1" in self.cluster.masters(), 20.0, "there is a master")

    def run(self, *names: str, **spec: str) -> None:
        """Save these VMs, and see them run."""
        for name in names:
            self.cluster.save("r2", f"{name}.yaml", manifest(name, **spec))
        self.world.run_until(lambda: all(self.owner(name) for name in names), 60.0, f"{names} run")
        self.world.run_for(1.0)

    def claim(self, vm: str) -> Claim:
        found = self.world.storage.cluster.get([keys.claim(vm)])
        return load(Claim, found[keys.claim(vm)].value) if found else Claim()

    def owner(self, vm: str) -> str:
        return self.claim(vm).node

    def ask(self, on: str, verb: NodeVerb, node: str, *, bring_back: bool = False) -> None:
        self.world.call(on, lambda _: self._intents(on).apply_to_node(verb, node, bring_back=bring_back))

    def tell(self, on: str, verb: Verb, vm: str) -> None:
        self.world.call(on, lambda _: self._intents(on).apply(verb, vm))

    def _intents(self, on: str) -> Intents:
        loops = self.cluster.loops(on)
        assert loops is not None
        return Intents(loops.views, loops.writer, loops.ports.clock, loops.ports.ids)


@pytest.fixture
def site() -> Iterator[Site]:
    with World(seed=7) as world:
        yield Site(world)


def test_a_cordon_asked_of_any_node_outlasts_the_master_that_first_kept_it(site: Site) -> None:
    site.ask("r3", NodeVerb.CORDON, "r2")
    site.run("a", "b", "c")
    site.world.node("r1").power_off()
    site.world.run_until(lambda: "r2" in site.cluster.masters(), 30.0, "r2 is master")
    site.run("d", "e")
    assert "r2" not in {site.owner(name) for name in ("a", "b", "c", "d", "e")}
    site.ask("r2", NodeVerb.UNCORDON, "r2")
    site.run("f", "g")
    assert "r2" in {site.owner("f"), site.owner("g")}
