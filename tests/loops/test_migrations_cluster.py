"""Live migrations in a simulated cluster: the very loops of three nodes, a Ceph whose writers are audited,
and hypervisors that may break off anywhere. Whatever dies, one copy runs in the end, with all its data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from reconciler.loops.assembly import absence
from reconciler.loops.intents import Intents
from reconciler.loops.migration_requests import MigrationRequests
from reconciler.planning.intents import Verb
from reconciler.resources import keys
from reconciler.resources.domains import PauseReason
from reconciler.resources.kinds import Kind
from reconciler.resources.migrations import ENDED, MigrationPhase, MigrationRecord
from reconciler.resources.records import Claim, load
from reconciler.resources.status import ConditionStatus, ConditionType, Phase, VmNodeStatus
from reconciler.resources.transactions import Committed, Txn, TxnResult
from reconciler.sim.cluster import SimCluster
from reconciler.sim.dummy_guests import Faults, Life
from reconciler.sim.guest_wire import Stage
from reconciler.sim.invariants import Invariants
from reconciler.sim.site_ceph import SiteCeph
from reconciler.sim.site_ports import SiteGuests
from reconciler.sim.world import World
from reconciler.testing.manifests import parse

NODES = ("r1", "r2", "r3")
VM = (
    b"apiVersion: vcl/v1\nkind: VirtualMachine\nmetadata: {name: web}\n"
    b"spec: {controller: dummy, cpu: {cores: 1}, memory: 64Mi,"
    b" disks: [{name: root, pool: ceph, size: 1Mi}]}\n"
)


OF_A_MIGRATION = (keys.MIGRATIONS, keys.MIGRATING, keys.CLAIMS)
MOMENTS = ("migration:Open", "migration:Go", "copying", "held", "complete", "migration:Settle", "settled")


def sample(*quick: str, of: tuple[str, ...] = MOMENTS) -> list[Any]:
    """The moments as parameters; those that are not `quick` belong to the slow tests."""
    return [each if each in quick else pytest.param(each, marks=pytest.mark.slow) for each in of]


class Lab:
    """Three nodes with one Ceph, and the VM web that counts in its image."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.site = SiteCeph(world)
        self.points: list[str] = []
        self.cluster = SimCluster(world, NODES, parse, site=self.site, reached=self._reached)
        self.invariants = Invariants(self.cluster)
        self.on_reaching: Callable[[str], None] = lambda point: None
        self.cluster.found()
        world.power_on()
        world.run_until(lambda: "r1" in self.cluster.masters(), 20.0, "there is a master")
        self.cluster.save("r1", "web.yaml", VM)
        world.run_until(self.counting, 60.0, "web runs")
        world.run_for(2.0)
        self.source = self.claim().node
        self.target = next(name for name in ("r3", "r2") if name != self.source)

    def _reached(self, node: str, point: str) -> None:
        self.points.append(point)
        self.on_reaching(point)

    def stored(self, key: str) -> bytes | None:
        found = self.world.storage.cluster.get([key]).get(key)
        return found.value if found is not None else None

    def claim(self) -> Claim:
        value = self.stored(keys.claim("web"))
        return load(Claim, value) if value is not None else Claim()

    def record(self) -> MigrationRecord:
        items = self.world.storage.cluster.list(keys.MIGRATIONS).items
        return max((load(MigrationRecord, item.value) for item in items), key=lambda each: each.requested)

    def counter(self) -> int:
        return max(self.site.counters.values(), default=0)

    def running(self) -> list[str]:
        """Where a copy runs that nothing keeps from writing."""
        return [
            host
            for host in NODES
            if not self.site.bars(host)
            for guest in self.cluster.guests(host)
            if guest.life is Life.ALIVE and guest.pause is PauseReason.NONE
        ]

    def counting(self) -> bool:
        return self.running() == [self.claim().node] and self.counter() > 0

    def migrate(self, to: str = "") -> None:
        """Asked of the node that is no host of it; the answer is not waited for."""
        on = next(name for name in NODES if name not in (self.source, self.target))
        self.world.node(on).spawn(lambda _: self._requests(on).request("web", to=to or self.target))
        before = self.asked()
        self.world.run_until(lambda: self.asked() > before, 10.0, "it is asked for")

    def asked(self) -> int:
        return len(self.world.storage.cluster.list(keys.MIGRATIONS).items)

    def cancel(self, on: str = "r1") -> None:
        self.world.call(on, lambda _: self._requests(on).cancel("web"))

    def tell(self, verb: Verb, on: str = "r1") -> None:
        loops = self.cluster.loops(on)
        assert loops is not None
        intents = Intents(loops.views, loops.writer, loops.ports.clock, loops.ports.ids)
        self.world.call(on, lambda _: intents.apply(verb, "web"))

    def _requests(self, on: str) -> MigrationRequests:
        loops = self.cluster.loops(on)
        assert loops is not None
        ports, membership = loops.ports, loops.membership
        return MigrationRequests(
            loops.views, loops.writer, ports.clock, ports.ids, lambda node: absence(ports, membership, node)
        )

    def until_ended(self, seconds: float = 120.0) -> MigrationRecord:
        self.world.run_until(lambda: self.record().phase in ENDED, seconds, "the migration has ended")
        return self.record()

    def until_counting(self, seconds: float = 60.0) -> None:
        """It runs exactly once, and counts on."""
        self.world.run_until(self.counting, seconds, "web runs once")
        before = self.counter()
        self.world.run_until(lambda: self.counter() > before + 3, 20.0, "web counts on")


