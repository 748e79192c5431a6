"""A host that runs OSDs dies, and the store stalls with it: Ceph is told, whoever was master, and goes on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from reconciler.adapters.schema_files import load_schemas
from reconciler.planning.osds import MOST
from reconciler.ports.fencer import Fencer
from reconciler.resources import keys
from reconciler.resources.manifest import ParsedFile, parse_manifest
from reconciler.resources.records import Claim, load
from reconciler.sim.cluster import SimCluster
from reconciler.sim.fencer import SimBlocklist, SimCephFencer, SimPowerFencer
from reconciler.sim.osds import SimOsdMap, SimOsds
from reconciler.sim.world import World

SCHEMAS = load_schemas()
NAMES = ("r1", "r2", "r3")
VMS = tuple(f"vm{number}" for number in range(6))
PEERING, PEERING_WHEN_DEAD = 5.0, 0.5
"""Seconds until Ceph serves again after an OSD was marked down: without proof it waits for a read lease."""
CLUSTER = """\
apiVersion: vcl/v1
kind: Cluster
metadata: {name: cluster}
spec: {fencing: {markOsdsDown: true}}
"""
VM = """\
apiVersion: vcl/v1
kind: VirtualMachine
metadata: {{name: {name}}}
spec: {{controller: dummy, cpu: {{cores: 1}}, memory: 64Mi}}
"""


def parse(path: str, data: bytes) -> ParsedFile:
    return parse_manifest(path, data, SCHEMAS)


class Site:
    """Three hosts, each with an OSD. While the map shows one up whose host is off, the store stalls for
    all."""

    def __init__(self, world: World, *, on: bool = True, power: bool = False) -> None:
        self.world = world
        self.switched_off: list[str] = []
        self._stalled_until: float | None = None
        blocklist = SimBlocklist(fsid="ceph", now=lambda: world.now)
        self._fencers: tuple[Fencer, ...] = (SimCephFencer(blocklist),)
        if power:
            self._fencers += (SimPowerFencer(self._switch_off),)
        self.cluster = SimCluster(
            world, NAMES, parse, fencers=lambda _: self._fencers, osds=lambda _: SimOsds(self.map)
        )
        self.map = SimOsdMap(where={n: world.node(name).address for n, name in enumerate(NAMES)})
        self.cluster.found()
        world.always(self._ceph)
        for host in self.cluster.hosts.values():
            files = host.directory.files
            files.update({f"{vm}.yaml": VM.format(name=vm).encode() for vm in VMS})
            files.update({"cluster.yaml": CLUSTER.encode()} if on else {})
        world.power_on()
        world.run_until(lambda: all(map(self.owner, VMS)), 60.0, "all VMs run")
        world.run_until(lambda: list(self.cluster.masters()) == ["r1"], 60.0, "the first in rank is master")
        world.run_for(20.0)

    def owner(self, vm: str) -> str:
        found = self.world.storage.cluster.get([keys.claim(vm)]).get(keys.claim(vm))
        return load(Claim, found.value).node if found is not None else ""

    def die(self, name: str) -> float:
        """Seconds until its VMs run elsewhere."""
        self.world.node(name).power_off()
        return self.world.run_until(
            lambda: all(self.owner(vm) not in ("", name) for vm in VMS), 120.0, "its VMs run elsewhere"
        )

    def _switch_off(self, name: str) -> None:
        self.switched_off.append(name)
        self.world.node(name).power_off()

    def _ceph(self) -> None:
        lost = {n for n, name in enumerate(NAMES) if not self.world.node(name).on}
        if lost & self.map.up:
            if self._stalled_until is None:
                self.world.storage.stall()
            self._stalled_until = float("inf")
        elif self._stalled_until is not None:
            wait = PEERING_WHEN_DEAD if lost <= self.map.dead else PEERING
            self._stalled_until = min(self._stalled_until, self.world.now + wait)
            if self.world.now >= self._stalled_until:
                self._stalled_until = None
                self.world.storage.heal()


@pytest.fixture
def world() -> Iterator[World]:
    with World(seed=5) as made:
        yield made


@pytest.mark.parametrize("victim", ["r1", "r3"])
def test_the_stall_ends_because_ceph_is_told(world: World, victim: str) -> None:
    site = Site(world)
    assert victim in map(site.owner, VMS)
    took = site.die(victim)
    assert site.map.log == [f"down {NAMES.index(victim)}"], "once, and without proof never more"
    assert took < 25.0


def test_with_a_fence_agent_the_host_is_switched_off_and_its_osds_are_dead_for_certain(world: World) -> None:
    site = Site(world, power=True)
    took = site.die("r3")
    assert site.map.log == ["down 2", "dead 2"]
    assert site.switched_off == ["r3"]
    assert took < 20.0


def test_a_master_whose_host_was_switched_off_is_followed_as_soon_as_the_stall_ends(world: World) -> None:
    site = Site(world, power=True)
    site.die("r1")
    assert site.switched_off == ["r1"]
    assert list(site.cluster.masters()) == ["r2"]
    loops = site.cluster.loops("r2")
    assert loops is not None
    assert loops.elector.reason == "master with epoch 2: r1's host was switched off"


def test_nothing_is_told_when_the_setting_is_off(world: World) -> None:
    site = Site(world, on=False, power=True)
    world.node("r3").power_off()
    world.run_for(30.0)
    assert site.map.log == []
    assert site.switched_off == []


def test_a_stall_with_everybody_on_the_mesh_harms_nobody(world: World) -> None:
    site = Site(world, power=True)
    world.storage.stall()
    world.run_for(30.0)
    world.storage.heal()
    world.run_for(10.0)
    assert site.map.log == []
    assert site.switched_off == []


def test_a_node_that_one_other_still_hears_keeps_its_osds_and_its_power(world: World) -> None:
    site = Site(world, power=True)
    world.network.cut("r1", "r3")
    world.storage.stall()
    world.run_for(20.0)
    assert site.map.log == []
    assert site.switched_off == []


def test_osds_that_come_up_again_each_time_are_soon_left_alone(world: World) -> None:
    site = Site(world)
    for _ in range(MOST + 2):
        world.network.isolate("r3")
        world.storage.cut("r3")
        world.run_for(8.0)
        world.network.heal()
        world.storage.heal()
        site.map.up.add(2)
        world.run_for(20.0)
    assert site.map.log == ["down 2"] * MOST
