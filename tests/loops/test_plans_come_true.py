"""What is planned is what is done: a plan is made on a simulated cluster, then it happens."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from reconciler.loops.apply import Manifests
from reconciler.loops.assembly import absence
from reconciler.loops.plans import Planned, Plans
from reconciler.planning.prospect import Action, Supposed
from reconciler.ports.manifests import ApplyInput
from reconciler.resources import keys
from reconciler.resources.records import Binding, Claim, load
from reconciler.sim.cluster import SimCluster
from reconciler.sim.fencer import SimBlocklist, SimCephFencer
from reconciler.sim.world import World
from reconciler.testing.manifests import parse, together

NODES = ("r1", "r2", "r3")
SIZES = {"a": 1, "b": 2, "c": 3, "d": 1, "e": 2, "f": 3}


def manifest(name: str, gib: int) -> bytes:
    head = f"apiVersion: vcl/v1\nkind: VirtualMachine\nmetadata: {{name: {name}}}\n"
    return f"{head}spec: {{controller: dummy, cpu: {{cores: 1}}, memory: {gib}Gi}}\n".encode()


class Site:
    """Three nodes and six VMs of different sizes, all running."""

    def __init__(self, world: World) -> None:
        self.world = world
        blocklist = SimBlocklist(fsid="ceph", now=lambda: world.now)
        self.cluster = SimCluster(world, NODES, parse, fencers=lambda ports: (SimCephFencer(blocklist),))
        self.cluster.found()
        files = {f"{name}.yaml": manifest(name, gib) for name, gib in SIZES.items()}
        for host in NODES:
            self.cluster.hosts[host].directory.files |= files
        world.power_on()
        world.run_until(lambda: self.where().keys() == SIZES.keys(), 60.0, "all VMs have an owner")
        world.run_for(5.0)

    def where(self) -> dict[str, str]:
        """Who owns each VM that somebody owns."""
        found = {}
        for name in (*SIZES, "new"):
            item = self.world.storage.cluster.get([keys.claim(name)]).get(keys.claim(name))
            if item is not None and load(Claim, item.value).node:
                found[name] = load(Claim, item.value).node
        return found

    def bound(self, name: str) -> str:
        item = self.world.storage.cluster.get([keys.binding(name)]).get(keys.binding(name))
        return load(Binding, item.value).node if item is not None else ""

    def plan(self, on: str, supposed: Supposed, *contents: bytes) -> Planned:
        loops = self.cluster.loops(on)
        assert loops is not None
        absent = partial(absence, loops.ports, loops.membership)
        manifests = Manifests(loops.manifests)
        plans = Plans(loops.views, loops.ports.clock, loops.manifests.reader, manifests, absent)
        files = [ApplyInput(name="new.yaml", content=content) for content in contents]
        found: Planned = self.world.call(on, lambda ports: plans.plan(files, supposed))
        return found


@pytest.fixture
def site() -> Iterator[Site]:
    with World(seed=11) as world:
        yield Site(world)


def test_a_nodes_death_does_what_was_planned(site: Site) -> None:
    before = site.where()
    victim = before["c"]
    teller = next(name for name in NODES if name != victim)
    planned = site.plan(teller, Supposed(down=frozenset({victim}))).prospect
    assert {(c.action, c.source) for c in planned.changes} == {(Action.RESTART, victim)}
    expected = before | {change.vm: str(change.target) for change in planned.changes}
    site.world.node(victim).power_off()
    site.world.run_until(lambda: victim not in site.where().values(), 120.0, "it is fenced")
    site.world.run_until(lambda: site.where().keys() == SIZES.keys(), 60.0, "all VMs have an owner again")
    assert site.where() == expected


def test_a_new_manifest_goes_where_it_was_planned(site: Site) -> None:
    planned = site.plan("r2", Supposed(), manifest("new", 4)).prospect
    (change,) = planned.changes
    site.cluster.save("r2", "new.yaml", manifest("new", 4))
    site.world.run_until(lambda: "new" in site.where(), 30.0, "it has an owner")
    assert (change.vm, site.where()["new"], site.bound("new")) == ("new", change.target, change.target)


def test_every_node_plans_the_same(site: Site) -> None:
    edit = together(manifest("new", 4), manifest("a", 2))
    told = [site.plan(name, Supposed(down=frozenset({"r3"})), edit) for name in ("r1", "r2")]
    assert told[0] == told[1]