@pytest.fixture
def lab() -> Iterator[Lab]:
    with World(seed=11) as world:
        yield Lab(world)


def test_a_guest_moves_with_its_memory_and_its_downtime_is_short(lab: Lab) -> None:
    lab.migrate()
    lab.world.run_until(lambda: not lab.running(), 20.0, "it is held")
    held = lab.world.now
    lab.world.run_until(lab.running, 5.0, "it goes on")
    assert lab.world.now - held < 1.0
    ended = lab.until_ended()
    assert ended.phase is MigrationPhase.SUCCEEDED, ended.message
    lab.until_counting()
    assert lab.claim().node == lab.target
    assert set(lab.points) == {"migration:Open", "migration:Go", "migration:Settle"}


@pytest.mark.parametrize("stage", sample(Stage.HOLD, Stage.CONFIRM, of=tuple(Stage)))
def test_wherever_the_hypervisor_breaks_off_the_guest_goes_on(lab: Lab, stage: Stage) -> None:
    lab.cluster.wire.breaks["web"] = stage
    lab.migrate()
    ended = lab.until_ended()
    assert ended.phase is MigrationPhase.FAILED
    assert "goes on where it was" in ended.message
    lab.until_counting()
    assert lab.claim().node == lab.source
    lab.migrate()
    assert lab.until_ended().phase is MigrationPhase.SUCCEEDED
    lab.until_counting()


def at(lab: Lab, moment: str, do: Callable[[], object]) -> None:
    """Do it when the migration has come that far."""
    marks = {
        "copying": "begins to be copied",
        "held": "is held",
        "complete": "is complete",
        "settled": "Migrated",
    }
    done = []

    def once() -> None:
        if not done:
            done.append(moment)
            do()

    if moment in marks:
        seen = len(lab.world.log.lines)

        def look() -> None:
            if any(marks[moment] in line.text for line in lab.world.log.lines[seen:]):
                once()

        lab.world.always(look)
    else:
        lab.on_reaching = lambda point: once() if point == moment else None
    lab.migrate()
    lab.world.run_until(lambda: bool(done), 30.0, f"it has come to {moment}")


@pytest.mark.parametrize("moment", sample("copying", "complete"))
@pytest.mark.parametrize("who", ["source", "target", "master"])
def test_whichever_daemon_is_killed_at_whatever_moment_one_copy_runs_in_the_end(
    lab: Lab, who: str, moment: str
) -> None:
    name = {"source": lab.source, "target": lab.target, "master": "r1"}[who]
    node = lab.world.node(name)
    at(lab, moment, lambda: lab.world.schedule.call_later(0.0, node.kill))
    lab.world.run_for(1.0)
    node.start()
    lab.until_ended()
    lab.until_counting()


WRITES = 18
"""Transactions of a migration, from its request to the guest that goes on."""


