"""Disks that come to running guests, and go, in a simulated cluster: whatever dies at whatever step, no image
has two writers, and the VM runs in the end with the disks that were asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from reconciler.loops.assembly import absence
from reconciler.loops.migration_requests import MigrationRequests
from reconciler.resources import keys
from reconciler.resources.images import RbdName
from reconciler.resources.migrations import MigrationPhase, MigrationRecord
from reconciler.resources.records import Claim, load
from reconciler.resources.transactions import Committed, Txn, TxnResult
from reconciler.sim.cluster import SimCluster
from reconciler.sim.dummy_guests import ALL, Faults, Guest, GuestFaults, Life
from reconciler.sim.dummy_hypervisor import DummyHypervisor
from reconciler.sim.invariants import Invariants
from reconciler.sim.site_ceph import SiteCeph
from reconciler.sim.site_ports import SiteGuests
from reconciler.sim.world import World
from reconciler.testing.manifests import parse

NODES = ("r1", "r2", "r3")
ROOT, DATA = "{name: root, pool: ceph, size: 1Mi}", "{name: data, pool: ceph, size: 1Mi}"


def manifest(*disks: str, memory: str = "64Mi") -> bytes:
    return (
        "apiVersion: vcl/v1\nkind: VirtualMachine\nmetadata: {name: web}\n"
        f"spec: {{controller: dummy, cpu: {{cores: 1}}, memory: {memory}, maxMemory: 256Mi,"
        f" disks: [{', '.join(disks)}]}}\n"
    ).encode()


class Lab:
    """Three nodes with one Ceph, and the VM web on a node that is not the master."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.site = SiteCeph(world)
        self.cluster = SimCluster(world, NODES, parse, site=self.site)
        self.invariants = Invariants(self.cluster)
        self.cluster.found()
        world.power_on()
        world.run_until(lambda: "r1" in self.cluster.masters(), 20.0, "there is a master")

    def begin(self, *disks: str) -> None:
        """The VM runs with these, and counts."""
        self.cluster.save("r1", "web.yaml", manifest(*disks))
        self.until_it_has(*(["root", "data"][: len(disks)]))
        self.world.run_for(2.0)

    def stored(self, key: str) -> bytes | None:
        found = self.world.storage.cluster.get([key]).get(key)
        return found.value if found is not None else None

    def claim(self) -> Claim:
        value = self.stored(keys.claim("web"))
        return load(Claim, value) if value is not None else Claim()

    def guest(self) -> Guest | None:
        """The one that can write."""
        return next(
            (
                guest
                for host in NODES
                if not self.site.bars(host)
                for guest in self.cluster.guests(host)
                if guest.name == "web" and guest.life is Life.ALIVE
            ),
            None,
        )

    def has(self, *disks: str) -> bool:
        """The running guest has exactly these, nothing is under way, and every image of it is claimed."""
        guest, claim = self.guest(), self.claim()
        if guest is None or claim.plugging is not None or set(guest.disks) != set(disks):
            return False
        images = [RbdName(pool="vms", image=f"web.{disk}") for disk in disks]
        return {self.site.identity(image) for image in images} == {
            key for key in claim.disks if not key.startswith("name/")
        }

    def until_it_has(self, *disks: str) -> None:
        self.world.run_until(lambda: self.has(*disks), 120.0, f"web has {', '.join(disks)}")

    def after_writes(self, number: int, do: Callable[[], object]) -> list[str]:
        """Do it after so many transactions that write the claim; their keys, as they come."""
        writes: list[str] = []

        def judge(txn: Txn, result: TxnResult) -> None:
            if isinstance(result, Committed) and any(put.key == keys.claim("web") for put in txn.puts):
                writes.append(", ".join(put.key for put in txn.puts))
                if len(writes) == number:
                    self.world.schedule.call_later(0.0, do)

        self.world.storage.cluster.judges.append(judge)
        return writes

    def hypervisor(self, host: str) -> DummyHypervisor:
        loops = self.cluster.loops(host)
        assert loops is not None
        controller = loops.ports.controllers["dummy"]
        assert isinstance(controller, SiteGuests)
        return controller.hypervisor

    def lets_go(self, host: str, *, ever: bool) -> None:
        faults = Faults() if ever else Faults(guests={ALL: GuestFaults(holds_on=True)})
        self.cluster.hosts[host].faults = self.hypervisor(host).faults = faults

    def migrate(self) -> None:
        loops = self.cluster.loops("r1")
        assert loops is not None
        ports, membership = loops.ports, loops.membership
        requests = MigrationRequests(
            loops.views, loops.writer, ports.clock, ports.ids, lambda node: absence(ports, membership, node)
        )
        self.world.node("r1").spawn(lambda _: requests.request("web"))

    def record(self) -> MigrationRecord | None:
        items = self.world.storage.cluster.list(keys.MIGRATIONS).items
        return max((load(MigrationRecord, item.value) for item in items), key=lambda r: r.id, default=None)


