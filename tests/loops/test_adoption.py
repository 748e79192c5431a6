"""A domain that somebody made by hand becomes a VM: it goes on, its images are claimed with its clients, and
whatever comes in between - another client, another VM, a daemon that dies - nobody ends it (rule 9)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from reconciler.adapters.clock import SystemClock, SystemIds
from reconciler.loops.adoption import Adoptions, AdoptResult, Wanted
from reconciler.loops.manifest_sync import ManifestSync, SyncPorts
from reconciler.ports.controller import Adopter
from reconciler.resources import keys
from reconciler.resources.domains import Observed
from reconciler.resources.images import RbdName
from reconciler.resources.kinds import Kind
from reconciler.resources.records import Binding, Claim, ClaimPhase, DiskClaim, Intent, Pin, dump
from reconciler.resources.transactions import Put, Resolution, Txn, Unresolved
from reconciler.sim.ceph import SimCeph, SimClient, SimImage
from reconciler.sim.controller import DummyController
from reconciler.sim.dummy_guests import Faults
from reconciler.sim.killpoints import KillController, Killpoint, KillStore
from reconciler.sim.manifest_directory import MemoryBaseStore, MemoryManifestDirectory
from reconciler.sim.node import SimNode
from reconciler.sim.rbd import SimRbd
from reconciler.sim.rbd_guests import RbdGuests
from reconciler.sim.store import MemoryStore, TxnFault, touching
from reconciler.testing.manifests import parse

UUID = "a0000000-0000-4000-8000-0000000000aa"
ROOT = RbdName(pool="vms", image="web-disk")
PATH = "virtualmachine-web.yaml"
MANIFEST = b"""\
# adopted
apiVersion: vcl/v1
kind: VirtualMachine
metadata: {name: web}
spec:
  controller: dummy
  cpu: {cores: 1}
  memory: 64Mi
  terminationGracePeriodSeconds: 1
  disks: [{name: vda, pool: ceph, image: web-disk}]
