"""Random saves, removals, crashes, outages and lost memories on three nodes: in the end every directory is
the same, and no bytes that a user saved last, unseen by anybody who changed the file after, are gone."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconciler.resources import keys
from reconciler.resources.kinds import Kind
from reconciler.resources.scans import Base
from reconciler.resources.transactions import Txn
from reconciler.sim.clock import VirtualClock
from reconciler.sim.killpoints import Killpoint, KillStore
from reconciler.sim.manifest_directory import MemoryBaseStore, MemoryManifestDirectory
from reconciler.sim.store import MemoryCluster, MemoryStore, TxnFault
from reconciler.testing.manifests import CutStore, KillBases, KillDirectory, ManifestWorld, together, vm

NODES = ("r1", "r2", "r3")
PATHS = ("a.yaml", "b.yaml", "sub/c.yaml")
OBJECTS = ("web", "db", "mail")


@dataclass(frozen=True)
class Save:
    """A user writes a file: valid with these objects, or broken."""

    node: int
    path: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class Remove:
    node: int
    path: str


@dataclass(frozen=True)
class Look:
    node: int
    after: float


@dataclass(frozen=True)
class Crash:
    """The node dies at the n-th call of its next look, before or after the call took effect, and comes back;
    `forgets`: without its memory."""

    node: int
    at: int
    after: bool
    forgets: bool


@dataclass(frozen=True)
class Outage:
    """The node's store is away, or back."""

    node: int


@dataclass(frozen=True)
class Fault:
    node: int
    fault: TxnFault


Action = Save | Remove | Look | Crash | Outage | Fault

nodes = st.integers(0, 2)
actions = st.lists(
    st.one_of(
        st.builds(
            Save,
            nodes,
            st.sampled_from(PATHS),
            st.sampled_from([("web",), ("db",), ("web", "db"), ("mail",), ()]),
        ),
        st.builds(Save, nodes, st.just("a.yaml"), st.just(("web",))),
        st.builds(Remove, nodes, st.sampled_from(PATHS)),
        st.builds(Look, nodes, st.sampled_from([0.0, 0.0, 0.6, 1.1])),
        st.builds(Crash, nodes, st.integers(1, 8), st.booleans(), st.booleans()),
        st.builds(Outage, nodes),
        st.builds(Fault, nodes, st.sampled_from([TxnFault.REFUSED, TxnFault.APPLIED, TxnFault.LOST])),
    ),
    min_size=3,
    max_size=30,
)


@dataclass
class Saved:
    """What a user saved, and whether somebody who had it before their eyes changed or removed it later."""

    path: str
    data: bytes
    superseded: bool = False


@dataclass
class Node:
    name: str
    store: MemoryStore
    way: CutStore
    directory: MemoryManifestDirectory
    bases: MemoryBaseStore
    world: ManifestWorld | None = None


