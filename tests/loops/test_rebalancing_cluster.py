"""Rebalancing in a simulated cluster of four nodes: VMs move live, a few at a time, and only as long as all
is well; with masters that come and go."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from reconciler.loops.assembly import Node as Loops
from reconciler.loops.intents import Intents
from reconciler.loops.rebalance_requests import RebalanceRequests
from reconciler.planning.intents import Verb
from reconciler.planning.node_intents import NodeVerb
from reconciler.resources import keys
from reconciler.resources.errors import ConflictError
from reconciler.resources.migrations import MigrationRecord
from reconciler.resources.rebalancing import MoveState, RebalancePhase, RebalanceRecord, RebalanceScope
from reconciler.resources.records import Claim, load
from reconciler.sim.cluster import SimCluster
from reconciler.sim.scenario_verbs import rebalance_requests
from reconciler.sim.world import World
from reconciler.testing.manifests import parse

NODES = ("r1", "r2", "r3", "r4")
VMS = tuple(f"vm{number}" for number in range(6))
HEAD = "apiVersion: vcl/v1\nkind: "
BALANCE = (
    f"{HEAD}Cluster\nmetadata: {{name: cluster}}\nspec: {{balance: {{mode: Full, holdDownSeconds: 20}}}}\n"
)
APART = (
    f"{HEAD}PlacementConstraint\nmetadata: {{name: apart}}\n"
    "spec: {type: AntiAffinity, enforcement: Required, vms: {names: [vm0, vm1]}}\n"
)


def vm(name: str) -> bytes:
    spec = "{controller: dummy, cpu: {cores: 2}, memory: 8Gi}"
    return f"{HEAD}VirtualMachine\nmetadata: {{name: {name}}}\nspec: {spec}\n".encode()


class Site:
    """All VMs are on r4, r2 and r3 have room, and r1, the master, takes none."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.cluster = SimCluster(world, NODES, parse)
        self.cluster.found()
        world.power_on()
        world.run_until(lambda: "r1" in self.cluster.masters(), 20.0, "there is a master")
        for node in ("r1", "r2", "r3"):
            self.on_node(NodeVerb.CORDON, node)
        for name in VMS:
            self.cluster.save("r1", f"{name}.yaml", vm(name))
        world.run_until(lambda: self.homes() == {"r4": 6}, 60.0, "all run on r4")
        for node in ("r2", "r3"):
            self.on_node(NodeVerb.UNCORDON, node)
        world.run_for(2.0)

    def loops(self, name: str) -> Loops:
        found = self.cluster.loops(name)
        assert found is not None
        return found

    def on_node(self, verb: NodeVerb, node: str) -> None:
        self.world.call("r1", lambda _: self._intents("r1").apply_to_node(verb, node))

    def tell(self, verb: Verb, name: str, on: str = "r2") -> None:
        self.world.call(on, lambda _: self._intents(on).apply(verb, name))

    def _intents(self, on: str) -> Intents:
        loops = self.loops(on)
        return Intents(loops.views, loops.writer, loops.ports.clock, loops.ports.ids)

    def requests(self, on: str) -> RebalanceRequests:
        return rebalance_requests(self.loops(on))

    def begin(self, on: str = "r2", scope: RebalanceScope = RebalanceScope.FULL) -> RebalanceRecord:
        made: list[RebalanceRecord] = []

        async def ask(_: object) -> None:
            made.append(await self.requests(on).begin(scope))

        self.world.call(on, ask)
        return made[0]

    def cancel(self, on: str = "r2") -> None:
        self.world.call(on, lambda _: self.requests(on).cancel())

    def record(self) -> RebalanceRecord:
        found = self.world.storage.cluster.get([keys.REBALANCE])[keys.REBALANCE]
        return load(RebalanceRecord, found.value)

    def homes(self) -> dict[str, int]:
        """How many VMs each node owns."""
        found: dict[str, int] = {}
        for item in self.world.storage.cluster.list(keys.CLAIMS).items:
            node = load(Claim, item.value).node
            if node:
                found[node] = found.get(node, 0) + 1
        return found

    def migrations(self) -> list[MigrationRecord]:
        items = self.world.storage.cluster.list(keys.MIGRATIONS).items
        return [load(MigrationRecord, item.value) for item in items]

    def until_ended(self, seconds: float = 120.0) -> RebalanceRecord:
        self.world.run_until(
            lambda: self.record().phase is not RebalancePhase.RUNNING, seconds, "the run has ended"
        )
        return self.record()

    def until_moving(self) -> None:
        self.world.run_until(
            lambda: any(move.state is MoveState.MOVING for move in self.record().moves), 20.0, "one moves"
        )


