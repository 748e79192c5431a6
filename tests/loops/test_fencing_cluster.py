"""Whole clusters that fence: a host dies and its VMs live on, exactly one unfenced copy of each, whatever
happens to the masters meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from reconciler.adapters.schema_files import load_schemas
from reconciler.resources import keys
from reconciler.resources.domains import PauseReason
from reconciler.resources.fencing import Blocklisted, FenceRecord, StepName
from reconciler.resources.manifest import ParsedFile, parse_manifest
from reconciler.resources.records import Claim, Session, dump, load
from reconciler.resources.transactions import Committed, Compare, Put, Txn, TxnResult
from reconciler.sim.cluster import SimCluster
from reconciler.sim.dummy_guests import Life
from reconciler.sim.fencer import SimBlocklist, SimCephFencer, SimPowerFencer
from reconciler.sim.world import World

SCHEMAS = load_schemas()
VMS = tuple(f"vm{number}" for number in range(1, 7))
LATER = tuple(f"vm{number}" for number in range(7, 11))


def parse(path: str, data: bytes) -> ParsedFile:
    return parse_manifest(path, data, SCHEMAS)


def some(first: int, end: int, *, quick: tuple[int, ...]) -> list[Any]:
    """The numbers as parameters; those that are not `quick` belong to the slow tests."""
    return [
        number if number in quick else pytest.param(number, marks=pytest.mark.slow)
        for number in range(first, end)
    ]


def manifest(name: str) -> bytes:
    return (
        "apiVersion: vcl/v1\nkind: VirtualMachine\n"
        f"metadata: {{name: {name}}}\n"
        "spec: {controller: dummy, cpu: {cores: 1}, memory: 64Mi}\n"
    ).encode()


class Site:
    """A simulated cluster with VMs, one Ceph blocklist and, perhaps, power switches. `coupled`: a node whose
    address is on the blocklist does not reach the store, as it would be with Ceph."""

    def __init__(self, world: World, nodes: int, *, power: bool = False, coupled: bool = True) -> None:
        self.world = world
        self.names = tuple(f"r{number}" for number in range(1, nodes + 1))
        self.blocklist = SimBlocklist(fsid="ceph", now=lambda: world.now)
        self.power = power
        self.hung = False
        self.progress = 0
        self.broken: list[str] = []
        self._coupled = coupled
        self._barred: set[str] = set()
        self.cluster = SimCluster(world, self.names, parse, fencers=self._make, let_in=self._let_in)
        self.cluster.found()
        world.storage.cluster.judges.append(self._judge)
        world.always(self._check)
        for name in VMS:
            for host in self.names:
                self.cluster.hosts[host].directory.files[f"{name}.yaml"] = manifest(name)
        world.power_on()
        world.run_until(self.settled, 60.0, "all VMs run")
        world.run_until(lambda: list(self.cluster.masters()) == ["r1"], 60.0, "the first in rank is master")
        world.run_for(5.0)

    def _make(self, ports: object) -> tuple[SimCephFencer | SimPowerFencer, ...]:
        ceph = SimCephFencer(self.blocklist)
        if not self.power:
            return (ceph,)
        switch = SimPowerFencer(lambda node: self.world.node(node).power_off())
        switch.hang = self.hung
        return (ceph, switch)

    def _let_in(self, address: str) -> None:
        """As a host does for itself: not atomic with anything else that it knows."""
        if self.blocklist.until(f"{address}:0/0") is not None:
            self.blocklist.remove(f"{address}:0/0")

    # -- what is looked at -----------------------------------------------------------------------------

    def stored(self, key: str) -> bytes | None:
        found = self.world.storage.cluster.get([key]).get(key)
        return found.value if found is not None else None

    def claim(self, vm: str) -> Claim:
        value = self.stored(keys.claim(vm))
        return load(Claim, value) if value is not None else Claim()

    def owner(self, vm: str) -> str:
        return self.claim(vm).node

    def record(self, node: str) -> FenceRecord | None:
        value = self.stored(keys.fence(node))
        return load(FenceRecord, value) if value is not None else None

    def running(self) -> dict[str, list[str]]:
        """Where a copy of each VM runs on a host that nothing keeps from writing."""
        found: dict[str, list[str]] = {vm: [] for vm in (*VMS, *LATER)}
        for host in self.names:
            if self.blocklist.bars(f"{self.world.node(host).address}:0/1"):
                continue
            for guest in self.cluster.guests(host):
                if guest.life is Life.ALIVE and guest.pause is PauseReason.NONE:
                    found[guest.name].append(host)
        return found

    def settled(self) -> bool:
        """Every VM runs exactly once, where its claim says."""
        known = [vm for vm in (*VMS, *LATER) if vm in VMS or self.stored(keys.claim(vm)) is not None]
        copies = self.running()
        return all(copies[vm] == [self.owner(vm)] for vm in known)

    def master(self) -> str:
        """The one with the newest epoch."""
        masters = self.cluster.masters()
        return max(masters, key=lambda name: masters[name], default="")

    def victim(self) -> str:
        """A node that is not the master, and runs something."""
        owners = {self.owner(vm) for vm in VMS}
        return max(name for name in self.names if name in owners and name != self.master())

    def on(self, node: str) -> list[str]:
        return [vm for vm in (*VMS, *LATER) if self.owner(vm) == node]

    # -- what is watched -------------------------------------------------------------------------------

    def _judge(self, txn: Txn, result: TxnResult) -> None:
        written = [*(put.key for put in txn.puts), *txn.deletes]
        if isinstance(result, Committed) and any(key.startswith(keys.FENCES) for key in written):
            self.progress += 1
            compared = {compare.key for compare in txn.compares}
            if keys.EPOCH not in compared:
                self.broken.append(f"{written} was written without comparing the epoch")

    def _check(self) -> None:
        for vm, hosts in self.running().items():
            if len(hosts) > 1:
                self.broken.append(f"{vm} runs on {hosts} at {self.world.now:.3f}")
        assert not self.broken, self.broken[0]
        if not self._coupled:
            return
        for host in self.names:
            barred = self.blocklist.bars(f"{self.world.node(host).address}:0/1")
            if barred and host not in self._barred:
                self._barred.add(host)
                self.world.storage.cut(host)
            elif not barred and host in self._barred:
                self._barred.remove(host)
                self.world.storage.heal(host)


@pytest.fixture
def world() -> Iterator[World]:
    with World(seed=11) as made:
        yield made


def test_a_worker_loses_its_power_and_its_vms_run_elsewhere_exactly_once(world: World) -> None:
    site = Site(world, 3)
    victim = site.victim()
    lost = site.on(victim)
    world.node(victim).power_off()
    took = world.run_until(lambda: site.settled() and not site.on(victim), 60.0)
    assert took < 9.0
    record = site.record(victim)
    assert record is not None
    assert set(record.vms) == set(lost)
    steps = [step.step for step in record.steps]
    assert steps[:4] == [StepName.INTENT, StepName.FENCE, StepName.SETTLE, StepName.BREAK_LOCKS]
    assert StepName.RELEASE in steps
    assert steps[-1] is StepName.FINISH
    assert site.blocklist.bars(f"{world.node(victim).address}:0/99")


@pytest.mark.parametrize("seed", some(1, 4, quick=(1,)))
def test_the_masters_host_loses_its_power_and_the_next_master_fences_it(seed: int) -> None:
    with World(seed=seed) as world:
        site = Site(world, 3)
        world.node("r2").stop()  # what is applied while it is away runs on the others
        world.run_for(2.0)
        for vm in LATER:
            site.cluster.save("r1", f"{vm}.yaml", manifest(vm))
        world.run_until(lambda: all(map(site.owner, LATER)), 30.0)
        assert any(site.owner(vm) == "r1" for vm in LATER)
        world.node("r2").start()
        world.run_for(10.0)
        world.node("r1").power_off()
        world.run_until(lambda: site.settled() and not site.on("r1"), 60.0)
        assert site.master() != "r1"
        assert site.record("r1") is not None


@pytest.mark.parametrize("coupled", [True, False])
def test_a_node_that_comes_back_is_let_in_settled_and_takes_work_again(world: World, coupled: bool) -> None:
    site = Site(world, 3, coupled=coupled)
    victim = site.victim()
    world.node(victim).power_off()
    world.run_until(lambda: not site.on(victim), 60.0)
    world.run_for(5.0)
    world.node(victim).power_on()
    world.run_until(lambda: site.record(victim) is None, 60.0, "the return is settled")
    assert not site.blocklist.entries, "a new boot: nothing of the old one is left"
    assert site.stored(keys.returned(victim)) is None
    world.run_for(5.0)
    assert site.settled()


@pytest.mark.slow
@pytest.mark.parametrize("cut", some(1, 8, quick=(2, 5)))
def test_the_master_dies_after_any_step_and_the_next_one_finishes(world: World, cut: int) -> None:
    site = Site(world, 5)
    victim, master = site.victim(), site.master()
    killed: list[str] = []

    def strike() -> None:
        if site.progress + len(site.blocklist.log) >= cut and not killed:
            killed.append(site.master() or master)
            world.at(world.now, world.node(killed[0]).kill)

    world.always(strike)
    world.node(victim).power_off()
    world.run_until(lambda: not site.on(victim) and site.settled(), 120.0)
    assert killed == [master]
    record = site.record(victim)
    assert record is not None
    world.run_until(lambda: bool((kept := site.record(victim)) and kept.released), 60.0)
    world.node(master).start()
    world.run_for(15.0)
    assert site.settled()
    assert site.record(master) is None, "its host was alive all the time"


@pytest.mark.slow
@pytest.mark.parametrize("cut", some(1, 8, quick=(2, 5)))
def test_the_master_freezes_after_any_step_and_wakes_up_when_the_next_one_is_done(
    world: World, cut: int
) -> None:
    site = Site(world, 5)
    victim, master = site.victim(), site.master()
    frozen: list[str] = []

    def strike() -> None:
        if site.progress + len(site.blocklist.log) >= cut and not frozen:
            frozen.append(master)
            world.at(world.now, world.node(master).pause)

    world.always(strike)
    world.node(victim).power_off()
    world.run_until(lambda: not site.on(victim) and bool(frozen), 120.0)
    world.run_for(10.0)
    world.node(master).resume()
    world.run_for(10.0)
    assert site.blocklist.bars(f"{world.node(victim).address}:0/99"), "nothing that it sent late uncovers it"
    world.run_until(lambda: site.record(master) is None, 60.0, "if it was fenced, it is back")
    world.run_for(10.0)
    assert site.settled()
    record = site.record(victim)
    assert record is not None
    assert record.released


@pytest.mark.slow
def test_each_step_of_a_fencing_is_in_the_hands_of_a_new_master(world: World) -> None:
    """Masters die one after the other, one for each write."""
    site = Site(world, 5)
    victim = site.victim()
    epochs: set[int] = set()
    done = [0]

    def strike() -> None:
        if site.progress > done[0] and site.master() and done[0] < 5:
            done[0] = site.progress
            name = site.master()
            world.at(world.now, world.node(name).kill)
            world.at(world.now + 1.0, world.node(name).start)

    world.always(strike)
    world.node(victim).power_off()
    world.run_until(lambda: not site.on(victim) and site.settled(), 300.0)
    record = site.record(victim)
    assert record is not None
    epochs.update(step.epoch for step in record.steps)
    assert len(epochs) >= 3


@pytest.mark.slow
def test_a_node_frozen_for_a_minute_never_runs_its_vms_again_and_comes_back_empty(world: World) -> None:
    site = Site(world, 3)
    victim = site.victim()
    lost = site.on(victim)
    world.node(victim).pause()
    world.run_until(lambda: site.settled() and not site.on(victim), 60.0)
    zombies = {guest.name for guest in site.cluster.guests(victim) if guest.life is Life.ALIVE}
    assert zombies == set(lost), "the host runs on, and storage has shut it out"
    world.run_for(60.0)
    site._coupled = False  # what the store says reaches it, its writes are void all the same
    world.storage.heal(victim)
    world.node(victim).resume()
    world.run_until(lambda: not _alive(site, victim), 10.0, "its zombies are ended")
    world.run_until(lambda: site.record(victim) is None, 60.0, "it is let in again")
    world.run_for(10.0)
    assert site.settled()
    assert all(site.owner(vm) != victim for vm in lost)
    assert not site.blocklist.bars(f"{world.node(victim).address}:0/1")


def _alive(site: Site, host: str) -> list[str]:
    return [guest.name for guest in site.cluster.guests(host) if guest.life is Life.ALIVE]


@pytest.mark.slow
def test_the_daemon_alone_is_killed_and_its_vms_are_left_alone_within_the_grace(world: World) -> None:
    site = Site(world, 3)
    victim = site.victim()
    mine = site.on(victim)
    world.node(victim).kill()
    world.run_for(100.0)
    assert site.record(victim) is None
    assert site.on(victim) == mine
    world.run_until(lambda: site.record(victim) is not None, 60.0, "the grace is over")


@pytest.mark.slow
def test_an_orderly_stop_is_never_fenced(world: World) -> None:
    site = Site(world, 3)
    victim = site.victim()
    mine = site.on(victim)
    world.node(victim).stop()
    world.run_for(600.0)
    assert site.record(victim) is None
    assert site.on(victim) == mine


@pytest.mark.parametrize("seconds", [2.0, 3.0, 10.0, 60.0])
def test_a_frozen_master_that_wakes_up_fences_nobody(world: World, seconds: float) -> None:
    site = Site(world, 3)
    master = site.master()
    world.node(master).pause()
    world.run_for(seconds)
    others = [name for name in site.names if name != master]
    world.node(master).resume()
    world.run_for(30.0)
    assert all(site.record(name) is None for name in others)


def test_a_ceph_stall_with_a_mesh_flap_in_it_fences_nobody(world: World) -> None:
    site = Site(world, 3, coupled=False)
    world.storage.stall()
    world.run_for(10.0)
    world.network.isolate("r3")
    world.run_for(6.0)
    world.network.heal()
    world.run_for(14.0)
    world.storage.heal()
    world.run_for(30.0)
    assert all(site.record(name) is None for name in site.names)
    assert site.settled()


@pytest.mark.parametrize("how", ["mesh", "store"])
def test_a_node_cut_on_one_channel_only_keeps_its_vms(world: World, how: str) -> None:
    site = Site(world, 3, coupled=False)
    victim = site.victim()
    mine = site.on(victim)
    if how == "mesh":
        world.network.isolate(victim)
    else:
        world.storage.cut(victim)
    world.run_for(12.0)
    assert site.record(victim) is None
    assert site.on(victim) == mine


@pytest.mark.slow
def test_blocklisting_fails_for_a_while_and_nothing_starts_before_it_works(world: World) -> None:
    site = Site(world, 3)
    victim = site.victim()
    mine = site.on(victim)
    site.blocklist.hang = True
    world.node(victim).power_off()
    world.run_for(60.0)
    assert site.on(victim) == mine
    record = site.record(victim)
    assert record is not None
    assert record.missing
    assert record.attempt("ceph-blocklist").failures
    site.blocklist.hang = False
    world.run_until(lambda: site.settled() and not site.on(victim), 120.0)


@pytest.mark.slow
def test_a_power_switch_is_the_next_layer_when_blocklisting_does_not_work(world: World) -> None:
    site = Site(world, 3, power=True)
    victim = site.victim()
    site.blocklist.hang = True
    world.network.isolate(victim)
    world.storage.cut(victim)
    world.run_until(lambda: site.settled() and not site.on(victim), 120.0)
    assert not world.node(victim).on
    record = site.record(victim)
    assert record is not None
    assert record.powered_off


def test_two_fenced_nodes_come_back_to_a_cluster_whose_third_is_dead(world: World) -> None:
    """Nobody but themselves could let them in, and be master (rule 15)."""
    site = Site(world, 3)
    world.node("r3").power_off()
    world.run_until(lambda: site.settled() and not site.on("r3"), 60.0)
    world.run_for(5.0)
    for name in ("r2", "r1"):
        world.node(name).power_off()
        world.run_for(5.0)
    _pretend_fenced(site, "r2")
    assert site.record("r2") is not None
    assert site.record("r3") is not None
    world.node("r3").power_on()
    world.node("r2").power_on()
    world.run_until(lambda: site.settled() and not site.on("r1"), 120.0)
    assert site.record("r3") is None
    assert site.record("r2") is None


def _pretend_fenced(site: Site, node: str) -> None:
    """What a master would have left that wrote the intent, blocklisted the host, and died."""
    like, raw = site.record("r3"), site.stored(keys.session(node))
    assert like is not None
    assert raw is not None
    session = load(Session, raw)
    session = replace(session, session=session.session + 1)
    address = site.world.node(node).address
    proof = Blocklisted(fsid="ceph", entries=(f"{address}:0/0",))
    record = replace(
        like,
        node=node,
        id="another",
        session=session.session,
        boot_id=session.boot_id,
        machine_id=session.machine_id,
        addresses=(address,),
        blocklisted=(proof,),
        released="",
        vms=(),
    )
    puts = (
        Put(key=keys.fence(node), value=dump(record)),
        Put(key=keys.session(node), value=dump(session)),
    )
    epoch = site.world.storage.cluster.get([keys.EPOCH])[keys.EPOCH].revision
    compares = (Compare(key=keys.EPOCH, revision=epoch),)
    site.world.storage.cluster.apply(Txn(id="fenced-by-hand", compares=compares, puts=puts))
    site.blocklist.add(f"{address}:0/0", 10.0**9)


def test_all_hosts_are_power_cycled_at_once_and_every_vm_runs_again_once(world: World) -> None:
    site = Site(world, 3, coupled=False)
    for name in site.names:
        world.node(name).power_off()
    world.run_for(5.0)
    for name in site.names:
        world.node(name).power_on()
    world.run_until(site.settled, 120.0)
    assert all(site.record(name) is None for name in site.names)


@pytest.mark.parametrize("seed", some(0, 6, quick=(0,)))
def test_two_hosts_of_five_die_while_masters_are_killed_at_random(seed: int) -> None:
    with World(seed=seed) as world:
        site = Site(world, 5)
        victims = [name for name in site.names if name != "r1"][seed % 3 : seed % 3 + 2]
        for name in victims:
            world.node(name).power_off()
        world.run_for(3.0 + seed)
        if master := site.master():
            world.node(master).kill()
            world.run_for(2.0)
            world.node(master).start()
        world.run_until(lambda: site.settled() and not any(site.on(v) for v in victims), 200.0)
