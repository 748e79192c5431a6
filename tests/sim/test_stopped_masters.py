"""The master is killed before each step of a fencing, and the next one finishes; no image has two writers."""

from __future__ import annotations

import pytest

from reconciler.adapters.schema_files import load_schemas
from reconciler.resources import keys
from reconciler.resources.manifest import ParsedFile, parse_manifest
from reconciler.resources.records import Claim, load
from reconciler.sim.cluster import SimCluster
from reconciler.sim.invariants import Invariants
from reconciler.sim.site_ceph import SiteCeph
from reconciler.sim.world import World
from reconciler.sim.writing import virtual_machine

SCHEMAS = load_schemas()
NODES = ("r1", "r2", "r3", "r4", "r5")


def parse(path: str, data: bytes) -> ParsedFile:
    return parse_manifest(path, data, SCHEMAS)


STEPS = ("Intend", "Settle", "BreakLocks", "Release", "Finish")


@pytest.mark.parametrize("step", ["Fence", *(pytest.param(each, marks=pytest.mark.slow) for each in STEPS)])
def test_the_master_is_killed_before_a_step_and_the_next_one_finishes(step: str) -> None:
    with World(seed=5) as world:
        killed: list[str] = []

        def reached(host: str, point: str) -> None:
            if point == f"fencing:{step}" and not killed:
                killed.append(host)
                world.at(world.now, world.node(host).kill)

        def owner() -> str:
            found = world.storage.cluster.get([keys.claim("web")]).get(keys.claim("web"))
            return load(Claim, found.value).node if found is not None else ""

        ceph = SiteCeph(world)
        cluster = SimCluster(world, NODES, parse, site=ceph, reached=reached)
        Invariants(cluster)
        cluster.found()
        world.power_on()
        world.run_for(8.0)
        cluster.save("r1", "web.yaml", virtual_machine("web", disk="1Gi"))
        world.run_until(lambda: max(ceph.counters.values(), default=0) > 3, 30.0, "the guest counts")
        victim, before = owner(), max(ceph.counters.values())
        world.node(victim).power_off()
        world.run_until(lambda: bool(killed), 60.0, "the master is killed")
        world.run_until(lambda: owner() not in ("", victim), 60.0, "it starts elsewhere")
        world.run_until(lambda: max(ceph.counters.values()) > before + 3, 60.0, "it counts on")
        assert killed != [victim]
