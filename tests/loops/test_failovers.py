"""Timelines in whole simulated clusters: a node dies, and every line of the story is there afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from reconciler.adapters.fencing.manual import ManualFencer
from reconciler.adapters.schema_files import load_schemas
from reconciler.loops.confirmations import Confirmations
from reconciler.planning.confirming import Witness, Word
from reconciler.planning.failover import phase_of
from reconciler.planning.merge import merged_object
from reconciler.planning.timers import Timers
from reconciler.ports.fencer import Fencer
from reconciler.resources import keys
from reconciler.resources.errors import ConflictError
from reconciler.resources.failover import FailoverPhase, FailoverRecord, VmStep
from reconciler.resources.fencing import ConfirmRecord, StepName
from reconciler.resources.kinds import Kind
from reconciler.resources.manifest import ParsedFile, parse_manifest
from reconciler.resources.records import Claim, Event, load
from reconciler.resources.transactions import KeyValue
from reconciler.sim.cluster import SimCluster
from reconciler.sim.fencer import SimBlocklist, SimCephFencer
from reconciler.sim.world import World

SCHEMAS = load_schemas()
VMS = ("vm1", "vm2", "vm3", "vm4", "vm5", "vm6")


def parse(path: str, data: bytes) -> ParsedFile:
    return parse_manifest(path, data, SCHEMAS)


class Site:
    """Nodes with VMs, and a blocklist that lets a node in when it asks."""

    def __init__(self, world: World, nodes: int = 3, *, manual: bool = False) -> None:
        self.world = world
        self._manual = manual
        names = tuple(f"r{number}" for number in range(1, nodes + 1))
        self.blocklist = SimBlocklist(fsid="ceph", now=lambda: world.now)
        self.cluster = SimCluster(world, names, parse, fencers=self._make, let_in=self._let_in)
        self.cluster.found()
        for vm in VMS:
            text = f"apiVersion: vcl/v1\nkind: VirtualMachine\nmetadata: {{name: {vm}}}\n"
            text += "spec: {controller: dummy, cpu: {cores: 1}, memory: 64Mi}\n"
            for host in names:
                self.cluster.hosts[host].directory.files[f"{vm}.yaml"] = text.encode()
        world.power_on()
        world.run_until(lambda: list(self.cluster.masters()) == ["r1"], 60.0, "r1 is master")
        world.run_until(lambda: all(self.owner(vm) for vm in VMS), 60.0, "all VMs are owned")
        world.run_for(5.0)

    def _make(self, ports: object) -> tuple[Fencer, ...]:
        return (ManualFencer(self._confirmed),) if self._manual else (SimCephFencer(self.blocklist),)

    async def _confirmed(self, node: str) -> ConfirmRecord | None:
        value = self.stored(keys.confirm(node))
        return load(ConfirmRecord, value) if value is not None else None

    def confirm(self, asked: str, word: Word) -> ConfirmRecord:
        """A person says so on one node."""
        loops = self.cluster.loops(asked)
        assert loops is not None

        def witness() -> Witness:
            seen = loops.membership
            return Witness(me=asked, sights=seen.sights(), ran_for=seen.ran_for())

        desk = Confirmations(
            loops.views, loops.writer, loops.ports.clock, Timers(), witness, loops.events.record
        )
        return self.world.call(asked, lambda ports: desk.confirm_down(word, "ann@desk"))

    def shown(self, kind: Kind, name: str) -> Any:
        found = merged_object(self, kind, name)
        assert found is not None
        return found["status"]

    def get(self, key: str) -> KeyValue | None:
        return self.world.storage.cluster.get([key]).get(key)

    def prefix(self, prefix: str) -> tuple[KeyValue, ...]:
        return tuple(self.world.storage.cluster.list(prefix).items)

    def _let_in(self, address: str) -> None:
        if self.blocklist.until(f"{address}:0/0") is not None:
            self.blocklist.remove(f"{address}:0/0")

    def stored(self, key: str) -> bytes | None:
        found = self.world.storage.cluster.get([key]).get(key)
        return found.value if found is not None else None

    def owner(self, vm: str) -> str:
        value = self.stored(keys.claim(vm))
        return load(Claim, value).node if value is not None else ""

    def on(self, node: str) -> set[str]:
        return {vm for vm in VMS if self.owner(vm) == node}

    def listed(self, prefix: str) -> list[bytes]:
        return [item.value for item in self.world.storage.cluster.list(prefix).items]

    def failovers(self) -> list[FailoverRecord]:
        return [load(FailoverRecord, value) for value in self.listed(keys.FAILOVERS)]

    def complete(self) -> bool:
        found = self.failovers()
        return bool(found) and all(phase_of(each) is FailoverPhase.COMPLETED for each in found)

    def events(self, reason: str) -> list[Event]:
        events = [load(Event, value) for value in self.listed(keys.EVENTS)]
        return [event for event in events if event.reason == reason]


@pytest.fixture
def world() -> Iterator[World]:
    with World(seed=11) as made:
        yield made


def test_a_dead_node_s_failover_has_every_line_and_outlives_the_return(world: World) -> None:
    site = Site(world)
    victim = next(node for node in ("r2", "r3") if site.on(node))
    lost = site.on(victim)
    world.node(victim).power_off()
    world.run_until(site.complete, 60.0)
    (failover,) = site.failovers()
    assert failover.node == victim
    assert failover.silence is not None
    assert failover.silence.heard is not None
    assert 3.0 <= failover.silence.since <= 6.0
    steps = [mark.step for mark in failover.marks]
    assert steps == [
        StepName.INTENT,
        StepName.FENCE,
        StepName.SETTLE,
        StepName.BREAK_LOCKS,
        StepName.RELEASE,
        StepName.FINISH,
    ]
    times = [mark.after for mark in failover.marks if mark.after is not None]
    assert len(times) == len(steps)
    assert times == sorted(times)
    assert {vm.name for vm in failover.vms} == lost
    for vm in failover.vms:
        reached = [vm.reached(step) for step in list(VmStep)[:5]]
        assert None not in reached, f"{vm.name}: {vm.marks}"
        ages = [mark.after for mark in reached if mark is not None]
        assert ages == sorted(ages)
        assert vm.node == site.owner(vm.name)
    world.run_for(5.0)
    assert {event.name for event in site.events("Recovered")} == lost
    assert [event.name for event in site.events("FailoverDone")] == [victim]
    world.node(victim).power_on()
    world.run_until(lambda: site.stored(keys.fence(victim)) is None, 60.0, "its return is settled")
    (after,) = site.failovers()
    assert after.returned
    assert after.marks[-1].step is StepName.CLEAR


def test_the_next_master_goes_on_with_the_timeline_by_what_it_heard_itself(world: World) -> None:
    site = Site(world, 5)
    victim = next(node for node in ("r5", "r4", "r3") if site.on(node))
    world.node(victim).power_off()
    world.run_until(lambda: bool(site.failovers()), 60.0, "the fencing has begun")
    world.node("r1").kill()
    world.run_until(site.complete, 60.0)
    (failover,) = site.failovers()
    clocks = [mark.by for vm in failover.vms for mark in vm.marks if mark.step is VmStep.RUNNING]
    assert clocks == ["r2"] * len(failover.vms), "it heard the node itself, and needs no wall clock"
    (began, *_, last) = (mark.after for mark in failover.marks)
    assert began is not None
    assert last is not None
    assert began < last < 30.0


def test_a_failover_is_an_object_that_people_can_ask_for(world: World) -> None:
    site = Site(world)
    victim = next(node for node in ("r2", "r3") if site.on(node))
    world.node(victim).power_off()
    world.run_until(site.complete, 60.0)
    (failover,) = site.failovers()

    status = site.shown(Kind.FAILOVER, failover.incident)
    assert status["phase"] == "Completed"
    assert status["running"] == len(failover.vms)
    assert set(status["seconds"]) >= {"detected", "fenced", "settled", "released", "running"}


def test_without_a_proof_vms_wait_and_say_so_until_a_person_knows_better(world: World) -> None:
    site = Site(world, manual=True)
    victim = next(node for node in ("r2", "r3") if site.on(node))
    other = "r2" if victim == "r3" else "r3"
    lost = site.on(victim)
    vm = min(lost)
    world.node(victim).power_off()
    world.run_for(60.0)
    assert site.on(victim) == lost, "nothing starts on a guess"
    waiting = site.shown(Kind.VIRTUAL_MACHINE, vm)
    assert waiting["phase"] == "Fencing"
    assert f"waiting for a proof that {victim} is down" in waiting["message"]
    assert f"vcl node confirm-down {victim}" in waiting["message"]
    fencing = site.shown(Kind.NODE, victim)["fencing"]
    word = Word(node=victim, incident=fencing["incident"], boot_id=fencing["bootId"])
    with pytest.raises(ConflictError, match="what you confirm is an-older-one"):
        site.confirm("r1", replace(word, incident="an-older-one"))
    site.confirm(other, word)
    took = world.run_until(lambda: site.complete() and not site.on(victim), 20.0)
    assert took < 3.0, "a person does not wait for a fencer's pause"
    (failover,) = site.failovers()
    (proof,) = (mark for mark in failover.marks if mark.step is StepName.FENCE)
    assert proof.detail == f"by manual: ann@desk says that {fencing['bootId']} is down"


def test_a_host_that_shows_up_again_voids_a_person_s_word(world: World) -> None:
    site = Site(world, manual=True)
    victim = next(node for node in ("r2", "r3") if site.on(node))
    lost = site.on(victim)
    world.network.isolate(victim)
    world.storage.cut(victim)
    world.run_until(lambda: site.stored(keys.fence(victim)) is not None, 30.0, "it is being fenced")
    fencing = site.shown(Kind.NODE, victim)["fencing"]
    word = Word(node=victim, incident=fencing["incident"], boot_id=fencing["bootId"])
    world.network.heal()
    world.run_for(3.0)
    with pytest.raises(ConflictError, match="shows signs of life"):
        site.confirm("r1", word)
    assert site.stored(keys.confirm(victim)) is None
    assert lost
