"""Stories in which a product without one of the safety rules would be found out: the audits look after every
event, and tests/sim/test_mutations.py plays each one again with its rule taken out."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from reconciler.ports.fencer import Fencer, Guard
from reconciler.resources.domains import PauseReason
from reconciler.resources.fencing import Blocklisted, FenceOrder, Proof, host_entry
from reconciler.resources.images import RbdName
from reconciler.resources.records import ClaimPhase
from reconciler.sim.ceph import SimImage
from reconciler.sim.dummy_guests import ALL, Faults, Guest, GuestFaults, Life
from reconciler.sim.dummy_shelf import MemoryShelf
from reconciler.sim.fencer import YEARS, SimPowerFencer
from reconciler.sim.invariants import InvariantBroken
from reconciler.sim.site_ceph import POOL, SiteCeph
from reconciler.sim.site_ports import SiteFencer
from reconciler.sim.world import World
from reconciler.sim.writing import virtual_machine
from tests.sim.site import Site

SAME = """\
apiVersion: vcl/v1
kind: VirtualMachine
metadata: {{name: {name}}}
spec: {{controller: dummy, cpu: {{cores: 1}}, memory: 64Mi, disks: [{{name: vda, pool: {pool}, image: old}}]}}
"""
ALSO = b"""\
apiVersion: vcl/v1
kind: StoragePool
metadata: {name: also}
spec: {type: rbd, rbd: {pool: vms}}
"""
STUBBORN = Faults(guests={ALL: GuestFaults(refuses_destroy=True)})
SOON = 20.0
"""Seconds until an entry of somebody else's ends."""


def test_a_lease_that_is_old_is_no_proof_while_the_monitors_take_no_command() -> None:
    """Rule 1: a lease is a hint."""
    with World(seed=3) as world:
        site = Site(world).started()
        victim = site.owner()
        site.ceph.blocklist.hang = True
        site.vanish(victim)
        world.run_until(lambda: site.record(victim) is not None, 20.0, "its fencing begins")
        world.run_for(20.0)
        assert site.owner() == victim
        site.ceph.blocklist.hang = False
        assert site.failed_over_from(victim)


def test_a_guest_does_not_run_before_it_is_known_that_its_client_is_recorded() -> None:
    """Rule 2: the write about it gets no answer, and lands late or never."""
    with World(seed=3) as world:
        site = Site(world)
        world.run_until(lambda: bool(site.ceph.qemus), 30.0, "its QEMU is there, paused")
        (qemu,) = site.ceph.qemus
        world.storage.stall(qemu.host)
        world.run_for(3.0)
        world.storage.cut(qemu.host)
        world.run_for(1.0)
        world.storage.heal(qemu.host)
        site.started()
        assert site.claim().phase is ClaimPhase.RUNNING


@pytest.mark.slow
def test_a_store_that_was_set_back_ends_no_guest_and_starts_none() -> None:
    """Rule 3. By what was put back, the VM is on another node."""
    with World(seed=3) as world:
        site = Site(world, audited=False).started()
        before = site.owner()
        old = world.storage.cluster.backup()
        world.node(before).power_off()
        assert site.failed_over_from(before)
        world.node(before).power_on()
        world.run_until(lambda: site.record(before) is None, 60.0, "it takes part again")
        world.run_for(35.0)  # what has been seen is kept on each host twice a minute
        (qemu,) = site.ceph.qemus
        for name in world.names:
            world.node(name).kill()
        world.storage.cluster.restore(old)
        for name in world.names:
            world.node(name).start()
        count = site.counter()
        world.run_for(30.0)
        assert site.ceph.qemus == [qemu]
        assert site.counter() > count + 20


@pytest.mark.slow
def test_a_store_that_was_set_back_is_not_believed_when_others_have_written_to_it_since() -> None:
    """Rule 3. Its numbers grow with each daemon that begins on it, also of those that are frozen; another one
    begins when they are past all that it has seen, and one that is frozen begins again."""
    with World(seed=3) as world:
        site = Site(world, audited=False).started()
        old = world.storage.cluster.backup()
        site.cluster.save("r1", "db.yaml", virtual_machine("db", disk="1Gi", runStrategy="Halted"))
        world.run_for(35.0)
        last, *others = sorted(world.names, key=lambda name: name == site.owner())
        for name in world.names:
            world.node(name).kill()
        right, seen = world.storage.cluster.backup(), site.cluster.hosts[last].seen
        assert seen is not None
        world.storage.cluster.restore(old)
        for name in others:
            world.node(name).start()
        while world.storage.cluster.revision <= seen.revision + 5:
            world.node(others[0]).kill()
            world.node(others[0]).start()
            world.run_for(5.0)
        world.node(last).start()
        world.run_for(10.0)
        assert all(frozen(site, name) for name in world.names)
        for name in world.names:
            world.node(name).kill()
        world.storage.cluster.restore(right)
        for name in world.names:
            world.node(name).start()
        world.run_for(10.0)
        assert not any(frozen(site, name) for name in world.names)


