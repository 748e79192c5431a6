"""The whole cluster is shut down, from any node and whatever does not work, and stays so over a power loss
until it is started again: the very loops of three nodes, simulated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from reconciler.loops.assembly import Node as Loops
from reconciler.loops.assembly import absence
from reconciler.loops.intents import Intents
from reconciler.loops.migration_requests import MigrationRequests
from reconciler.loops.power_requests import ShutdownRequest
from reconciler.planning.intents import Verb
from reconciler.resources import keys
from reconciler.resources.errors import ConflictError
from reconciler.resources.records import Claim, load
from reconciler.resources.shutdowns import FlagRecord, PowerStart, ShutdownOrder
from reconciler.sim.cluster import SimCluster
from reconciler.sim.dummy_guests import Faults, GuestFaults, Life
from reconciler.sim.invariants import Invariants
from reconciler.sim.site_ceph import SiteCeph
from reconciler.sim.site_ports import SiteGuests
from reconciler.sim.world import World
from reconciler.testing.manifests import parse

NODES = ("r1", "r2", "r3")
MORE = {
    "db": "",
    "web": "startAfter: [db], priority: 5",
    "batch": "priority: -5",
    "once": "runStrategy: RerunOnFailure",
}
SLOW = GuestFaults(shutdown_delay=2.0)


def vm(name: str, more: str) -> bytes:
    extra = f", {more}" if more else ""
    return (
        f"apiVersion: vcl/v1\nkind: VirtualMachine\nmetadata: {{name: {name}}}\n"
        f"spec: {{controller: dummy, cpu: {{cores: 1}}, memory: 64Mi,"
        f" disks: [{{name: root, pool: ceph, size: 1Mi}}]{extra}}}\n"
    ).encode()


class Lab:
    """Three nodes with one Ceph, and the VMs of MORE."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.site = SiteCeph(world)
        self.cluster = SimCluster(world, NODES, parse, site=self.site)
        self.invariants = Invariants(self.cluster)
        self.cluster.found()
        for host in self.cluster.hosts.values():
            host.faults = Faults(guests={"*": SLOW})
        self.began: list[str] = []
        self.ended: list[str] = []
        self._ran: frozenset[str] = frozenset()
        world.power_on()
        world.run_until(lambda: "r1" in self.cluster.masters(), 20.0, "there is a master")
        for name, more in MORE.items():
            self.cluster.save("r1", f"{name}.yaml", vm(name, more))
        self.until_all_run()
        world.run_for(2.0)
        world.always(self._watch)
        self._watch()
        self.began.clear()

    def loops(self, name: str) -> Loops:
        found = self.cluster.loops(name)
        assert found is not None
        return found

    def running(self) -> frozenset[str]:
        guests = (guest for host in NODES for guest in self.cluster.guests(host))
        return frozenset(guest.name for guest in guests if guest.life is Life.ALIVE)

    def _watch(self) -> None:
        now = self.running()
        self.began += sorted(now - self._ran)
        self.ended += sorted(self._ran - now)
        self._ran = now

    def shut_down(self, on: str, **request: Any) -> ShutdownOrder:
        """Ordered on a node; the answer is waited for."""
        made: list[ShutdownOrder] = []

        async def order(_: object) -> None:
            made.append(await self.loops(on).power.requests.shut_down(ShutdownRequest(**request)))

        self.world.call(on, order)
        return made[0]

    def start(self, on: str, parallel: int = 10) -> None:
        self.world.call(on, lambda _: self.loops(on).power.requests.start(parallel))

    def view(self, on: str) -> Mapping[str, Any]:
        return self.loops(on).power.requests.view()

    def stored(self, key: str) -> bytes | None:
        found = self.world.storage.cluster.get([key]).get(key)
        return found.value if found is not None else None

    def claims(self) -> dict[str, str]:
        found = ((name, self.stored(keys.claim(name))) for name in MORE)
        return {name: load(Claim, value).node for name, value in found if value is not None}

    def until_all_run(self, seconds: float = 60.0) -> None:
        self.world.run_until(lambda: self.running() == set(MORE), seconds, "all VMs run")

    def until_none_runs(self, seconds: float = 40.0) -> None:
        self.world.run_until(lambda: not self.running(), seconds, "no VM runs")

    def until_recorded(self) -> None:
        self.world.run_until(
            lambda: self.stored(keys.POWER_INTENT) and not any(self.claims().values()),
            20.0,
            "the store says so",
        )

    def stays_off(self, seconds: float = 30.0) -> None:
        end = self.world.now + seconds
        while self.world.now < end:
            self.world.run_for(1.0)
            assert not self.running()


