"""Simulated clusters that lose contact: what is paused, what is ended, and what goes on."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from reconciler.adapters.schema_files import load_schemas
from reconciler.resources import keys
from reconciler.resources.domains import PauseReason
from reconciler.resources.manifest import ParsedFile, parse_manifest
from reconciler.resources.records import Claim, Event, load
from reconciler.sim.cluster import SimCluster
from reconciler.sim.dummy_guests import Guest, Life
from reconciler.sim.fencer import SimBlocklist, SimCephFencer
from reconciler.sim.world import World

SCHEMAS = load_schemas()
VMS = ("vm1", "vm2", "vm3")


def parse(path: str, data: bytes) -> ParsedFile:
    return parse_manifest(path, data, SCHEMAS)


class Site:
    """Three nodes that can fence, three VMs. `home`: a node that is not the master and runs some of them."""

    def __init__(self, world: World, *, fences: bool = True) -> None:
        self.world = world
        self.blocklist = SimBlocklist(fsid="ceph", now=lambda: world.now)
        names = ("r1", "r2", "r3")
        fencers = (SimCephFencer(self.blocklist),) if fences else ()
        self.cluster = SimCluster(world, names, parse, fencers=lambda ports: fencers)
        self.cluster.found()
        for vm in VMS:
            text = (
                f"apiVersion: vcl/v1\nkind: VirtualMachine\nmetadata: {{name: {vm}}}\n"
                "spec: {controller: dummy, cpu: {cores: 1}, memory: 64Mi}\n"
            )
            for name in names:
                self.cluster.hosts[name].directory.files[f"{vm}.yaml"] = text.encode()
        world.power_on()
        world.run_until(lambda: all(self.runs(vm) for vm in VMS), 60.0)
        world.run_until(lambda: list(self.cluster.masters()) == ["r1"], 60.0)
        world.run_for(5.0)
        self.home = next(name for name in ("r3", "r2") if self.alive(name))
        self.before = self.marks()

    def alive(self, node: str) -> tuple[Guest, ...]:
        return tuple(guest for guest in self.cluster.guests(node) if guest.life is Life.ALIVE)

    def marks(self) -> set[str]:
        return {guest.incarnation for name in self.cluster.hosts for guest in self.alive(name)}

    def owner(self, vm: str) -> str:
        found = self.world.storage.cluster.get([keys.claim(vm)])
        return load(Claim, found[keys.claim(vm)].value).node if found else ""

    def runs(self, vm: str) -> bool:
        owner = self.owner(vm)
        return bool(owner) and any(
            guest.name == vm and guest.pause is PauseReason.NONE for guest in self.alive(owner)
        )

    def pauses(self, node: str) -> set[PauseReason]:
        return {guest.pause for guest in self.alive(node)}

    def told(self, reason: str) -> list[str]:
        """The messages of the events with that reason, as they are in the store."""
        cluster = self.world.storage.cluster
        events = [load(Event, item.value) for item in cluster.list(keys.EVENTS).items]
        return [event.message for event in events if event.reason == reason]

    def cut(self, node: str) -> None:
        self.world.faults.do(f"isolate {node}")
        self.world.faults.do(f"store-cut {node}")


@pytest.fixture
def site() -> Iterator[Site]:
    with World(seed=5) as world:
        yield Site(world)


@pytest.fixture
def unfenced() -> Iterator[Site]:
    """Nobody is fenced here, so that a cut may last longer than `leaseSilent`."""
    with World(seed=5) as world:
        yield Site(world, fences=False)


def test_five_seconds_without_contact_cost_a_pause_and_nothing_else(unfenced: Site) -> None:
    unfenced.cut(unfenced.home)
    unfenced.world.run_for(4.5)
    assert unfenced.pauses(unfenced.home) == {PauseReason.ISOLATED}
    unfenced.world.run_for(0.5)
    unfenced.world.faults.heal()
    unfenced.world.run_until(lambda: unfenced.pauses(unfenced.home) == {PauseReason.NONE}, 20.0)
    assert unfenced.marks() == unfenced.before


def test_the_end_of_a_cut_tells_how_long_the_guests_were_held(unfenced: Site) -> None:
    unfenced.cut(unfenced.home)
    unfenced.world.run_until(lambda: unfenced.pauses(unfenced.home) == {PauseReason.ISOLATED}, 10.0)
    unfenced.world.run_for(7.0)
    unfenced.world.faults.heal()
    unfenced.world.run_until(lambda: unfenced.told("ContactBack") != [], 20.0)
    [message] = unfenced.told("ContactBack")
    length = re.fullmatch(r"the store answers this node again, after (\d+\.\d) s; each guest .*", message)
    assert length is not None, message
    assert 7.0 <= float(length[1]) <= 12.0


def test_a_node_fenced_while_it_was_cut_off_resumes_nothing_and_ends_its_guests(site: Site) -> None:
    lost = {guest.incarnation for guest in site.alive(site.home)}
    site.cut(site.home)
    away = [vm for vm in VMS if site.owner(vm) == site.home]
    site.world.run_until(lambda: all(site.owner(vm) not in ("", site.home) for vm in away), 60.0)
    assert site.pauses(site.home) == {PauseReason.ISOLATED}

    def never_resumed() -> None:
        for guest in site.alive(site.home):
            assert guest.incarnation not in lost or guest.pause is PauseReason.ISOLATED

    site.world.always(never_resumed)
    site.world.faults.heal()
    site.world.run_until(lambda: not lost & site.marks(), 20.0)
    site.world.run_until(lambda: all(site.runs(vm) for vm in VMS), 60.0)


def test_one_node_without_the_store_ends_its_guests_which_start_elsewhere(site: Site) -> None:
    away = [vm for vm in VMS if site.owner(vm) == site.home]
    site.world.faults.do(f"store-cut {site.home}")
    site.world.run_for(14.0)
    assert site.pauses(site.home) == {PauseReason.NONE}
    site.world.run_until(lambda: not site.alive(site.home), 10.0)
    site.world.run_until(lambda: all(site.owner(vm) != site.home and site.runs(vm) for vm in away), 30.0)


def test_a_store_that_nobody_reaches_ends_and_pauses_nothing(site: Site) -> None:
    site.world.faults.do("store-cut")
    site.world.run_for(30.0)
    site.world.faults.heal()
    site.world.run_for(20.0)
    assert site.marks() == site.before
    assert all(site.runs(vm) for vm in VMS)


def test_a_daemon_that_died_while_isolated_is_followed_by_one_that_resumes_its_pauses(unfenced: Site) -> None:
    unfenced.cut(unfenced.home)
    unfenced.world.run_for(4.5)
    unfenced.world.node(unfenced.home).kill()
    unfenced.world.run_for(0.2)
    unfenced.world.faults.heal()
    unfenced.world.run_until(lambda: unfenced.pauses(unfenced.home) == {PauseReason.NONE}, 30.0)
    assert unfenced.marks() == unfenced.before
