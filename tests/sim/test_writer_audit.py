"""The writer audit has teeth: it finds a fencer that lies, one that forgets what it fenced, a write without
the claim, and a lost one. With an honest fencer there is nothing to find."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from reconciler.ports.fencer import Fencer, Guard
from reconciler.resources.fencing import Blocklisted, FenceOrder, Proof
from reconciler.sim.fencer import YEARS
from reconciler.sim.invariants import InvariantBroken
from reconciler.sim.site_ceph import SiteCeph
from reconciler.sim.site_ports import SiteFencer
from reconciler.sim.world import World
from tests.sim.site import Site


class Liar(SiteFencer):
    """Says that everything is fenced, and fences nothing."""

    async def fence(self, order: FenceOrder, guard: Guard, *, timeout: float) -> Proof:
        entries = tuple(sorted({f"{address}:0/0" for address in order.addresses} | set(order.clients)))
        return Blocklisted(fsid=self.fsid, entries=entries)

    async def settle(self, order: FenceOrder, proof: Proof, *, timeout: float) -> None:
        """Does not look."""


class Forgetful(SiteFencer):
    """Takes everything back as soon as it is done (as entries that end after a moment)."""

    async def settle(self, order: FenceOrder, proof: Proof, *, timeout: float) -> None:
        self.blocklist.entries.clear()


class Lagging(SiteFencer):
    """A Ceph whose OSDs know of an entry only when `settle` has waited for that."""

    async def fence(self, order: FenceOrder, guard: Guard, *, timeout: float) -> Proof:
        entries = tuple(sorted({f"{address}:0/0" for address in order.addresses} | set(order.clients)))
        return Blocklisted(fsid=self.fsid, entries=entries)

    async def settle(self, order: FenceOrder, proof: Proof, *, timeout: float) -> None:
        await asyncio.sleep(1.0)
        assert isinstance(proof, Blocklisted)
        for entry in proof.entries:
            self.blocklist.add(entry, YEARS)


def test_a_killed_guests_last_write_is_refused_when_its_link_heals() -> None:
    with World(seed=3) as world:
        site = Site(world, SiteFencer).started()
        victim = site.owner()
        site.vanish(victim)
        assert site.failed_over_from(victim)
        zombies = [qemu for qemu in site.ceph.qemus if qemu.host == victim]
        assert [qemu.pending is not None for qemu in zombies] == [True], "its last write is under way"
        reached = site.counter()
        world.storage.heal(victim)
        world.run_for(5.0)
        assert [qemu.refused for qemu in zombies] == [1]
        assert site.counter() > reached
        world.network.heal()
        world.node(victim).resume()
        world.run_until(lambda: not site.alive_on(victim), 30.0, "its zombie is ended")
        world.run_until(lambda: not site.ceph.bars(victim), 60.0, "it is let in")
        assert site.audit is not None
        assert site.audit.writes > 10


def test_a_host_that_is_shut_out_of_the_store_as_well_ends_its_guests() -> None:
    with World(seed=3) as world:
        site = Site(world, SiteFencer).started()
        victim = site.owner()
        site.vanish(victim)
        assert site.failed_over_from(victim)
        world.storage.heal(victim)
        world.network.heal()
        world.node(victim).resume()
        world.run_until(lambda: not site.alive_on(victim), 60.0, "its zombie is ended")
        world.run_for(2.0)
        assert [qemu.refused for qemu in site.ceph.qemus if qemu.host == victim] == [1]


def test_a_host_that_is_fenced_while_it_boots_lets_itself_in_once_it_reaches_ceph() -> None:
    """What it had looked at before it asked the store is not true any more when the store refuses it."""
    with World(seed=3) as world:
        site = Site(world, SiteFencer).started()
        victim = site.owner()
        world.node(victim).power_off()
        world.storage.cut(victim)
        world.network.isolate(victim)
        world.node(victim).power_on()
        assert site.failed_over_from(victim)
        assert site.ceph.bars(victim)
        world.storage.heal(victim)
        world.network.heal()
        world.run_until(lambda: not site.ceph.bars(victim), 60.0, "it is let in")
        world.run_until(lambda: site.cluster.loops(victim) is not None, 60.0, "it takes part")


def test_a_daemon_that_is_started_anew_on_a_fenced_host_is_let_in() -> None:
    with World(seed=3) as world:
        site = Site(world, SiteFencer).started()
        victim = site.owner()
        site.vanish(victim)
        assert site.failed_over_from(victim)
        world.node(victim).kill()
        world.storage.heal(victim)
        world.network.heal()
        world.node(victim).start()
        world.run_until(lambda: not site.ceph.bars(victim), 60.0, "it is let in")
        assert not site.alive_on(victim)
        world.run_until(lambda: site.cluster.loops(victim) is not None, 10.0, "its daemon runs")


def test_a_claim_is_emptied_only_when_the_blocklist_is_in_force() -> None:
    with World(seed=3) as world:
        site = Site(world, Lagging).started()
        victim = site.owner()
        site.vanish(victim)
        assert site.failed_over_from(victim)


@pytest.mark.parametrize("fencer", [Liar, Forgetful])
def test_the_audit_catches_a_fencer_that_does_not_fence(fencer: Callable[[SiteCeph, str], Fencer]) -> None:
    with World(seed=3) as world:
        site = Site(world, fencer).started()
        victim = site.owner()
        site.vanish(victim)
        with pytest.raises(
            InvariantBroken,
            match=r"may be written by .* and by|runs on r\d and on r\d|was let in with web left",
        ):
            site.failed_over_from(victim)


def test_the_audit_catches_a_write_without_the_claim() -> None:
    with World(seed=3) as world:
        site = Site(world, SiteFencer).started()
        qemu = site.ceph.qemus[0]
        qemu.client = "10.0.0.99:0/7"
        with pytest.raises(InvariantBroken, match="whose claim is of"):
            world.run_for(3.0)


def test_the_audit_catches_a_write_that_was_lost() -> None:
    with World(seed=3) as world:
        site = Site(world, SiteFencer).started()
        for identity in site.ceph.counters:
            site.ceph.counters[identity] -= 2
        with pytest.raises(InvariantBroken, match="which had"):
            world.run_for(3.0)
