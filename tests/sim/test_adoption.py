"""A domain that was adopted as it ran, on a cluster: its host is lost, its client is fenced, and it counts on
elsewhere. The writer audit watches all the time."""

from __future__ import annotations

from reconciler.adapters.schema_files import load_schemas
from reconciler.loops.adoption import AdoptResult, Wanted
from reconciler.resources import keys
from reconciler.resources.images import RbdName
from reconciler.resources.manifest import ParsedFile, parse_manifest
from reconciler.resources.records import Claim, load
from reconciler.sim.ceph import SimImage
from reconciler.sim.cluster import SimCluster
from reconciler.sim.invariants import Invariants
from reconciler.sim.site_ceph import SiteCeph
from reconciler.sim.site_ports import SiteGuests
from reconciler.sim.world import World

SCHEMAS = load_schemas()
UUID = "a0000000-0000-4000-8000-0000000000aa"
IMAGE = RbdName(pool="vms", image="old")
MANIFEST = b"""\
apiVersion: vcl/v1
kind: VirtualMachine
metadata: {name: web}
spec: {controller: dummy, cpu: {cores: 1}, memory: 64Mi, disks: [{name: vda, pool: ceph, image: old}]}
"""


def parse(path: str, data: bytes) -> ParsedFile:
    return parse_manifest(path, data, SCHEMAS)


class Site:
    """Three nodes; on r2 runs a domain that somebody made by hand."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.ceph = SiteCeph(world)
        self.ceph.images.images[IMAGE] = SimImage(id="1001", size=1 << 20)
        self.cluster = SimCluster(world, ("r1", "r2", "r3"), parse, site=self.ceph)
        self.cluster.found()
        world.power_on()
        world.run_for(8.0)
        loops = self.cluster.loops("r2")
        assert loops is not None
        guests = loops.ports.controllers["dummy"]
        assert isinstance(guests, SiteGuests)

        async def somebody(_ports: object) -> None:
            guests.by_hand("web", UUID, IMAGE)

        world.call("r2", somebody)
        world.run_until(lambda: self.counter() > 3, 30.0, "the guest counts")

    def adopt(self, node: str) -> AdoptResult:
        loops = self.cluster.loops(node)
        assert loops is not None
        adoptions = loops.adoptions
        wanted = Wanted(source="web", content=MANIFEST, domain="web", uuid=UUID, running=True)
        (result,) = self.world.call(node, lambda ports: adoptions.adopt([wanted], dry_run=False))
        assert isinstance(result, AdoptResult)
        return result

    def counter(self) -> int:
        return max(self.ceph.counters.values(), default=0)

    def claim(self) -> Claim:
        found = self.world.storage.cluster.get([keys.claim("web")]).get(keys.claim("web"))
        return load(Claim, found.value) if found is not None else Claim()


def test_an_adopted_guest_starts_elsewhere_when_its_host_is_lost() -> None:
    with World(seed=5) as world:
        site = Site(world)
        (qemu,) = site.ceph.qemus
        result = site.adopt("r2")
        assert result.result == "adopted", result.error
        audit = Invariants(site.cluster).writers
        assert (site.claim().node, site.claim().uid) == ("r2", UUID)
        assert qemu.client in site.claim().clients
        count = site.counter()
        world.run_until(lambda: site.counter() > count + 5, 30.0, "the same guest counts on")
        assert [each.client for each in site.ceph.qemus] == [qemu.client]
        for host in site.cluster.hosts.values():
            world.run_until(
                lambda host=host: MANIFEST in host.directory.files.values(), 30.0, "every node has it"
            )

        world.network.isolate("r2")
        world.storage.cut("r2")
        world.node("r2").pause()
        world.run_until(lambda: site.claim().node not in ("", "r2"), 60.0, "it starts elsewhere")
        assert site.ceph.blocklist.bars(qemu.client)
        count = site.counter()
        world.run_until(lambda: site.counter() > count + 5, 60.0, "it counts on")
        assert audit is not None
        assert audit.writes > 10


def test_only_the_host_that_runs_it_takes_it_over() -> None:
    with World(seed=6) as world:
        site = Site(world)
        assert "runs, and not on node r1" in site.adopt("r1").error
        assert site.claim() == Claim()
        assert site.adopt("r2").result == "adopted"
