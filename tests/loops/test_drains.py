"""Cordons and drains in a simulated cluster of three nodes, whose masters come and go."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from reconciler.loops.intents import Intents
from reconciler.planning.intents import Verb
from reconciler.planning.merge import merged_object
from reconciler.planning.migration_turns import under_way
from reconciler.planning.node_intents import NodeVerb
from reconciler.resources import keys
from reconciler.resources.kinds import Kind
from reconciler.resources.migrations import ENDED, MigrationPhase, MigrationRecord
from reconciler.resources.records import Claim, load
from reconciler.sim.cluster import SimCluster
from reconciler.sim.controller import DummyController
from reconciler.sim.dummy_guests import ALL, Faults, GuestFaults, Life
from reconciler.sim.guest_wire import Stage
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

    def drain(self, node: str) -> dict[str, Any]:
        """How the node's drain goes, as people see it."""
        loops = next(loops for name in NODES if (loops := self.cluster.loops(name)) is not None)
        found = merged_object(loops.cache, Kind.NODE, node) or {}
        shown: dict[str, Any] = found["status"].get("drain") or {}
        return shown

    def refuse_shutdown(self, node: str) -> None:
        """The node's guests ignore the power button from now on."""
        faults = Faults(guests={ALL: GuestFaults(refuses_shutdown=True)})
        loops = self.cluster.loops(node)
        assert loops is not None
        dummy = loops.ports.controllers["dummy"]
        assert isinstance(dummy, DummyController)
        self.cluster.hosts[node].faults = dummy.hypervisor.faults = faults

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


def test_a_drained_node_is_emptied_and_each_vm_runs_again_elsewhere(site: Site) -> None:
    names = tuple(f"vm{number}" for number in range(9))
    site.run(*names)
    there = {name for name in names if site.owner(name) == "r3"}
    assert there
    site.ask("r2", NodeVerb.DRAIN, "r3")
    site.world.run_until(lambda: site.drain("r3").get("phase") == "Drained", 60.0, "r3 is empty")
    site.world.run_until(lambda: all(site.owner(name) for name in names), 60.0, "all run")
    assert "r3" not in {site.owner(name) for name in names}
    assert set(site.drain("r3")["away"]) == there
    site.ask("r1", NodeVerb.UNCORDON, "r3", bring_back=True)
    site.world.run_until(
        lambda: {name for name in names if site.owner(name) == "r3"} == there, 60.0, "they are back"
    )
    site.world.run_until(lambda: site.drain("r3")["away"] == [], 10.0, "that is recorded")


def test_no_more_than_four_are_on_their_way_at_once(site: Site) -> None:
    names = tuple(f"vm{number:02}" for number in range(18))
    site.run(*names)
    running = [len([name for name in names if site.owner(name)])]
    site.world.always(lambda: running.append(len([name for name in names if site.owner(name)])))
    site.ask("r2", NodeVerb.DRAIN, "r3")
    site.world.run_until(lambda: site.drain("r3").get("phase") == "Drained", 60.0, "r3 is empty")
    assert min(running) >= len(names) - 4


@pytest.mark.parametrize("strategy", ["Manual", "RerunOnFailure"])
def test_a_vm_that_was_shut_down_for_a_drain_is_not_taken_for_one_that_powered_off(
    site: Site, strategy: str
) -> None:
    site.cluster.save("r1", "a.yaml", manifest("a", runStrategy=strategy))
    site.world.run_for(2.0)
    site.tell("r1", Verb.START, "a")
    site.world.run_until(lambda: bool(site.owner("a")), 20.0, "it runs")
    site.world.run_for(2.0)
    home = site.owner("a")
    site.ask("r1", NodeVerb.DRAIN, home)
    site.world.run_until(lambda: site.owner("a") not in ("", home), 60.0, "it runs elsewhere")


def test_a_drain_goes_on_with_the_next_master_and_after_the_nodes_reboot(site: Site) -> None:
    site.run("a", "b", "c", terminationGracePeriodSeconds="5")
    victim = next(name for name in ("r2", "r3") if any(site.owner(vm) == name for vm in "abc"))
    site.refuse_shutdown(victim)
    site.ask("r1", NodeVerb.MAINTENANCE_ON, victim)
    site.world.run_for(1.0)
    site.world.node("r1").kill()
    site.world.run_until(lambda: site.drain(victim).get("phase") == "Drained", 60.0, "it is empty")
    site.world.node("r1").start()
    site.world.node(victim).power_off()
    site.world.run_for(1.0)
    site.world.power_on((victim,))
    site.world.run_for(15.0)
    site.run("d", "e")
    assert victim not in {site.owner(name) for name in "abcde"}


def test_an_uncordon_cancels_what_has_not_begun(site: Site) -> None:
    names = tuple(f"vm{number:02}" for number in range(18))
    site.run(*names)
    before = {name for name in names if site.owner(name) == "r3"}
    site.ask("r1", NodeVerb.DRAIN, "r3")
    site.world.run_for(0.03)
    site.ask("r1", NodeVerb.UNCORDON, "r3")
    site.world.run_until(lambda: all(site.owner(name) for name in names), 60.0, "all run")
    stayed = {name for name in names if site.owner(name) == "r3"}
    assert stayed
    assert len(before - stayed) <= 4
    site.world.run_until(lambda: site.drain("r3")["phase"] == "Cancelled", 10.0, "that is recorded")