def after_writes(lab: Lab, number: int, do: Callable[[], object]) -> list[str]:
    """Do it after so many of a migration's transactions; what each has written, as they come."""
    writes: list[str] = []

    def judge(txn: Txn, result: TxnResult) -> None:
        written = [put.key for put in txn.puts if put.key.startswith(OF_A_MIGRATION)]
        if isinstance(result, Committed) and written:
            writes.append(", ".join(written))
            if len(writes) == number:
                lab.world.schedule.call_later(0.0, do)

    lab.world.storage.cluster.judges.append(judge)
    return writes


RESTLESS = (
    b"apiVersion: vcl/v1\nkind: Cluster\nmetadata: {name: cluster}\nspec: {migration: {whenSlow: %s}}\n"
)


def begin_restless(lab: Lab, policy: bytes) -> None:
    """A migration that is copied without end."""
    lab.cluster.save("r1", "cluster.yaml", RESTLESS % policy)
    lab.world.run_for(5.0)
    lab.cluster.wire.restless.add("web")
    lab.migrate()
    lab.world.run_for(50.0)
    assert lab.record().phase is MigrationPhase.RUNNING
    assert lab.counting()


def test_a_guest_whose_memory_is_never_copied_goes_on_where_it_was(lab: Lab) -> None:
    begin_restless(lab, b"Abort")
    record = lab.until_ended()
    assert record.phase is MigrationPhase.FAILED
    assert "it took longer than 60 s; it goes on where it was" in record.message
    assert lab.claim().node == lab.source
    lab.until_counting()


def test_a_guest_that_may_be_held_goes_over_and_the_next_master_holds_it(lab: Lab) -> None:
    begin_restless(lab, b"Hold")
    lab.world.node("r1").kill()
    record = lab.until_ended(240.0)
    assert record.phase is MigrationPhase.SUCCEEDED, record.message
    assert record.hold
    assert lab.claim().node == lab.target
    lab.until_counting()


def test_the_writes_of_a_migration_are_as_many_as_the_next_test_cuts_at(lab: Lab) -> None:
    writes = after_writes(lab, 0, lambda: None)
    lab.migrate()
    lab.until_ended()
    lab.until_counting()
    assert 8 <= len(writes) <= WRITES, writes


@pytest.mark.parametrize("number", sample("6", "14", of=tuple(map(str, range(1, WRITES + 1)))))
@pytest.mark.parametrize("who", ["source", "target", "master"])
@pytest.mark.parametrize("end", ["kill", pytest.param("power_off", marks=pytest.mark.slow)])
def test_cut_after_each_write_one_copy_runs_in_the_end(lab: Lab, end: str, who: str, number: str) -> None:
    node = lab.world.node({"source": lab.source, "target": lab.target, "master": "r1"}[who])
    after_writes(lab, int(number), getattr(node, end))
    lab.migrate()
    lab.world.run_for(8.0)
    (node.start if end == "kill" else node.power_on)()
    lab.until_ended(180.0)
    lab.until_counting(120.0)


@pytest.mark.parametrize("seconds", [pytest.param(2.0, marks=pytest.mark.slow), 20.0])
@pytest.mark.parametrize("moment", sample("complete", of=MOMENTS[1:6]))
@pytest.mark.parametrize("who", ["source", "target", "master"])
def test_whichever_daemon_is_frozen_one_copy_runs_in_the_end(
    lab: Lab, who: str, moment: str, seconds: float
) -> None:
    node = lab.world.node({"source": lab.source, "target": lab.target, "master": "r1"}[who])
    at(lab, moment, lambda: lab.world.schedule.call_later(0.0, node.pause))
    lab.world.run_for(seconds)
    node.resume()
    lab.until_ended()
    lab.until_counting(120.0)


@pytest.mark.parametrize("moment", sample("held", "migration:Settle"))
@pytest.mark.parametrize("who", ["source", "target", "both"])
def test_whichever_host_dies_at_whatever_moment_one_copy_runs_in_the_end(
    lab: Lab, who: str, moment: str
) -> None:
    names = {"source": (lab.source,), "target": (lab.target,), "both": (lab.source, lab.target)}[who]

    def die() -> None:
        for name in names:
            lab.world.node(name).power_off()

    at(lab, moment, lambda: lab.world.schedule.call_later(0.0, die))
    lab.world.run_for(20.0)
    for name in names:
        lab.world.node(name).power_on()
    lab.until_ended(180.0)
    lab.until_counting(120.0)


