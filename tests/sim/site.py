"""Three simulated nodes with a Ceph, a VM that counts on one of them, and the audits of all rules at work."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from reconciler.adapters.schema_files import load_schemas
from reconciler.ports.fencer import Fencer
from reconciler.resources import keys
from reconciler.resources.fencing import FenceRecord
from reconciler.resources.manifest import ParsedFile, parse_manifest
from reconciler.resources.records import Claim, load
from reconciler.sim.cluster import SimCluster
from reconciler.sim.dummy_guests import Faults, Life
from reconciler.sim.invariants import Invariants
from reconciler.sim.site_ceph import Qemu, SiteCeph
from reconciler.sim.site_ports import SiteFencer
from reconciler.sim.world import NodePorts, World
from reconciler.sim.writing import virtual_machine

SCHEMAS = load_schemas()
NODES = ("r1", "r2", "r3")


def parse(path: str, data: bytes) -> ParsedFile:
    return parse_manifest(path, data, SCHEMAS)


class Site:
    """`web` is one VM with its disk in Ceph, as `vm` says; `others`: files that are saved before it. `faults`
    of all hosts' guests. `fencer`: this one alone, `fencers`: all of a node's."""

    def __init__(
        self,
        world: World,
        fencer: Callable[[SiteCeph, str], Fencer] = SiteFencer,
        *,
        fencers: Callable[[SiteCeph, NodePorts], Sequence[Fencer]] | None = None,
        vm: bytes = virtual_machine("web", disk="1Gi"),
        others: Sequence[bytes] = (),
        faults: Faults | None = None,
        audited: bool = True,
    ) -> None:
        self.world = world
        self.ceph = SiteCeph(world)
        made = fencers or (lambda ceph, ports: (fencer(ceph, ports.name),))
        self.cluster = SimCluster(
            world, NODES, parse, site=self.ceph, fencers=lambda ports: made(self.ceph, ports)
        )
        for host in self.cluster.hosts.values():
            host.faults = faults or Faults()
        self.audit = Invariants(self.cluster).writers if audited else None
        self.cluster.found()
        world.power_on()
        world.run_for(8.0)
        for number, other in enumerate(others):
            self.cluster.save("r1", f"other{number}.yaml", other)
            world.run_for(2.0)
        self.cluster.save("r1", "web.yaml", vm)

    def started(self) -> Site:
        """When its guest counts."""
        self.world.run_until(lambda: self.counter() > 3, 30.0, "the guest counts")
        return self

    def counter(self) -> int:
        return max(self.ceph.counters.values(), default=0)

    def claim(self, vm: str = "web") -> Claim:
        found = self.world.storage.cluster.get([keys.claim(vm)]).get(keys.claim(vm))
        return load(Claim, found.value) if found is not None else Claim()

    def owner(self) -> str:
        return self.claim().node

    def record(self, node: str) -> FenceRecord | None:
        found = self.world.storage.cluster.get([keys.fence(node)]).get(keys.fence(node))
        return load(FenceRecord, found.value) if found is not None else None

    def master(self) -> str:
        masters = self.cluster.masters()
        return max(masters, key=lambda name: masters[name], default="")

    def alive_on(self, host: str) -> bool:
        return any(guest.life is Life.ALIVE for guest in self.cluster.guests(host))

    def on(self, host: str) -> list[Qemu]:
        return [qemu for qemu in self.ceph.qemus if qemu.host == host]

    def vanish(self, host: str) -> None:
        """It is cut from all, and its daemon frozen: nobody there ends the guest."""
        self.world.network.isolate(host)
        self.world.storage.cut(host)
        self.world.node(host).pause()

    def awake(self, host: str) -> None:
        """All of that is over."""
        self.world.network.heal()
        self.world.storage.heal(host)
        self.world.node(host).resume()

    def failed_over_from(self, host: str) -> bool:
        before = self.counter()
        self.world.run_until(lambda: self.owner() not in ("", host), 60.0, "it starts elsewhere")
        self.world.run_until(lambda: self.counter() > before + 5, 60.0, "it counts on")
        return True