"""
MOST = 40
THE_CLAIM = touching(keys.claim("web"))


class VagueStore(MemoryStore):
    """While `vague` it cannot say what became of a transaction."""

    vague = False

    async def resolve(self, txn_id: str, *, timeout: float = 2.0) -> Resolution:
        return Unresolved() if self.vague else await super().resolve(txn_id, timeout=timeout)


class World:
    """A host with a domain made by hand on an RBD image, and all that outlives the daemons on it."""

    def __init__(self) -> None:
        self.ceph = SimCeph()
        self.ceph.images[ROOT] = SimImage(id="1001", size=1 << 20)
        self.dummy = DummyController()
        self.guests = RbdGuests(self.dummy, self.ceph)
        self.store = VagueStore()
        self.directory, self.bases = MemoryManifestDirectory(), MemoryBaseStore()
        self.node: SimNode
        self.adoptions: Adoptions
        self._sync: asyncio.Task[None] | None = None

    def make_domain(self) -> SimClient:
        """The client of its QEMU."""
        self.dummy.hypervisor.foreign("web", UUID, writable=(ROOT.path,))
        return self.guests.qemus.by_hand("web", (ROOT,))

    async def start(self, point: Killpoint | None = None) -> SimNode:
        point = point or Killpoint()
        controller: Any = KillController(self.guests, point)
        self.node = node = SimNode(
            KillStore(self.store, point),
            clock=SystemClock(),
            ids=SystemIds(),
            controllers={"dummy": controller},
            backends={"ceph": SimRbd(self.ceph)},
        )
        await node.start()
        sync = ManifestSync(
            SyncPorts(
                directory=self.directory,
                bases=self.bases,
                views=node.views,
                writer=node.writer,
                clock=SystemClock(),
                ids=SystemIds(),
                parse=parse,
            )
        )
        self._sync = asyncio.create_task(sync.run())
        self.adoptions = Adoptions(node.context, sync)
        return node

    async def kill(self) -> None:
        if self._sync is not None:
            self._sync.cancel()
            await asyncio.gather(self._sync, return_exceptions=True)
        await self.node.kill()

    async def adopt(self, *, dry_run: bool = False, **changes: Any) -> AdoptResult:
        wanted = Wanted(source="web.xml", content=MANIFEST, domain="web", uuid=UUID, running=True)
        (result,) = await self.adoptions.adopt([replace(wanted, **changes)], dry_run=dry_run)
        return result

    async def domain(self) -> Observed:
        found = await self.dummy.lifecycle.observe("web", timeout=1.0)
        assert isinstance(found, Observed)
        return found

    async def defined(self) -> bool:
        assert isinstance(self.dummy.lifecycle, Adopter)
        found = await self.dummy.lifecycle.stranger("web", timeout=1.0)
        return found is not None and found.persistent

    def claim(self) -> Claim | None:
        return self.node.views.claim("web")


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    await made.start()
    yield made
    await made.kill()


class TestTakingOver:
    async def test_a_running_domain_goes_on_as_a_vm_with_its_own_uuid(self, world: World) -> None:
        client, before = world.make_domain(), await world.domain()
        assert (await world.adopt()).result == "adopted"
        await world.node.until(lambda: world.node.phase("web") == "Running")
        after = await world.domain()
        assert after.incarnation == before.incarnation
        assert (after.uid, after.node, before.uid) == (UUID, "r1", "")
        claim = world.claim()
        assert claim is not None
        assert (claim.node, claim.uid, claim.phase) == ("r1", UUID, ClaimPhase.RUNNING)
        assert set(claim.clients) == {client.address, *before.clients}
        assert not await world.defined()
        world.guests.qemus.write("web")
        assert [write.client for write in world.ceph.writes] == [client.address]

    async def test_spec_binding_claim_and_images_are_one_transaction(self, world: World) -> None:
        world.make_domain()
        await world.adopt()
        cache = world.node.views.cache
        image = next(item.key for item in cache.prefix(keys.DISKS) if "name/" not in item.key)
        written = (
            keys.spec(Kind.VIRTUAL_MACHINE, "web"),
            keys.binding("web"),
            image,
            keys.manifest(PATH),
            keys.pin("web"),
        )
        assert len({cache.revision_of(key) for key in written}) == 1
        binding, pin = (
            world.node.views.record(keys.binding("web"), Binding),
            world.node.views.record(keys.pin("web"), Pin),
        )
        assert binding is not None
        assert pin is not None
        assert (binding.node, binding.uid, pin.domain_uuid) == ("r1", UUID, UUID)

    async def test_the_manifest_comes_into_the_directory_byte_for_byte(self, world: World) -> None:
        world.make_domain()
        result = await world.adopt()
        await world.node.until(lambda: PATH in world.directory.files)
        assert (result.path, world.directory.files[PATH]) == (PATH, MANIFEST)
        record = world.node.views.spec_record(Kind.VIRTUAL_MACHINE, "web")
        assert record is not None
        assert (record.metadata.uid, record.metadata.generation) == (UUID, 1)

    async def test_it_is_a_vm_like_others_from_then_on(self, world: World) -> None:
        first = world.make_domain()
        await world.adopt()
        await world.node.intend("web", Intent(run="Stop"))
        await world.node.until(lambda: world.node.phase("web") == "Stopped")
        await world.node.intend("web", Intent(run="Start", start="1"))
        await world.node.until(lambda: world.node.phase("web") == "Running")
        claim = world.claim()
        assert claim is not None
        assert claim.uid == UUID
        assert first.address not in claim.clients

    async def test_what_was_asked_for_an_earlier_vm_of_the_name_does_not_stop_it(self, world: World) -> None:
        world.make_domain()
        await world.node.intend("web", Intent(run="Stop"))
        assert (await world.adopt()).result == "adopted"
        await world.node.until(lambda: world.node.phase("web") == "Running")
        assert world.node.views.intent("web") == Intent()

    async def test_a_dry_run_looks_and_changes_nothing(self, world: World) -> None:
        world.make_domain()
        assert (await world.adopt(dry_run=True)).result == "adopted"
        assert await world.defined()
        assert (await world.domain()).uid == ""
        assert world.node.views.names(Kind.VIRTUAL_MACHINE) == []

    async def test_a_domain_that_is_off_keeps_its_uuid_and_stays_off(self, world: World) -> None:
        manifest = MANIFEST.replace(b"  cpu:", b"  runStrategy: Manual\n  cpu:")
        result = await world.adopt(running=False, content=manifest)
        assert result.result == "created"
        await world.node.until(lambda: PATH in world.directory.files)
        record = world.node.views.spec_record(Kind.VIRTUAL_MACHINE, "web")
        assert record is not None
        assert record.metadata.uid == UUID
        assert world.claim() is None


class TestRefused:
    async def still_by_hand(self, world: World) -> None:
        """The domain is as it was before, and no record of it exists."""
        assert await world.defined()
        assert (await world.domain()).uid == ""
        assert world.claim() is None
        assert world.node.views.names(Kind.VIRTUAL_MACHINE) == []

    async def test_another_client_on_an_image_is_named(self, world: World) -> None:
        world.make_domain()
        stranger = world.ceph.client("10.77.0.9")
        stranger.open(ROOT)
        error = (await world.adopt()).error
        assert stranger.address in error
        assert "not a client that vcl knows" in error
        await self.still_by_hand(world)
        stranger.close()
        assert (await world.adopt()).result == "adopted"

    async def test_who_opens_an_image_while_it_is_adopted_ends_the_adoption(self, world: World) -> None:
        """The last look is after the definition is gone: the domain gets it back."""
        world.make_domain()
        stranger = world.ceph.client("10.77.0.9")
        take_over = world.guests.qemus.take_over

        async def meanwhile(definition: Any, *, timeout: float) -> None:
            stranger.open(ROOT)
            await take_over(definition, timeout=timeout)

        world.guests.qemus.take_over = meanwhile  # type: ignore[method-assign]
        assert stranger.address in (await world.adopt()).error
        await self.still_by_hand(world)

    async def test_an_image_that_another_vm_has_claimed_is_not_claimed_twice(self, world: World) -> None:
        world.make_domain()
        identity = f"{world.ceph.fsid}/vms//1001"
        await world.node.put(keys.disk(identity), dump(DiskClaim(node="r2", vm="db", uid="u")))
        await world.node.until(lambda: world.node.views.exists(keys.disk(identity)))
        assert "held by another VM" in (await world.adopt()).error
        await self.still_by_hand(world)

    async def test_a_manifest_that_names_other_images_is_refused(self, world: World) -> None:
        world.make_domain()
        other = RbdName(pool="vms", image="other")
        world.ceph.images[other] = SimImage(id="1002", size=1 << 20)
        content = MANIFEST.replace(b"image: web-disk", b"image: other")
        assert "writes to rbd:vms/web-disk" in (await world.adopt(content=content)).error
        content = MANIFEST.replace(b"web-disk}", b"web-disk}, {name: vdb, pool: ceph, image: other}")
        assert "does not have open" in (await world.adopt(content=content)).error
        await self.still_by_hand(world)

    @pytest.mark.parametrize("strategy", [b"Manual", b"Halted"])
    async def test_a_guest_that_vcl_would_stop_at_once_is_not_taken_over(
        self, world: World, strategy: bytes
    ) -> None:
        world.make_domain()
        content = MANIFEST.replace(b"  cpu:", b"  runStrategy: " + strategy + b"\n  cpu:")
        result = await world.adopt(content=content, running=False)
        assert "would shut it down at once" in result.error
        await self.still_by_hand(world)

    async def test_a_node_that_is_frozen_or_fenced_adopts_nothing(self, world: World) -> None:
        world.make_domain()
        world.node.frozen = "the store is older than what was seen"
        assert "older" in (await world.adopt()).error
        world.node.frozen = ""
        await world.node.put(keys.fence("r1"), b"{}")
        await world.node.until(lambda: world.node.views.exists(keys.fence("r1")))
        assert "is fenced" in (await world.adopt()).error
        assert await world.defined()

    async def test_an_image_that_is_not_there_is_never_made(self, world: World) -> None:
        world.make_domain()
        content = MANIFEST.replace(b"image: web-disk", b"image: nowhere, size: 1Mi")
        assert "missing" in (await world.adopt(content=content)).error
        assert list(world.ceph.images) == [ROOT]

    async def test_a_domain_that_runs_elsewhere_is_refused(self, world: World) -> None:
        assert "runs, and not on node r1" in (await world.adopt()).error
        assert world.node.views.names(Kind.VIRTUAL_MACHINE) == []

    async def test_a_name_and_a_uuid_are_taken_once(self, world: World) -> None:
        world.make_domain()
        await world.adopt()
        assert "there is a VM 'web' already" in (await world.adopt()).error
        content = MANIFEST.replace(b"name: web}", b"name: copy}")
        assert "it is that VM already" in (await world.adopt(content=content)).error

    async def test_the_mark_of_another_cluster_is_respected(self, world: World) -> None:
        world.make_domain()
        guest = world.dummy.hypervisor.get("web")
        assert guest is not None
        marked = replace(guest, made_by_vcl=True, cluster_uid="elsewhere", node="r9")
        world.dummy.hypervisor.put(marked, "Metadata")
        assert "belongs to another cluster" in (await world.adopt()).error

    async def test_a_hypervisor_that_does_not_answer_is_no_answer(self, world: World) -> None:
        world.make_domain()
        world.dummy.hypervisor.faults = Faults(unavailable=("take_over",))
        assert "unavailable" in (await world.adopt()).error
        world.dummy.hypervisor.faults = Faults()
        await self.still_by_hand(world)

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (b"kind: [", "web.xml:1"),
            (MANIFEST.replace(b"cores: 1", b"cores: many"), "cpu.cores"),
            (MANIFEST + b"---\n" + MANIFEST.replace(b"name: web}", b"name: db}"), "one VirtualMachine"),
            (MANIFEST.replace(b"controller: dummy", b"controller: other"), "no controller 'other'"),
        ],
    )
    async def test_a_manifest_that_cannot_be_is_refused(
        self, world: World, content: bytes, said: str
    ) -> None:
        world.make_domain()
        assert said in (await world.adopt(content=content)).error


class TestWritesThatAreNotAnswered:
    """The write with the claim; SAFETY rule 2 says what may be concluded."""

    async def test_one_that_did_not_arrive_gives_the_domain_back(self, world: World) -> None:
        world.make_domain()
        world.store.arm(TxnFault.REFUSED, when=THE_CLAIM)
        assert "refused" in (await world.adopt()).error
        assert await world.defined()
        assert (await world.domain()).uid == ""

    async def test_one_that_the_log_knows_of_has_happened(self, world: World) -> None:
        world.make_domain()
        world.store.arm(TxnFault.APPLIED, when=THE_CLAIM)
        assert (await world.adopt()).result == "adopted"

    async def test_one_that_may_still_arrive_leaves_the_domain_as_it_is_also_at_a_second_attempt(
        self, world: World
    ) -> None:
        world.make_domain()
        world.store.vague = True
        world.store.arm(TxnFault.LATE, when=THE_CLAIM)
        assert "not certain that nothing was recorded" in (await world.adopt()).error
        identity = keys.disk(f"{world.ceph.fsid}/vms//1001")
        world.store.vague = False
        other = Txn(id="x", puts=(Put(key=identity, value=dump(DiskClaim(node="r2", vm="db", uid="u"))),))
        await world.store.txn(other)
        await world.node.until(lambda: world.node.views.exists(identity))
        assert "held by another VM" in (await world.adopt()).error
        assert not await world.defined()
        assert (await world.domain()).uid == UUID
        await world.node.put(identity, None)
        await world.node.until(lambda: not world.node.views.exists(identity))
        before = await world.domain()
        world.store.cluster.land()
        if not world.node.views.exists(keys.claim("web")):
            await world.adopt()
        await world.node.until(lambda: world.node.phase("web") == "Running")
        assert (await world.domain()).incarnation == before.incarnation


@pytest.mark.parametrize("after", [False, True])
async def test_a_daemon_killed_anywhere_in_it_ends_nothing_and_the_next_one_finishes_it(after: bool) -> None:
    reached = 0
    while await _killed_at(reached + 1, after):
        reached += 1
        assert reached < MOST
    assert reached >= 2


async def _killed_at(step: int, after: bool) -> bool:
    """Adopt with a daemon that dies at its n-th step; the next one finishes. False: there is no such step."""
    world = World()
    client = world.make_domain()
    point = Killpoint(at=1 << 30, after=after)
    await world.start(point)
    before = await world.domain()
    await asyncio.sleep(0.05)
    point.at = point.count + step
    adopting, killed = asyncio.create_task(world.adopt()), asyncio.create_task(point.reached.wait())
    done, _ = await asyncio.wait({adopting, killed}, timeout=10.0, return_when=asyncio.FIRST_COMPLETED)
    assert done
    was_killed = point.reached.is_set()
    for task in (adopting, killed):
        task.cancel()
    await asyncio.gather(adopting, killed, return_exceptions=True)
    await world.kill()
    await world.start()
    if not world.node.views.names(Kind.VIRTUAL_MACHINE):
        result = await world.adopt()
        assert result.result == "adopted", (point.what, result.error)
    await world.node.until(lambda: world.node.phase("web") == "Running")
    domain, claim = await world.domain(), world.claim()
    assert claim is not None
    assert (domain.incarnation, domain.uid) == (before.incarnation, UUID)
    assert (claim.uid, client.address in claim.clients) == (UUID, True)
    assert not await world.defined()
    await world.kill()
    return was_killed