@pytest.fixture
def lab() -> Iterator[Lab]:
    with World(seed=5) as world:
        yield Lab(world)


@pytest.mark.parametrize("on", NODES)
def test_vms_stop_in_their_order_and_stay_off_until_they_are_started_in_theirs(lab: Lab, on: str) -> None:
    lab.shut_down(on, reason="battery low")
    lab.until_none_runs()
    assert lab.ended == ["batch", "once", "web", "db"]
    lab.until_recorded()
    lab.stays_off()
    assert lab.view(on)["standing"] == {}
    lab.start("r2" if on != "r2" else "r3", parallel=1)
    lab.until_all_run()
    assert lab.began == ["db", "web", "once", "batch"]
    assert lab.stored(keys.POWER_INTENT) is None

    def finished() -> bool:
        value = lab.stored(keys.POWER_START)
        return value is not None and bool(load(PowerStart, value).finished)

    lab.world.run_until(finished, 20.0, "the start has its end on record")


def test_after_a_power_loss_nothing_starts_by_itself(lab: Lab) -> None:
    lab.shut_down("r2", power_off=True)
    lab.world.run_until(lambda: not any(n.on for n in lab.world.nodes), 60.0, "all hosts are off")
    assert not lab.running()
    assert not any(lab.claims().values())
    lab.world.power_on()
    lab.world.run_until(lambda: bool(lab.cluster.masters()), 30.0, "there is a master")
    lab.stays_off()
    lab.start("r3")
    lab.until_all_run()
    assert all(node.on for node in lab.world.nodes)


def test_a_master_that_dies_at_the_beginning_changes_nothing(lab: Lab) -> None:
    lab.shut_down("r1", deadline=40.0)
    lab.world.node("r1").kill()
    here = {guest.name for guest in lab.cluster.guests("r1")}
    lab.world.run_until(lambda: lab.running() <= here, 40.0, "the others have stopped theirs")
    lab.world.node("r1").start()
    lab.until_none_runs()
    lab.until_recorded()


def test_a_cluster_without_ceph_is_shut_down_by_the_mesh(lab: Lab) -> None:
    lab.world.storage.stall()
    lab.world.run_for(1.0)
    lab.shut_down("r3", deadline=20.0)
    lab.until_none_runs(60.0)
    for node in NODES:
        assert lab.view(node)["order"]["deadline"] == 20.0
    lab.world.storage.heal()
    lab.until_recorded()
    lab.stays_off()


def test_one_node_without_the_others_ends_its_own_and_tells_them_when_they_are_back(lab: Lab) -> None:
    def here() -> list[str]:
        return [guest.name for guest in lab.cluster.guests("r3") if guest.life is Life.ALIVE]

    assert here()
    lab.world.network.isolate("r3")
    order = lab.shut_down("r3", deadline=40.0)
    lab.world.run_until(lambda: not here(), 25.0, "its own guests have ended")
    lab.world.network.heal()
    lab.until_none_runs()
    assert {lab.view(node)["order"]["id"] for node in NODES} == {order.id}


@pytest.mark.slow
def test_without_a_majority_nothing_is_waited_for(lab: Lab) -> None:
    for name in ("r1", "r2"):
        lab.world.node(name).power_off()
    lab.world.run_for(10.0)
    lab.shut_down("r3", deadline=30.0)
    lab.until_none_runs(60.0)
    lab.world.power_on(["r1", "r2"])
    lab.stays_off(60.0)
    lab.start("r1")
    lab.until_all_run(120.0)


def stubborn(lab: Lab, vm: str) -> None:
    """Its guest does not hear the power button from now on."""
    for node in NODES:
        guests = lab.loops(node).ports.controllers["dummy"]
        assert isinstance(guests, SiteGuests)
        deaf = GuestFaults(refuses_shutdown=True)
        guests.hypervisor.faults = Faults(guests={"*": SLOW, vm: deaf})


@pytest.mark.slow
def test_a_guest_that_does_not_power_off_is_ended_at_the_deadline_and_holds_up_nobody(lab: Lab) -> None:
    stubborn(lab, "batch")
    began = lab.world.now
    lab.shut_down("r1", deadline=30.0)
    lab.world.run_until(lambda: lab.running() == {"batch"}, 28.0, "the others have stopped")
    assert lab.world.now - began < 30.0
    lab.until_none_runs(15.0)
    assert lab.world.now - began >= 30.0