def frozen(site: Site, name: str) -> str:
    """Why this node changes nothing."""
    running = site.cluster.hosts[name].running
    assert running is not None
    return running.frozen()


def test_one_image_by_two_names_has_one_owner() -> None:
    """Rule 6. Both are started at the same moment."""
    with World(seed=3) as world:
        other = SAME.format(name="db", pool="also").encode()
        site = Site(world, vm=SAME.format(name="web", pool="ceph").encode(), others=(ALSO,))
        site.ceph.images.images[RbdName(pool=POOL, image="old")] = SimImage(id="1001", size=1 << 30)
        site.cluster.save("r1", "db.yaml", other)
        site.started()
        world.run_for(20.0)
        assert sorted(bool(site.claim(vm).node) for vm in ("web", "db")) == [False, True]


def test_what_a_host_that_was_switched_off_has_locked_keeps_nobody_from_starting() -> None:
    """Rule 8: no blocklist has broken its locks."""
    with World(seed=3) as world:
        site = Site(
            world, fencers=lambda _, ports: (SimPowerFencer(lambda node: world.node(node).power_off()),)
        ).started()
        victim = site.owner()
        (dead,) = site.on(victim)
        site.vanish(victim)
        assert site.failed_over_from(victim)
        assert site.ceph.blocklist.bars(dead.client)


def test_a_copy_of_a_domain_that_somebody_started_by_hand_is_left_alone() -> None:
    """Rule 9: it has the VM's id, and the record says that nobody owns that; but vcl did not make it here."""
    with World(seed=3) as world:
        site = Site(world).started()
        host, uid = site.owner(), site.claim().uid
        site.cluster.save("r1", "web.yaml", virtual_machine("web", disk="1Gi", runStrategy="Halted"))
        world.run_until(lambda: site.owner() == "", 90.0, "it is stopped")
        assert site.claim().uid == uid
        world.node(host).kill()
        shelf = world.node(host).memory["guests"]
        assert isinstance(shelf, MemoryShelf)
        shelf.save(
            Guest(name="web", uid=uid, node="elsewhere", pause=PauseReason.NONE, incarnation="by hand")
        )
        world.node(host).start()
        world.run_for(40.0)
        assert [guest.life for guest in site.cluster.guests(host)] == [Life.ALIVE]


class Trusting(SiteFencer):
    """Takes an entry that is there already for its own, whenever that ends."""

    async def fence(self, order: FenceOrder, guard: Guard, *, timeout: float) -> Proof:
        entries = tuple(sorted({*map(host_entry, order.addresses), *order.clients}))
        for entry in entries:
            self.blocklist.add(entry, YEARS)
        return Blocklisted(fsid=self.fsid, entries=entries)

    async def settle(self, order: FenceOrder, proof: Proof, *, timeout: float) -> None:
        """Does not look."""


def behind_entries_that_end(world: World, fencer: Callable[[SiteCeph, str], Fencer]) -> Site:
    site = Site(world, fencer).started()
    victim = site.owner()
    (zombie,) = site.on(victim)
    site.vanish(victim)
    world.run_for(1.0)
    for entry in (host_entry(world.node(victim).address), zombie.client):
        site.ceph.blocklist.add(entry, SOON)
    assert site.failed_over_from(victim)
    world.run_for(SOON)
    world.storage.heal(victim)
    world.run_for(5.0)
    assert site.alive_on(victim)
    assert zombie.refused == 1
    return site


def test_entries_that_end_soon_are_replaced_before_anything_is_taken() -> None:
    """Rule 11."""
    with World(seed=3) as world:
        behind_entries_that_end(world, SiteFencer)


def test_the_audit_catches_a_fencer_that_takes_any_entry_for_one_that_lasts() -> None:
    with World(seed=3) as world, pytest.raises(InvariantBroken, match=r"may be written by|runs on"):
        behind_entries_that_end(world, Trusting)


def test_one_judge_alone_cuts_nobody_off() -> None:
    """Rule 13: the node has lost the store, and the master does not hear it; another node does."""
    with World(seed=3) as world:
        site = Site(world).started()
        victim, master = site.owner(), site.master()
        assert victim != master
        world.network.cut(master, victim)
        world.storage.cut(victim)
        world.run_for(12.0)
        assert site.record(victim) is None
        world.network.heal()
        world.storage.heal()
        world.run_for(10.0)
        assert site.record(victim) is None


def test_a_fenced_host_is_not_let_in_while_a_guest_is_left_on_it() -> None:
    """Rule 15: its daemon is heard again, and cannot end the guest."""
    with World(seed=3) as world:
        site = Site(world, faults=STUBBORN).started()
        victim = site.owner()
        site.vanish(victim)
        assert site.failed_over_from(victim)
        site.awake(victim)
        world.run_for(30.0)
        assert site.alive_on(victim)
        assert site.ceph.bars(victim)
        assert site.record(victim) is not None
        world.node(victim).power_off()
        world.run_for(2.0)
        world.node(victim).power_on()
        world.run_until(lambda: site.record(victim) is None, 60.0, "its next boot is let in")
        assert not site.ceph.bars(victim)