@pytest.mark.parametrize("moment", sample("complete", of=MOMENTS[2:5]))
@pytest.mark.parametrize("who", ["source", "target"])
def test_a_host_that_is_cut_off_and_fenced_ends_its_copy_and_is_let_in_again(
    lab: Lab, who: str, moment: str
) -> None:
    name = lab.source if who == "source" else lab.target
    faults = lab.world.faults

    def cut() -> None:
        faults.do(f"isolate {name}")
        faults.do(f"store-cut {name}")

    at(lab, moment, lambda: lab.world.schedule.call_later(0.0, cut))
    lab.world.run_until(lambda: lab.site.bars(name), 60.0, "it is fenced")
    lab.until_ended()
    faults.do("heal")
    lab.world.run_until(lambda: not lab.site.bars(name), 120.0, "it is let in again")
    lab.until_counting()


@pytest.mark.parametrize("call", ["*", pytest.param("observe", marks=pytest.mark.slow)])
@pytest.mark.parametrize("who", ["source", "target"])
def test_a_hypervisor_that_does_not_answer_for_a_while_is_waited_for(lab: Lab, who: str, call: str) -> None:
    name = lab.source if who == "source" else lab.target

    def answers(faults: Faults) -> None:
        loops = lab.cluster.loops(name)
        assert loops is not None
        lifecycle = loops.ports.controllers["dummy"]
        assert isinstance(lifecycle, SiteGuests)
        lab.cluster.hosts[name].faults = lifecycle.hypervisor.faults = faults

    at(lab, "copying", lambda: answers(Faults(unavailable=(call,))))
    lab.world.run_for(15.0)
    assert lab.running() in ([], [lab.source])
    answers(Faults())
    assert lab.until_ended().phase is MigrationPhase.SUCCEEDED
    lab.until_counting()
    assert lab.claim().node == lab.target


def test_the_run_goes_on_as_it_was_told_of(lab: Lab) -> None:
    def told() -> VmNodeStatus:
        value = lab.stored(keys.node_status(Kind.VIRTUAL_MACHINE, "web"))
        assert value is not None
        return load(VmNodeStatus, value)

    before = told()
    movable = [c for c in before.conditions if c.type is ConditionType.LIVE_MIGRATABLE]
    assert [c.status for c in movable] == [ConditionStatus.TRUE]
    lab.migrate()
    lab.until_ended()
    lab.world.run_until(lambda: told().phase is Phase.RUNNING, 10.0, "the target tells of it")
    assert (told().node, told().start_time) == (lab.target, before.start_time)


def test_a_guest_that_ends_before_it_leaves_is_started_again_at_once(lab: Lab) -> None:
    loops = lab.cluster.loops(lab.source)
    assert loops is not None
    guests = loops.ports.controllers["dummy"]
    assert isinstance(guests, SiteGuests)
    lab.on_reaching = lambda point: guests.hypervisor.end("web") if point == "migration:Open" else None
    lab.migrate()
    ended = lab.until_ended(20.0)
    assert ended.phase is MigrationPhase.FAILED
    lab.until_counting()


def test_a_migration_that_is_cancelled_leaves_the_guest_where_it_is(lab: Lab) -> None:
    at(lab, "copying", lambda: None)
    lab.cancel()
    ended = lab.until_ended()
    assert ended.phase is MigrationPhase.CANCELLED
    assert "vcl migrate --cancel" in ended.message
    lab.until_counting()
    assert lab.claim().node == lab.source


def test_a_guest_that_is_to_stop_is_not_waited_for(lab: Lab) -> None:
    at(lab, "copying", lambda: None)
    lab.tell(Verb.STOP)
    assert lab.until_ended().phase is MigrationPhase.CANCELLED
    lab.world.run_until(lambda: not lab.claim().node, 60.0, "it has stopped")


def test_a_target_that_cannot_run_it_says_so_before_anything_happens(lab: Lab) -> None:
    lab.cluster.wire.unfit[lab.target] = "its CPU has no avx2"
    lab.migrate()
    ended = lab.until_ended()
    assert ended.phase is MigrationPhase.FAILED
    assert f"it cannot run on {lab.target}: its CPU has no avx2" in ended.message
    lab.until_counting()
    assert lab.claim().node == lab.source