@pytest.mark.slow
def test_a_node_that_was_away_takes_no_old_order_along(lab: Lab) -> None:
    lab.shut_down("r3")
    lab.until_none_runs()
    lab.until_recorded()
    lab.world.node("r3").power_off()
    lab.start("r1")
    lab.until_all_run(60.0)
    lab.world.node("r3").power_on()
    lab.world.run_until(lambda: lab.cluster.loops("r3") is not None, 60.0, "it is back")
    lab.world.run_for(10.0)
    assert lab.running() == set(MORE)
    assert lab.view("r3")["power"] == "On"
    with pytest.raises(ConflictError, match="is not shut down"):
        lab.start("r3")


def test_a_disk_that_refuses_the_order_is_told_of_and_nothing_is_begun(lab: Lab) -> None:
    lab.cluster.hosts["r2"].orders.refuses = True
    with pytest.raises(Exception, match="No space left"):
        lab.shut_down("r2")
    lab.world.run_for(5.0)
    assert lab.running() == set(MORE)
    lab.shut_down("r1")
    lab.world.run_until(lambda: len(lab.running()) < len(MORE), 20.0, "the others begin")


@pytest.mark.slow
def test_a_host_that_goes_off_with_a_guest_is_not_fenced_before_the_start(lab: Lab) -> None:
    stubborn(lab, "batch")
    home = lab.claims()["batch"]
    other = next(node for node in NODES if node != home)
    lab.shut_down(other, deadline=120.0)
    lab.world.run_until(lambda: lab.running() == {"batch"}, 100.0, "the others have stopped")
    lab.world.node(home).power_off()
    lab.world.run_for(60.0)
    assert not lab.world.storage.cluster.list(keys.FENCES).items
    lab.start(other)
    lab.until_all_run(120.0)


@pytest.mark.slow
def test_flags_of_ceph_are_set_and_only_those_that_were_set_are_taken_back(lab: Lab) -> None:
    lab.cluster.flags.set.add("noout")  # a person's
    lab.shut_down("r1", ceph_flags=True)
    lab.until_none_runs()
    lab.world.run_until(lambda: lab.cluster.flags.set == {"noout", "norebalance"}, 20.0, "they are set")
    value = lab.stored(keys.POWER_FLAGS)
    assert value is not None
    assert load(FlagRecord, value).flags == ("norebalance",)
    lab.start("r1")
    lab.until_all_run()
    lab.world.run_until(lambda: lab.stored(keys.POWER_FLAGS) is None, 20.0, "they are taken back")
    assert lab.cluster.flags.set == {"noout"}


@pytest.mark.slow
def test_what_a_person_has_started_or_stopped_is_so_again(lab: Lab) -> None:
    def tell(verb: Verb, name: str) -> None:
        loops = lab.loops("r1")
        intents = Intents(loops.views, loops.writer, loops.ports.clock, loops.ports.ids)
        lab.world.call("r1", lambda _: intents.apply(verb, name))

    lab.cluster.save("r1", "manual.yaml", vm("manual", "runStrategy: Manual"))
    lab.world.run_until(lambda: lab.loops("r1").views.vm("manual"), 10.0, "it is known")
    tell(Verb.START, "manual")
    tell(Verb.STOP, "batch")
    wanted = {*MORE, "manual"} - {"batch"}
    lab.world.run_until(lambda: lab.running() == wanted, 30.0, "as asked")
    lab.shut_down("r2")
    lab.until_none_runs()
    lab.until_recorded()
    lab.start("r2")
    lab.world.run_until(lambda: lab.running() == wanted, 40.0, "as it was")
    lab.world.run_for(5.0)
    assert lab.running() == wanted


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["begins to be copied", "is held", "is complete"])
def test_a_guest_on_its_way_ends_too(lab: Lab, stage: str) -> None:
    source = lab.claims()["db"]
    target = next(node for node in NODES if node != source)
    loops = lab.loops("r1")
    asking = MigrationRequests(
        loops.views,
        loops.writer,
        loops.ports.clock,
        loops.ports.ids,
        lambda node: absence(loops.ports, loops.membership, node),
    )
    seen = len(lab.world.log.lines)
    lab.world.node("r1").spawn(lambda _: asking.request("db", to=target))

    def there() -> bool:
        return any(stage in line.text for line in lab.world.log.lines[seen:])

    lab.world.run_until(there, 30.0, stage)
    lab.shut_down("r2", deadline=30.0)
    lab.until_none_runs(80.0)
    lab.until_recorded()
    lab.start("r2")
    lab.until_all_run()