@dataclass
class Story:
    """Three nodes, what users did, and what that allows."""

    clock: VirtualClock = field(default_factory=VirtualClock)
    cluster: MemoryCluster = field(default_factory=MemoryCluster)
    nodes: list[Node] = field(default_factory=list)
    saves: list[Saved] = field(default_factory=list)
    dropped: set[str] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)
    crashes: bool = False
    counter: int = 0
    seed: int = 0

    async def begin(self) -> None:
        for name in NODES:
            store = MemoryStore(self.cluster)
            node = Node(name, store, CutStore(store), MemoryManifestDirectory(name), MemoryBaseStore())
            self.nodes.append(node)
            await self.start(node)

    async def start(self, node: Node, point: Killpoint | None = None) -> None:
        self.seed += 1
        point = point or Killpoint()
        node.world = ManifestWorld(
            KillStore(node.way, point),
            node=node.name,
            directory=KillDirectory(node.directory, point),
            bases=KillBases(node.bases, point),
            clock=self.clock,
            seed=self.seed,
        )
        node.world.master = node.name == "r2"
        await node.world.start()

    async def act(self, action: Action) -> None:
        node = self.nodes[action.node]
        match action:
            case Save(path=path, names=names):
                self.save(node, path, names)
            case Remove(path=path):
                self.see(node, path, ())
                node.directory.files.pop(path, None)
            case Look(after=after):
                self.clock.advance(after)
                await self.look(node)
            case Crash():
                await self.crash(node, action)
            case Outage():
                node.way.cut = not node.way.cut
            case Fault(fault=fault):
                node.store.arm(fault)

    def save(self, node: Node, path: str, names: tuple[str, ...]) -> None:
        self.counter += 1
        self.see(node, path, names)
        comment = f"save {self.counter}"
        data = together(*(vm(name, comment=comment) for name in names)) if names else f"{comment}: [".encode()
        node.directory.files[path] = data
        self.saves.append(Saved(path, data))

    def see(self, node: Node, path: str, names: tuple[str, ...]) -> None:
        """Whoever changes a file has seen what is in it, and answers for the objects that leave it."""
        there = node.directory.files.get(path)
        for saved in self.saves:
            if saved.path == path and saved.data == there:
                saved.superseded = True
        if there is not None:
            was = {name for name in OBJECTS if f"name: {name}\n".encode() in there}
            self.dropped |= was - set(names)

    async def look(self, node: Node) -> None:
        assert node.world is not None
        if not node.way.cut:
            await self.caught_up(node)
        await node.world.look()

    async def caught_up(self, node: Node) -> None:
        assert node.world is not None
        async with asyncio.timeout(5):
            while not node.world.cache.healthy:
                await asyncio.sleep(0.001)
            await node.world.cache.wait_for(self.cluster.revision)

    async def crash(self, node: Node, crash: Crash) -> None:
        assert node.world is not None
        await node.world.stop()
        self.crashes = True
        cut, node.way.cut = node.way.cut, False
        if crash.forgets:
            node.bases.base = Base()
        point = Killpoint()
        await self.start(node, point)
        point.at, point.after = crash.at, crash.after
        dying = asyncio.create_task(node.world.look(1.1))
        reached = asyncio.create_task(point.reached.wait())
        await asyncio.wait([dying, reached], return_when=asyncio.FIRST_COMPLETED)
        for task in (dying, reached):
            task.cancel()
        await asyncio.gather(dying, reached, return_exceptions=True)
        await node.world.stop()
        await self.start(node)
        node.way.cut = cut

    async def end(self) -> None:
        """Everything is repaired, and everybody looks until nothing moves."""
        for node in self.nodes:
            node.way.cut = False
        for number in range(14):
            self.clock.advance(1.1)
            if number == 6:
                await self.finish_deletions()
            for node in self.nodes:
                await self.look(node)
                held = node.world.service.held() if node.world else None
                if held is not None and node.world is not None:
                    await node.world.service.confirm(held.id)

    async def finish_deletions(self) -> None:
        """As the master does when the VMs are gone."""
        world = self.nodes[0].world
        assert world is not None
        await self.caught_up(self.nodes[0])
        for name in OBJECTS:
            record = world.record(name)
            if record is not None and record.metadata.deletion_timestamp is not None:
                self.deleted.add(name)
                key = keys.spec(Kind.VIRTUAL_MACHINE, name)
                self.cluster.apply(Txn(id=f"finish {name}", deletes=(key,)))

    def check(self) -> None:
        assert self.deleted <= self.dropped, "an object was deleted that no user took out of a file"
        views = [self.manifests(node) for node in self.nodes]
        assert views[0] == views[1] == views[2]
        world = self.nodes[0].world
        assert world is not None
        assert {path: world.stored(path) for path in views[0]} == views[0]
        for saved in self.saves:
            kept = any(saved.data in node.directory.files.values() for node in self.nodes)
            assert saved.superseded or kept, f"{saved.data!r} of {saved.path} is lost"
            back = saved.superseded and views[0].get(saved.path) == saved.data
            assert self.crashes or not back, f"{saved.data!r} of {saved.path} came back"

    def manifests(self, node: Node) -> dict[str, bytes]:
        return {path: data for path, data in node.directory.files.items() if ".conflict-" not in path}

    async def stop(self) -> None:
        for node in self.nodes:
            if node.world is not None:
                await node.world.stop()


async def play(script: list[Action]) -> None:
    story = Story()
    await story.begin()
    try:
        for action in script:
            await story.act(action)
        await story.end()
        story.check()
    finally:
        await story.stop()


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(actions)
def test_whatever_happens_all_directories_end_the_same_and_nothing_is_lost(script: list[Action]) -> None:
    asyncio.run(play(script))
