"""The master dies after each write and each command of a fencing and of the way home, and the next one
finishes: they are counted in a run without a death, so that a new one is covered by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from reconciler.adapters.schema_files import load_schemas
from reconciler.ports.fencer import Guard
from reconciler.resources import keys
from reconciler.resources.fencing import FenceOrder, FenceRecord, Proof
from reconciler.resources.manifest import ParsedFile, parse_manifest
from reconciler.resources.records import Claim, load
from reconciler.resources.transactions import Committed, Txn, TxnResult
from reconciler.sim.cluster import SimCluster
from reconciler.sim.invariants import Invariants
from reconciler.sim.site_ceph import SiteCeph
from reconciler.sim.site_ports import SiteFencer
from reconciler.sim.world import World
from reconciler.sim.writing import virtual_machine

SCHEMAS = load_schemas()
NODES = ("r1", "r2", "r3", "r4", "r5")


def parse(path: str, data: bytes) -> ParsedFile:
    return parse_manifest(path, data, SCHEMAS)


class Stopping(SiteFencer):
    """Stops after its commands have taken effect, before that is recorded."""

    def __init__(self, site: SiteCeph, host: str, stop: Callable[[str], bool]) -> None:
        super().__init__(site, host)
        self._stop = stop

    async def fence(self, order: FenceOrder, guard: Guard, *, timeout: float) -> Proof:
        proof = await super().fence(order, guard, timeout=timeout)
        await self._done("Fence")
        return proof

    async def break_locks(self, order: FenceOrder, guard: Guard, *, timeout: float) -> tuple[str, ...]:
        broken = await super().break_locks(order, guard, timeout=timeout)
        await self._done("BreakLocks")
        return broken

    async def lift(self, order: FenceOrder, guard: Guard, *, clients: bool, timeout: float) -> None:
        await super().lift(order, guard, clients=clients, timeout=timeout)
        await self._done("Lift")

    async def _done(self, step: str) -> None:
        if self._stop(f"after the commands of {step}"):
            await asyncio.sleep(1.0)


@dataclass(slots=True)
class Story:
    """A VM's host is fenced and comes home; the master dies at the `at`-th stop (0: never)."""

    world: World
    at: int = 0
    stops: list[str] = field(default_factory=list)
    killed: str = ""
    cluster: SimCluster = field(init=False)
    ceph: SiteCeph = field(init=False)
    audit: Invariants = field(init=False)

    def __post_init__(self) -> None:
        self.ceph = SiteCeph(self.world)
        self.cluster = SimCluster(
            self.world,
            NODES,
            parse,
            site=self.ceph,
            fencers=lambda ports: (Stopping(self.ceph, ports.name, self.stop),),
        )
        self.audit = Invariants(self.cluster)
        self.world.storage.cluster.judges.append(self._judge)

    def tell(self, leave: Callable[[World, str], None], back: Callable[[World, str], None]) -> None:
        """From the first start to the day when all is as before."""
        world = self.world
        self.cluster.found()
        world.power_on()
        world.run_for(8.0)
        self.cluster.save("r1", "web.yaml", virtual_machine("web", disk="1Gi"))
        world.run_until(lambda: self.counter() > 3, 30.0, "the guest counts")
        victim, before = self.owner(), self.counter()
        leave(world, victim)
        world.run_until(lambda: self.owner() not in ("", victim), 60.0, "it starts elsewhere")
        world.run_until(lambda: self.counter() > before + 3, 60.0, "it counts on")
        back(world, victim)
        world.run_until(lambda: not self.fenced(victim), 90.0, "the node comes home")
        world.run_until(lambda: not self.barred(victim), 10.0, "its way to Ceph is open")
        before = self.counter()
        world.run_until(lambda: self.counter() > before + 3, 30.0, "it counts on")
        assert self.killed != victim
        assert self.audit.writers is not None
        assert self.audit.writers.writes >= self.counter()

    def counter(self) -> int:
        return max(self.ceph.counters.values(), default=0)

    def owner(self) -> str:
        found = self.world.storage.cluster.get([keys.claim("web")]).get(keys.claim("web"))
        return load(Claim, found.value).node if found is not None else ""

    def fenced(self, node: str) -> bool:
        return keys.fence(node) in self.world.storage.cluster.get([keys.fence(node)])

    def barred(self, node: str) -> bool:
        return self.ceph.blocklist.bars(f"{self.world.node(node).address}:0/1")

    def _judge(self, txn: Txn, result: TxnResult) -> None:
        if not isinstance(result, Committed):
            return
        for put in txn.puts:
            if put.key.startswith(keys.FENCES):
                steps = load(FenceRecord, put.value).steps
                self.stop(f"after the write of {steps[-1].step if steps else 'Intent'}")
        if any(key.startswith(keys.FENCES) for key in txn.deletes):
            self.stop("after the write of Clear")

    def stop(self, name: str) -> bool:
        """Whether the master dies here."""
        self.stops.append(name)
        if len(self.stops) != self.at:
            return False
        (self.killed,) = self.cluster.masters()
        self.world.at(self.world.now, self.world.node(self.killed).kill)
        return True


def power_off(world: World, node: str) -> None:
    world.node(node).power_off()


def power_on(world: World, node: str) -> None:
    world.node(node).power_on()


def freeze_and_cut(world: World, node: str) -> None:
    world.network.isolate(node)
    world.storage.cut(node)
    world.node(node).pause()


def wake_and_heal(world: World, node: str) -> None:
    world.network.heal()
    world.storage.heal(node)
    world.node(node).resume()


WAYS = [
    pytest.param(power_off, power_on, id="without power, and booted again"),
    pytest.param(freeze_and_cut, wake_and_heal, id="cut off and frozen, and awake again"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("leave", "back"), WAYS)
def test_the_master_dies_at_every_stop_of_a_fencing_and_of_the_way_home(
    leave: Callable[[World, str], None], back: Callable[[World, str], None]
) -> None:
    with World(seed=5) as world:
        calm = Story(world)
        calm.tell(leave, back)
    assert calm.stops[0] == "after the write of Intent"
    assert {"after the commands of Lift", "after the write of Lift"} <= set(calm.stops)
    assert calm.stops[-1] == "after the write of Clear"
    for at, expected in enumerate(calm.stops, start=1):
        with World(seed=5) as world:
            story = Story(world, at=at)
            try:
                story.tell(leave, back)
            except Exception as error:
                error.add_note(f"the master was killed {expected}")
                raise
            assert story.stops[at - 1] == expected
            assert story.killed
