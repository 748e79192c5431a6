"""Fifty nodes form a cluster and elect, and go on without the first in rank."""

from __future__ import annotations

import pytest

from reconciler.adapters.schema_files import load_schemas
from reconciler.planning.liveness import HUBS
from reconciler.resources.manifest import ParsedFile, parse_manifest
from reconciler.sim.cluster import SimCluster
from reconciler.sim.world import World

SCHEMAS = load_schemas()
NODES = tuple(f"r{number:02}" for number in range(1, 51))


def parse(path: str, data: bytes) -> ParsedFile:
    return parse_manifest(path, data, SCHEMAS)


@pytest.mark.slow
def test_fifty_nodes_form_a_cluster_elect_and_lose_their_master() -> None:
    with World(seed=1) as world:
        cluster = SimCluster(world, NODES, parse)
        cluster.found()
        world.power_on()
        world.run_until(lambda: cluster.masters(), 5, "somebody is master")
        world.run_until(lambda: list(cluster.masters()) == ["r01"], 20, "the first in rank is master")
        world.run_until(lambda: _agree(cluster, "r01"), 10, "every node takes r01 for the master")
        links = [len(cluster.world.node(name).transport.links()) for name in NODES]
        assert links == [len(NODES) - 1] * HUBS + [HUBS] * (len(NODES) - HUBS)
        world.node("r01").power_off()
        world.run_until(lambda: list(cluster.masters()) == ["r02"], 8, "the second in rank is master")


def _agree(cluster: SimCluster, master: str) -> bool:
    found = [cluster.loops(name) for name in NODES]
    return all(loops is not None and loops.membership.bearing.master == master for loops in found)
