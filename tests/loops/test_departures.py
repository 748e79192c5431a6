"""Hosts that go down in order, in a simulated cluster that fences: by each policy their VMs are kept or start
elsewhere, nobody is fenced for it, and masters come and go meanwhile."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from reconciler.loops.intents import Intents
from reconciler.planning.node_intents import NodeVerb
from reconciler.resources import keys
from reconciler.resources.infrastructure import ShutdownPolicy
from reconciler.resources.kinds import Kind
from reconciler.resources.records import Binding, Claim, load
from reconciler.sim.cluster import SimCluster
from reconciler.sim.controller import DummyController
from reconciler.sim.dummy_guests import ALL, Faults, GuestFaults, Life
from reconciler.sim.fencer import SimBlocklist, SimCephFencer
from reconciler.sim.world import World
from reconciler.testing.manifests import parse

NODES = ("r1", "r2", "r3")
FREEZE, STOP, MIGRATE = ShutdownPolicy.FREEZE, ShutdownPolicy.STOP, ShutdownPolicy.MIGRATE


def manifest(name: str, **spec: str) -> bytes:
    fields = {"controller": "dummy", "cpu": "{cores: 1}", "memory": "64Mi", **spec}
    words = ", ".join(f"{key}: {value}" for key, value in fields.items())
    return (
        f"apiVersion: vcl/v1\nkind: VirtualMachine\nmetadata: {{name: {name}}}\nspec: {{{words}}}\n".encode()
    )


class Site:
    """Three nodes and a blocklist; every VM is made on r3, while the others take none."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.blocklist = SimBlocklist(fsid="ceph", now=lambda: world.now)
        fencers = (SimCephFencer(self.blocklist),)
        self.cluster = SimCluster(world, NODES, parse, fencers=lambda ports: fencers)
        self.cluster.found()
        world.power_on()
        world.run_until(lambda: "r1" in self.cluster.masters(), 20.0, "there is a master")

    def run(self, *names: str, **spec: str) -> None:
        for node in ("r1", "r2"):
            self.ask(NodeVerb.CORDON, node)
        for name in names:
            self.cluster.save("r2", f"{name}.yaml", manifest(name, **spec))
        self.world.run_until(lambda: all(self.runs(name) == ["r3"] for name in names), 60.0, f"{names} run")
        for node in ("r1", "r2"):
            self.ask(NodeVerb.UNCORDON, node)
        self.world.run_for(1.0)

    def ask(
        self,
        verb: NodeVerb,
        node: str = "r3",
        *,
        policy: ShutdownPolicy | None = None,
        timeout: int | None = None,
        on: str = "r1",
    ) -> None:
        loops = self.cluster.loops(on)
        assert loops is not None
        intents = Intents(loops.views, loops.writer, loops.ports.clock, loops.ports.ids)
        self.world.call(
            on, lambda _: intents.apply_to_node(verb, node, policy=policy, timeout_seconds=timeout)
        )

    def stored(self, key: str) -> bytes | None:
        found = self.world.storage.cluster.get([key])
        return found[key].value if key in found else None

    def claim(self, vm: str) -> Claim:
        value = self.stored(keys.claim(vm))
        return load(Claim, value) if value else Claim()

    def bound(self, vm: str) -> str:
        value = self.stored(keys.binding(vm))
        return load(Binding, value).node if value else ""

    def runs(self, vm: str) -> list[str]:
        """On which hosts a guest of it is alive."""
        return [
            host
            for host in NODES
            for guest in self.cluster.guests(host)
            if guest.name == vm and guest.life is Life.ALIVE
        ]

    def free(self, *vms: str) -> bool:
        return not any(self.claim(vm).node for vm in vms)

    def fenced(self) -> list[str]:
        return [node for node in NODES if self.stored(keys.fence(node))]

    def refuse_shutdown(self, node: str) -> None:
        """Its guests ignore the power button."""
        faults = Faults(guests={ALL: GuestFaults(refuses_shutdown=True)})
        loops = self.cluster.loops(node)
        assert loops is not None
        dummy = loops.ports.controllers["dummy"]
        assert isinstance(dummy, DummyController)
        self.cluster.hosts[node].faults = dummy.hypervisor.faults = faults


@pytest.fixture
def site() -> Iterator[Site]:
    with World(seed=11) as world:
        yield Site(world)