def migrations(site: Site) -> list[MigrationRecord]:
    items = site.world.storage.cluster.list(keys.MIGRATIONS).items
    return [load(MigrationRecord, item.value) for item in items]


def started(site: Site) -> set[tuple[str, str]]:
    """Each run of a guest, by name and when it began."""
    found = (guest for node in NODES for guest in site.cluster.guests(node) if guest.life is Life.ALIVE)
    return {(guest.name, guest.incarnation.partition(">")[0]) for guest in found}


def test_guests_are_migrated_within_the_limits_and_none_is_started_anew(site: Site) -> None:
    names = tuple(f"vm{number}" for number in range(9))
    site.run(*names)
    runs, there = started(site), {name for name in names if site.owner(name) == "r3"}
    most = 0

    def look() -> None:
        nonlocal most
        most = max(most, len(under_way(migrations(site))))

    site.world.always(look)
    site.ask("r2", NodeVerb.DRAIN, "r3")
    waits: set[str] = set()
    site.world.always(lambda: waits.update(each["reason"] for each in site.drain("r3").get("waiting", [])))
    site.world.run_until(lambda: site.drain("r3").get("phase") == "Drained", 60.0, "r3 is empty")
    assert most == 2
    assert any("it waits for its turn: 2 migrations are leaving node r3" in words for words in waits)
    assert {record.vm for record in migrations(site)} == there
    assert started(site) == runs


@pytest.mark.parametrize(("strategy", "restarted"), [("LiveMigrateIfPossible", True), ("LiveMigrate", False)])
def test_a_migration_that_failed_is_made_good(site: Site, strategy: str, restarted: bool) -> None:
    site.run("web", evictionStrategy=strategy)
    home, runs = site.owner("web"), started(site)
    site.cluster.wire.breaks["web"] = Stage.HOLD
    site.ask("r2", NodeVerb.DRAIN, home)
    site.world.run_until(lambda: site.drain(home).get("phase") == "Drained", 100.0, "it is empty")
    site.world.run_until(lambda: bool(started(site)), 20.0, "it runs")
    assert (started(site) != runs) is restarted
    ends = [record.phase for record in sorted(migrations(site), key=lambda each: each.requested)]
    assert ends == [MigrationPhase.FAILED, *([] if restarted else [MigrationPhase.SUCCEEDED])]


def test_an_uncordon_takes_back_what_only_waits(site: Site) -> None:
    names = tuple(f"vm{number}" for number in range(9))
    site.run(*names)
    site.ask("r2", NodeVerb.DRAIN, "r3")
    site.world.run_until(lambda: len(migrations(site)) > 2, 10.0, "some wait")
    site.ask("r2", NodeVerb.UNCORDON, "r3")
    site.world.run_until(lambda: all(r.phase in ENDED for r in migrations(site)), 60.0, "all have ended")
    ends = {record.phase for record in migrations(site)}
    assert ends == {MigrationPhase.SUCCEEDED, MigrationPhase.CANCELLED}
    assert "r3" in {site.owner(name) for name in names}


def test_what_cannot_leave_says_why_and_leaves_when_it_can(site: Site) -> None:
    site.run("kept", evictionStrategy="None")
    home = site.owner("kept")
    site.run("live", evictionStrategy="LiveMigrate", nodeSelector=f"{{node: {home}}}")
    site.run("held", nodeSelector=f"{{node: {home}}}")
    site.run("still", nodeSelector=f"{{node: {home}}}", evictionStrategy="Stop")
    tied = "'<domain><devices><hostdev/></devices></domain>'"
    site.run("tied", nodeSelector=f"{{node: {home}}}", evictionStrategy="LiveMigrate", domainXML=tied)
    site.tell("r1", Verb.PAUSE, "still")
    site.world.run_for(1.0)
    site.ask("r1", NodeVerb.DRAIN, home)
    site.world.run_until(lambda: len(site.drain(home).get("waiting", [])) == 5, 10.0, "all wait")
    why = {each["vm"]: each["reason"] for each in site.drain(home)["waiting"]}
    assert "evictionStrategy is None" in why["kept"]
    assert "a device of the host, which cannot be migrated" in why["tied"]
    assert why["live"].startswith("no other node takes it: ")
    assert why["held"].startswith("no other node takes it: ")
    assert "paused by `vcl pause`" in why["still"]
    site.tell("r1", Verb.STOP, "kept")
    for name in ("live", "held", "still", "tied"):
        site.cluster.save("r2", f"{name}.yaml", manifest(name))
    site.tell("r1", Verb.RESUME, "still")
    site.world.run_until(lambda: site.drain(home)["phase"] == "Drained", 60.0, "it is empty")
    assert not site.owner("kept")