@pytest.fixture
def lab() -> Iterator[Lab]:
    with World(seed=7) as world:
        yield Lab(world)


def sample(*quick: tuple[str, int], of: int = 3) -> list[Any]:
    both = [(way, number) for way in ("comes", "goes") for number in range(1, of + 1)]
    return [each if each in quick else pytest.param(*each, marks=pytest.mark.slow) for each in both]


def test_a_disk_comes_and_goes_while_the_guest_runs_on(lab: Lab) -> None:
    lab.begin(ROOT)
    before = lab.guest()
    lab.cluster.save("r2", "web.yaml", manifest(ROOT, DATA, memory="128Mi"))
    lab.until_it_has("root", "data")
    lab.cluster.save("r3", "web.yaml", manifest(ROOT, memory="128Mi"))
    lab.until_it_has("root")
    after = lab.guest()
    assert before is not None
    assert after is not None
    assert (after.incarnation, after.memory) == (before.incarnation, 128 << 20)


@pytest.mark.parametrize(("way", "number"), sample(("comes", 2), ("goes", 1)))
@pytest.mark.parametrize("what", ["daemon", "host"])
def test_whatever_dies_at_whatever_step_the_vm_has_its_disks_in_the_end(
    lab: Lab, what: str, way: str, number: int
) -> None:
    lab.begin(*((ROOT,) if way == "comes" else (ROOT, DATA)))
    node = lab.world.node(lab.claim().node)

    def die() -> None:
        node.kill() if what == "daemon" else node.power_off()
        lab.world.schedule.call_later(40.0, node.start if what == "daemon" else node.power_on)

    writes = lab.after_writes(number, die)
    lab.cluster.save("r1", "web.yaml", manifest(*((ROOT, DATA) if way == "comes" else (ROOT,))))
    lab.world.run_for(2.0)
    lab.until_it_has(*(("root", "data") if way == "comes" else ("root",)))
    assert writes


def test_while_it_is_not_settled_which_disks_it_has_a_vm_is_not_migrated(lab: Lab) -> None:
    lab.begin(ROOT, DATA)
    source = lab.claim().node
    lab.lets_go(source, ever=False)
    lab.cluster.save("r1", "web.yaml", manifest(ROOT))
    lab.world.run_until(lambda: lab.claim().plugging is not None, 10.0, "its disk is to go")
    lab.world.run_for(2.0)
    lab.migrate()
    lab.world.run_for(10.0)
    record = lab.record()
    assert record is not None
    assert record.phase is MigrationPhase.PENDING
    assert record.message == "its disk 'data' is being detached"
    lab.lets_go(source, ever=True)
    lab.world.run_until(lambda: lab.claim().node not in (source, ""), 120.0, "it has moved")
    lab.until_it_has("root")


def test_what_changed_on_the_way_comes_where_it_has_gone(lab: Lab) -> None:
    lab.begin(ROOT)
    source, before = lab.claim().node, lab.guest()
    lab.migrate()
    lab.world.run_until(lambda: lab.claim().migration is not None, 10.0, "it is on its way")
    lab.cluster.save("r1", "web.yaml", manifest(ROOT, DATA, memory="256Mi"))
    lab.until_it_has("root", "data")
    after = lab.guest()
    assert before is not None
    assert after is not None
    assert lab.claim().node != source
    assert (after.memory, after.uid) == (256 << 20, before.uid)