def test_frozen_vms_are_shut_down_and_wait_for_their_host_which_nobody_fences(site: Site) -> None:
    site.run("a", "b", runStrategy="RerunOnFailure")
    site.ask(NodeVerb.SHUTDOWN, policy=FREEZE)
    site.world.run_until(lambda: site.free("a", "b"), 60.0, "its guests are gone")
    site.world.node("r3").power_off()  # not even vcld could say that it ends
    site.world.run_for(120.0)
    assert (site.runs("a"), site.runs("b"), site.fenced()) == ([], [], [])
    assert (site.bound("a"), site.bound("b")) == ("r3", "r3")
    site.world.node("r3").power_on()
    site.world.run_until(lambda: site.runs("a") == site.runs("b") == ["r3"], 60.0, "they run there again")
    assert site.stored(keys.intent(Kind.NODE, "r3")) is None


def test_stopped_vms_start_elsewhere_before_the_host_is_off(site: Site) -> None:
    site.run("a", "b", runStrategy="RerunOnFailure")
    site.ask(NodeVerb.SHUTDOWN, policy=STOP)
    site.world.run_until(lambda: all(site.runs(vm) not in ([], ["r3"]) for vm in "ab"), 60.0, "they run")
    site.world.node("r3").power_off()
    site.world.run_for(60.0)
    assert (site.fenced(), len(site.runs("a")), len(site.runs("b"))) == ([], 1, 1)
    site.world.node("r3").power_on()
    site.world.run_until(lambda: site.stored(keys.intent(Kind.NODE, "r3")) is None, 60.0, "it is back")
    site.ask(NodeVerb.CORDON, "r1")
    site.ask(NodeVerb.CORDON, "r2")
    site.cluster.save("r2", "c.yaml", manifest("c"))
    site.world.run_until(lambda: site.runs("c") == ["r3"], 60.0, "it takes VMs again")


def test_what_cannot_leave_is_shut_down_when_that_is_asked_for_and_is_no_lost_drain(site: Site) -> None:
    site.run("goes", evictionStrategy="Stop")
    site.run("stays", evictionStrategy="None")
    site.ask(NodeVerb.SHUTDOWN, policy=MIGRATE)
    site.world.run_until(lambda: site.runs("goes") not in ([], ["r3"]), 60.0, "one has left")
    site.world.run_for(20.0)
    assert site.runs("stays") == ["r3"]
    site.ask(NodeVerb.SHUTDOWN, policy=STOP)
    site.world.run_until(lambda: site.runs("stays") not in ([], ["r3"]), 60.0, "the other one, too")
    assert (len(site.runs("goes")), len(site.runs("stays"))) == (1, 1)


def test_a_shutdown_outlasts_the_master_that_it_was_asked_of(site: Site) -> None:
    site.run("a", "b")
    site.ask(NodeVerb.SHUTDOWN, policy=FREEZE)
    site.world.node("r1").kill()
    site.world.run_until(lambda: site.free("a", "b"), 60.0, "its guests are gone")
    site.world.run_until(lambda: "r2" in site.cluster.masters(), 30.0, "r2 is master")
    site.world.node("r3").stop()
    site.world.node("r1").start()
    site.world.run_for(60.0)
    assert (site.bound("a"), site.runs("a"), site.fenced()) == ("r3", [], [])


def test_a_daemon_that_is_started_again_in_the_same_boot_starts_none_of_them(site: Site) -> None:
    site.run("a")
    site.ask(NodeVerb.SHUTDOWN, policy=FREEZE)
    site.world.run_until(lambda: site.free("a"), 60.0, "its guest is gone")
    site.world.node("r3").kill()
    site.world.node("r3").start()
    site.world.run_for(30.0)
    assert (site.runs("a"), site.bound("a")) == ([], "r3")
    site.ask(NodeVerb.UNCORDON)
    site.world.run_until(lambda: site.runs("a") == ["r3"], 60.0, "its host stays on after all")


def test_the_less_important_go_first_and_a_guest_that_hangs_is_ended_in_time(site: Site) -> None:
    site.run("low", priority="1", terminationGracePeriodSeconds="3600")
    site.run("high", priority="9", terminationGracePeriodSeconds="3600")
    site.refuse_shutdown("r3")
    site.ask(NodeVerb.SHUTDOWN, policy=FREEZE, timeout=40)
    site.world.run_for(15.0)
    assert (site.runs("low"), site.runs("high")) == (["r3"], ["r3"])
    site.world.run_for(35.0)
    assert (site.runs("low"), site.runs("high"), site.free("low", "high")) == ([], [], True)


def test_the_less_important_is_gone_before_the_other_one_is_asked(site: Site) -> None:
    site.run("low", priority="1")
    site.run("high", priority="9")
    site.ask(NodeVerb.SHUTDOWN, policy=FREEZE)
    site.world.run_until(lambda: site.runs("low") == [], 60.0, "the first is gone")
    assert site.runs("high") == ["r3"]
    site.world.run_until(lambda: site.free("low", "high"), 60.0, "both are")