@pytest.fixture
def site() -> Iterator[Site]:
    with World(seed=7) as world:
        yield Site(world)


def test_vms_move_until_nodes_are_even_and_then_no_more(site: Site) -> None:
    begun = site.begin()
    assert len(begun.moves) >= 3
    ended = site.until_ended()
    assert (ended.phase, ended.id) == (RebalancePhase.SUCCEEDED, begun.id)
    assert sorted(site.homes().values()) == [2, 2, 2]
    assert len(site.migrations()) == len(begun.moves)
    site.world.run_for(1.0)
    again = site.begin()
    assert (again.moves, again.phase) == ((), RebalancePhase.SUCCEEDED)
    site.world.run_for(30.0)
    assert len(site.migrations()) == len(begun.moves)


def test_a_rule_that_came_later_is_kept_by_a_repair_and_nothing_else_is_moved(site: Site) -> None:
    site.cluster.save("r2", "apart.yaml", APART.encode())
    site.world.run_for(3.0)
    begun = site.begin(scope=RebalanceScope.REPAIR)
    assert [move.vm in ("vm0", "vm1") for move in begun.moves] == [True]
    assert site.until_ended().phase is RebalancePhase.SUCCEEDED
    assert sorted(site.homes().values()) == [1, 5]


def test_the_next_master_goes_on_where_the_last_one_was(site: Site) -> None:
    begun = site.begin()
    site.until_moving()
    site.world.node("r1").kill()
    site.world.run_until(lambda: bool(set(site.cluster.masters()) & {"r2", "r3"}), 30.0, "another master")
    site.world.node("r1").start()
    ended = site.until_ended(240.0)
    assert ended.id == begun.id
    assert ended.phase is RebalancePhase.SUCCEEDED, ended.message
    assert sorted(site.homes().values()) == [2, 2, 2]
    ids = [move.migration for move in ended.moves if move.migration]
    assert len(ids) == len(set(ids))
    assert len(site.migrations()) <= len(begun.moves), "nothing is asked for twice"


def test_while_a_node_is_drained_nothing_begins(site: Site) -> None:
    begun = site.begin()
    site.on_node(NodeVerb.DRAIN, "r1")
    site.world.run_until(lambda: "node r1 is being drained" in site.record().message, 40.0, "it waits")
    before = len(site.migrations())
    site.world.run_for(30.0)
    assert len(site.migrations()) == before < len(begun.moves)
    site.on_node(NodeVerb.UNCORDON, "r1")
    assert site.until_ended().phase is RebalancePhase.SUCCEEDED
    assert len(site.migrations()) == len(begun.moves)


def test_a_vm_that_is_stopped_meanwhile_ends_the_run_and_not_the_others(site: Site) -> None:
    begun = site.begin()
    last = begun.moves[-1].vm
    site.tell(Verb.STOP, last)
    ended = site.until_ended()
    assert ended.phase in (RebalancePhase.FAILED, RebalancePhase.SUCCEEDED)
    site.world.run_for(10.0)
    assert sum(site.homes().values()) == len(VMS) - 1


def test_one_that_is_cancelled_begins_no_more_moves(site: Site) -> None:
    begun = site.begin()
    with pytest.raises(ConflictError, match="a rebalancing goes on"):
        site.begin()
    site.until_moving()
    site.cancel()
    assert site.record().phase is RebalancePhase.CANCELLED
    moving = sum(move.state is MoveState.MOVING for move in site.record().moves)
    site.world.run_for(60.0)
    assert len(site.migrations()) <= moving + 1 < len(begun.moves) + 1
    assert sum(site.homes().values()) == len(VMS)
    with pytest.raises(ConflictError, match="no rebalancing goes on"):
        site.cancel()


def test_by_itself_only_after_the_hold_down_and_never_back_and_forth(site: Site) -> None:
    site.world.run_for(60.0)
    assert site.migrations() == [], "by default only when asked"
    site.cluster.save("r1", "cluster.yaml", BALANCE.encode())
    site.world.run_for(15.0)
    assert site.migrations() == []
    site.world.run_until(lambda: len(site.homes()) == 3, 180.0, "VMs are on all nodes")
    assert site.until_ended().phase is RebalancePhase.SUCCEEDED
    made = len(site.migrations())
    site.world.run_for(120.0)
    assert len(site.migrations()) == made
    assert sorted(site.homes().values()) == [2, 2, 2]
